"Files of the teacher's outputs: their size, damage, older versions; runs without them end alike."

import shutil

import pytest
import safetensors.torch
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


def vanish(file):
    "Another run makes room"
    file.unlink()


def shrink(file):
    "A disk fails"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize('change', [vanish, shrink])
@pytest.mark.parametrize('reader', ['sha256', 'load_file'])
def test_a_file_that_changes_at_any_moment_counts_as_not_cached(data, tmp_path, monkeypatch, reader, change):
    folder, teacher = tmp_path / 'outputs', Counting()
    without = fit(data, teacher, TeacherCache(folder, teacher))
    (file,) = folder.glob('*.safetensors')
    module = teacher_cache if reader == 'sha256' else safetensors.torch
    read = getattr(module, reader)

    def changed(path):
        if not changes:
            changes.append(path)
            change(path)
        return read(path)

    changes = []
    monkeypatch.setattr(module, reader, changed)
    before = teacher.asked
    assert equal(without, fit(data, teacher, TeacherCache(folder, teacher))) and teacher.asked == before + CHECKED + 19
    assert changes == [file] and len(kept(folder)) == 19


@pytest.mark.parametrize('gone', ['outputs', '.'])
def test_a_directory_that_vanishes_while_it_is_written_ends_no_fit(data, tmp_path, monkeypatch, gone):
    folder, teacher = tmp_path / 'teacher' / 'outputs', Counting()
    folder.parent.mkdir()
    monkeypatch.setattr(teacher_cache, 'remove_half_written', lambda _: shutil.rmtree(folder.parent / gone))
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher)) == CHECKED + 19
    assert not list(folder.glob('*.safetensors'))


def test_a_file_that_vanishes_while_room_is_made_takes_none(data, tmp_path, monkeypatch):
    folder, teacher = tmp_path / 'outputs', Counting()
    folder.mkdir()
    (folder / 'other-1.safetensors').symlink_to('nowhere')  # listed, and gone when it is looked at
    fit(data, teacher, TeacherCache(folder, teacher), epochs=1)
    assert len(list(folder.glob('*.safetensors'))) == 2


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
