"What a run was built on: several teachers, teachers that are none, and where they are found again."

import json
import shutil

import pytest
from conftest import beside, make, seal
from interruptions import interrupted, same, train
from rich.console import Console

from kdfast.core.errors import KdfastError
from kdfast.core.format import percent
from kdfast.data import load
from kdfast.models.saved import load_network
from kdfast.report.summary import run_summary
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream import record_upstream, teachers_of
from kdfast.runs.upstream_paths import rebased_entries, runs_root, upstream_entries
from kdfast.training.given_teacher import held_out_note

TWO = '''"Two teachers."
from kdfast.all import *

def main(run, epochs:int=2):
    wide_one,thin_one = run.needs('teacher', epochs=1),run.needs('teacher', network='thin', epochs=1)
    learn = run.learner(run.build(thin))
    learn.fit_one_cycle(epochs, .1, cbs=[Distill(wide_one), Match(thin_one, at_loss, 10., 'stage2:stage2')])
    return learn
'''


@pytest.fixture(scope='module')
def two(data, tmp_path_factory):
    "A recipe of two teachers, and its run that nothing interrupted"
    home = tmp_path_factory.mktemp('two')
    (home / 'two.py').write_text(TWO)
    recipe = find_recipe(str(home / 'two.py'))
    return recipe, train(recipe, data, home / 'runs')


def teachers(kept_in):
    return [RunDir(kept_in / 'tiny' / name / '0') for name in ('teacher,epochs=1', 'teacher,epochs=1,network=thin')]


def test_two_teachers_are_two_entries(two):
    _, folder = two
    hashes = [teacher.files['weights.safetensors'] for teacher in teachers(runs_root(folder))]
    assert upstream_entries(folder) == [
        dict(recipe='teacher', path=f'tiny/{name}/0', sha256=sha256)
        for name, sha256 in zip(('teacher,epochs=1', 'teacher,epochs=1,network=thin'), hashes)
    ]
    assert folder.result['teacher_sha256'] == '+'.join(hashes) and len(set(hashes)) == 2
    assert [len(load_network(t).state_dict()) for t in teachers_of(folder)] == [
        len(load_network(t).state_dict()) for t in teachers(runs_root(folder))
    ]


def test_two_teachers_in_words_and_tables(two, kdfast, tmp_path):
    _, folder = two
    accuracies = [percent(t.result['valid_accuracy']) for t in teachers_of(folder)]
    console = Console(width=200, record=True, file=open('/dev/null', 'w'))
    console.print(run_summary(folder))
    assert f'its teachers reach {", ".join(accuracies)}' in console.export_text()
    for command in (
        ['compare'],
        ['ls'],
        ['report', '--out', tmp_path / 'r.html'],
        ['export', folder, '--to', tmp_path / 'x.safetensors'],
    ):
        done = kdfast(*command, *([] if command[0] == 'export' else ['--runs', runs_root(folder)]))
        assert done.status == 0, done.err


@pytest.mark.parametrize('at', [(1, 0, 3), (1, 1, 8)])
def test_two_teachers_go_on(two, data, tmp_path, at):
    recipe, whole = two
    shutil.copytree(runs_root(whole), tmp_path / 'runs')
    shutil.rmtree(tmp_path / 'runs' / 'tiny' / 'two')
    interrupted(recipe, data, tmp_path / 'runs', at)
    assert same(train(recipe, data, tmp_path / 'runs'), whole)


def test_each_of_two_teachers_is_looked_at(two, data, tmp_path):
    recipe, whole = two
    shutil.copytree(runs_root(whole), tmp_path / 'runs')
    shutil.rmtree(tmp_path / 'runs' / 'tiny' / 'two')
    interrupted(recipe, data, tmp_path / 'runs', (1, 0, 3))
    second = teachers(tmp_path / 'runs')[1]
    shutil.copy(teachers(runs_root(whole))[0] / 'weights.safetensors', second / 'weights.safetensors'), seal(second)
    with pytest.raises(
        KdfastError, match='cannot go on: teacher was [0-9a-f]{8}, is [0-9a-f]{8}.*Its checkpoints are kept'
    ):
        train(recipe, data, tmp_path / 'runs')


# Where they are found


def linked(folder, teacher, path, sha256=None):
    entry = dict(path=str(path), sha256=sha256 or teacher.files['weights.safetensors'])
    folder.record = folder.run
    folder.set_status('finished', format=1, stands_on=dict(teacher=entry))


def pair(kept_in):
    teacher, student = make(kept_in, 'teacher', 0, valid_accuracy=0.9), make(kept_in, 'kd', 0, valid_accuracy=0.8)
    (teacher / 'weights.safetensors').write_bytes(b'weights'), seal(teacher)
    return teacher, student


def test_they_are_found_from_anywhere_and_after_a_move(tmp_path, monkeypatch):
    teacher, student = pair(tmp_path / 'runs')
    student.record = student.run | dict(stands_on=[])
    record_upstream(student, 'teacher', teacher), student.set_status('finished')
    (tmp_path / 'runs').rename(tmp_path / 'moved')
    for where, path in (
        (tmp_path, 'moved/pets/kd/0'),
        (tmp_path / 'moved', 'pets/kd/0'),
        (tmp_path / 'moved' / 'pets' / 'kd', '0'),
        ('/', tmp_path / 'moved' / 'pets' / 'kd' / '0'),
    ):
        monkeypatch.chdir(where)
        [found] = teachers_of(RunDir(path))
        assert found.result['valid_accuracy'] == 0.9


@pytest.mark.parametrize('path', ['runs/pets/teacher/0', '/elsewhere/runs/pets/teacher/0', 'RUNS/pets/teacher/0'])
def test_format_1_is_read(tmp_path, monkeypatch, path):
    teacher, student = pair(tmp_path / 'runs')
    linked(student, teacher, path.replace('RUNS', str(tmp_path / 'runs')))
    for where in (tmp_path, '/'):
        monkeypatch.chdir(where)
        assert [t.path for t in teachers_of(student)] == [f.path for f in teachers_of(student)] and len(
            teachers_of(student)
        ) == 1
    assert rebased_entries(student) == [
        dict(recipe='teacher', path='pets/teacher/0', sha256=teacher.files['weights.safetensors'])
    ]


def test_a_teacher_that_was_trained_again_is_another(tmp_path):
    teacher, student = pair(tmp_path)
    linked(student, teacher, teacher.path, '0' * 64)
    assert teachers_of(student) == []


# What may teach


@pytest.mark.parametrize(
    'status,said',
    [
        ('finished', 'is not a teacher: hint trains only a part of its network'),
        ('interrupted', 'is interrupted; a teacher must be finished'),
    ],
)
def test_what_classifies_nothing_teaches_nobody(study, kdfast, images, tmp_path, status, said):
    shutil.copytree(study / 'hint' / '0', tmp_path / 'other')
    folder = RunDir(tmp_path / 'other')
    folder.record = folder.run
    folder.set_status(status)
    done = kdfast('run', 'kd', '--teacher', tmp_path / 'other', '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and said in done.err and not (tmp_path / 'runs').exists(), done.err


@pytest.mark.parametrize(
    'taught,holdout,seen',
    [
        (0.0, 0.25, True),
        (0.25, 0.25, False),
        (0.5, 0.25, False),
        (0.25, 0.5, True),
        (0.0, 0.0, False),
        (0.25, 0.0, False),
    ],
)
def test_a_teacher_that_has_seen_what_is_held_out_is_noted(images, tmp_path, taught, holdout, seen):
    "Of each class, a smaller share is held out of the images of a larger one"
    teacher, data = make(tmp_path, 'teacher', 0, data='tiny'), load(str(images), holdout)
    teacher.set_status('finished', images=load(str(images), taught).load_arguments)
    note = held_out_note(teacher, data)
    assert bool(note) == seen and (not seen or f'was trained on images that --holdout {holdout} holds out' in note)
    train = {image.tobytes() for image in load(str(images), taught).train[0]}
    assert seen == bool(holdout and train & {image.tobytes() for image in data.valid[0]})


@pytest.mark.parametrize(
    'taught,own,seen',
    [
        (dict(resplit=1), dict(resplit=1), False),
        (dict(resplit=1), dict(resplit=2), True),
        (dict(), dict(resplit=1), True),
        (dict(resplit=1), dict(), True),
        (dict(holdout=0.5, resplit=1), dict(holdout=0.25, resplit=1), False),
        (dict(holdout=0.5), dict(holdout=0.25, resplit=1), True),
    ],
)
def test_a_teacher_of_another_split_is_noted(images, tmp_path, taught, own, seen):
    "Of images without a validation split"
    teacher, data = make(tmp_path, 'teacher', 0, data='tiny'), load(str(images / 'train'), **own)
    with_teacher = load(str(images / 'train'), **taught)
    teacher.set_status('finished', images=with_teacher.load_arguments)
    assert bool(held_out_note(teacher, data)) == seen
    train = {image.tobytes() for image in with_teacher.train[0]}
    assert seen == bool(train & {image.tobytes() for image in data.valid[0]})


def test_it_is_noted_on_record(study, kdfast, images, tmp_path):
    teacher = beside(study, tmp_path / 'teachers', 'teacher') / 'tiny' / 'teacher' / '0'
    config = json.loads((teacher / 'run.json').read_text())
    config['images']['source'] = str(images)  # another process may have trained it, on images of its own
    (teacher / 'run.json').write_text(json.dumps(config))
    done = kdfast(
        'run',
        'kd',
        '--epochs',
        1,
        '--teacher',
        teacher,
        '--holdout',
        0.25,
        '--data',
        images,
        '--runs',
        tmp_path,
    )
    assert done.status == 0 and done.err.count('holds out') == 1 and 'holds out' in ' '.join(done.out.split()), done.err
    [folder] = tmp_path.glob('*/kd*/0')
    assert any('holds out' in note for note in RunDir(folder).run['notes'])
