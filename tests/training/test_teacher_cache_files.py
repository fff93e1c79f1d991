"Files of the teacher's outputs: their size, damage, older versions; runs without them end alike."

import shutil

import pytest
from conftest import beside, equal, weights
from counted_teachers import CHECKED, Counting, asks, fit, kept
from fastai.vision.all import Callback

from kdfast.training import teacher_cache
from kdfast.training.teacher_cache import TeacherCache

# Files


def test_files_are_added_and_none_is_written_twice(data, tmp_path, monkeypatch):
    "The outputs leave memory as they are written; two runs at once keep a batch once"
    folder, teacher = tmp_path / 'outputs', Counting()
    monkeypatch.setattr(teacher_cache, 'CHUNK', 4 * 8 * 3 * 4)  # bytes of four training batches
    one, other = TeacherCache(folder, teacher), TeacherCache(folder, teacher)
    fit(data, teacher, one, epochs=1)
    files = {file: file.stat().st_mtime_ns for file in folder.glob('*.safetensors')}
    assert len(files) == 3 and not one.new

    class AtOnce(Callback):
        def before_train(self):
            other.known.clear(), other.files.clear()  # as if it had begun before the first had written

    assert asks(teacher, data, teacher, other, AtOnce(), epochs=1) == CHECKED + 4  # until it writes itself
    assert {file: file.stat().st_mtime_ns for file in folder.glob('*.safetensors')} == files
    fit(data, teacher, TeacherCache(folder, teacher), epochs=2)
    assert files.items() < {file: file.stat().st_mtime_ns for file in folder.glob('*.safetensors')}.items()


def test_the_limit_is_that_of_all_files(data, tmp_path, monkeypatch):
    "What is known under another key makes room; nothing else does"
    folder, teacher, other = tmp_path / 'outputs', Counting(), Counting(2)
    fit(data, teacher, TeacherCache(folder, teacher), epochs=1)
    (first,) = folder.glob('*.safetensors')
    monkeypatch.setattr(teacher_cache, 'LIMIT', first.stat().st_size + 10)
    fit(data, teacher, TeacherCache(folder, teacher), epochs=2)
    assert (
        list(folder.glob('*.safetensors')) == [first]
        and asks(teacher, data, teacher, TeacherCache(folder, teacher), epochs=1) == 0
    )
    fit(data, other, TeacherCache(folder, other), epochs=1)
    (second,) = folder.glob('*.safetensors')
    assert second != first and asks(other, data, other, TeacherCache(folder, other), epochs=1) == 0


def test_a_damaged_file_is_removed_and_the_teacher_computes_again(data, tmp_path, capsys):
    folder, teacher = tmp_path / 'outputs', Counting()
    without = fit(data, teacher, TeacherCache(folder, teacher))
    (file,) = folder.glob('*.safetensors')
    content = bytearray(file.read_bytes())
    content[-2] ^= 64
    file.write_bytes(content)
    before = teacher.asked
    assert equal(without, fit(data, teacher, TeacherCache(folder, teacher))) and teacher.asked == before + CHECKED + 19
    assert f'{file} is damaged and was deleted' in capsys.readouterr().err and len(kept(folder)) == 19


def test_files_of_older_versions_are_deleted_unread(data, tmp_path):
    (tmp_path / 'outputs.npz').write_bytes(b'whatever')
    teacher = Counting()
    assert (
        asks(teacher, data, teacher, TeacherCache(tmp_path / 'outputs', teacher)) == CHECKED + 19
        and not (tmp_path / 'outputs.npz').exists()
    )


def test_a_fit_that_fails_leaves_nothing(data, tmp_path):
    teacher = Counting()
    cache = TeacherCache(tmp_path / 'outputs', teacher)

    class Fail(Callback):
        def before_step(self):
            raise RuntimeError('no luck')

    with pytest.raises(RuntimeError):
        fit(data, teacher, cache, Fail())
    assert cache.user is None and not cache.new and not (tmp_path / 'outputs').exists()


@pytest.mark.parametrize('recipe', ['kd', 'exp1'])  # a student trained as a whole, and one with a frozen front
def test_a_recipe_ends_equal_without_the_outputs(study, kdfast, images, tmp_path, recipe):
    "exp1 was the first to ask the teacher; here every recipe asks afresh"
    beside(study, tmp_path, 'teacher', 'hint')
    shutil.rmtree(tmp_path / 'tiny' / 'teacher' / '0' / 'outputs')
    assert kdfast('run', recipe, '--data', images, '--runs', tmp_path).status == 0
    assert equal(weights(tmp_path / 'tiny' / recipe / '0'), weights(study / recipe / '0'))
