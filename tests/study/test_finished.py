"A study combines a finished run with others only if it is the run that the study would train now."

import json

import pytest
from conftest import make, recipe, seal

from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import find_recipe
from kdfast.study import schedule, timing
from kdfast.study.tasks import plan

COMMANDS = {
    'study': ('study', 'baseline', 'kd', '--seeds', 2),
    'until decided': ('study', 'baseline', 'kd', '--until-decided', '--looks', '2,4'),
    'matrix': ('matrix', '--seeds', 2),
    'worth': ('worth',),
    'plan': ('plan', 'baseline', 'kd'),
}


def change(folder, file='run.json', **recorded):
    "Change the record of a finished run, or the code that it was trained with"
    if file == 'recipe.py':
        (folder / file).write_text((folder / file).read_text() + '\nCHANGED = True\n')
    else:
        (folder / file).write_text(json.dumps(folder.run | recorded))
    seal(folder)


CHANGES = {
    'another version of teacher.py': lambda folder: change(folder, 'recipe.py'),
    'with arguments': lambda folder: change(folder, arguments=folder.run['arguments'] | dict(epochs=9)),
    'on other images': lambda folder: change(folder, data_sha256='0'),
    'with sources that have changed': lambda folder: change(folder, sources={'gone.py': '0'}),
}


@pytest.fixture
def trained(monkeypatch):
    "What a study would have trained"
    found = []
    monkeypatch.setattr(schedule, 'rehearse_tasks', lambda *_: None)
    monkeypatch.setattr(timing, 'timed', lambda tasks, *_: found.extend(tasks))
    monkeypatch.setattr(schedule, 'run_tasks', lambda tasks, *_: found.extend(tasks) or [])
    return found


def teachers(runs, data, n=2):
    recorded = dict(data_sha256=data.fingerprint, threads=7, device='another', versions=dict(kdfast='0.1'))
    return [make(runs, 'teacher', s, 'tiny', recorded=recorded, valid_accuracy=0.9, seconds=1) for s in range(n)]


@pytest.mark.parametrize('command', COMMANDS)
def test_a_run_of_other_code_is_refused_before_anything_is_trained(kdfast, images, data, tmp_path, trained, command):
    "Here the teacher that a recipe needs, of the last seed"
    change(teachers(tmp_path, data)[-1], 'recipe.py')
    done = kdfast(*COMMANDS[command], '--data', images, '--runs', tmp_path)
    assert done.status == 2 and 'tiny/teacher/1 was trained with another version of teacher.py' in done.err, done.err
    assert not trained and not done.out and not list(tmp_path.glob('tiny/*.json'))  # no design is declared


@pytest.mark.parametrize('what', CHANGES)
def test_whatever_differs_is_refused(kdfast, images, data, tmp_path, trained, what):
    CHANGES[what](teachers(tmp_path, data)[-1])
    done = kdfast(*COMMANDS['study'], '--data', images, '--runs', tmp_path)
    assert done.status == 2 and what in done.err and not trained, done.err


def test_other_threads_devices_and_comments_are_no_other_run(kdfast, images, data, tmp_path, trained):
    folder = teachers(tmp_path, data)[-1]
    (folder / 'recipe.py').write_text('# changed\n' + (folder / 'recipe.py').read_text())
    seal(folder)
    kdfast(*COMMANDS['study'], '--data', images, '--runs', tmp_path)
    assert [task.name for task in trained if not task.folder.finished] == [
        f'{name}, seed {seed}' for seed in (0, 1) for name in ('baseline', 'kd')
    ]


def test_a_run_that_another_process_has_finished_meanwhile_is_not_taken_unseen(tmp_path):
    "Its own process checks it and has nothing to train"
    tasks = plan([(find_recipe('baseline'), {})], range(2), 'pets', tmp_path)
    queue = schedule.Queue(tasks)
    make(tmp_path, 'baseline', 0)
    assert queue.take(2) == tasks and not queue.waiting


def test_a_finished_run_of_other_code_is_not_called_finished(kdfast, images, tmp_path):
    "It is refused in one sentence"
    file = recipe(tmp_path / 'mine.py', 'return baseline.main(run, epochs=1)')
    words = ('run', file, '--data', images, '--runs', tmp_path / 'runs')
    assert kdfast(*words).status == 0 and 'nothing to train' in kdfast(*words).err
    file.write_text(file.read_text().replace('epochs=1)', 'epochs=1, lr=0.01)'))
    done = kdfast(*words)
    assert done.status == 2 and len(done.err.splitlines()) == 1 and 'nothing to train' not in done.err, done.err


def test_two_recipes_with_one_directory_are_refused(kdfast, images, tmp_path):
    (tmp_path / 'b').mkdir()
    one, other = (recipe(folder / 'mine.py', 'pass') for folder in (tmp_path, tmp_path / 'b'))
    done = kdfast('study', 'baseline', one, other, '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and f'{one} and {other} have the same directory of runs' in done.err
    assert not (tmp_path / 'runs').exists()
    assert len(plan([(find_recipe(str(one)), {})] * 2, range(1), 'pets', tmp_path)) == 1  # one recipe, named twice


def test_two_sets_of_arguments_with_one_directory_are_refused(tmp_path):
    baseline = find_recipe('baseline')
    given = [(baseline, dict(student=f'nets{mark}net.py:tiny')) for mark in '/_']
    with pytest.raises(KdfastError, match='would hold runs with arguments'):
        plan(given, range(1), 'pets', tmp_path)
