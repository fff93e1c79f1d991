import json
import os
import subprocess
from dataclasses import replace

import pytest
from conftest import equal, recipe, weights
from rich.console import Console

from kdfast.cli.options import DataOptions, StudyOptions
from kdfast.cli.planned import PlannedStudy
from kdfast.cli.recipes import recipe_command
from kdfast.cli.run import run_recipe
from kdfast.data import load
from kdfast.runs.recipes import find_recipe, study_order
from kdfast.runs.run_dir import RunDir
from kdfast.runs.unfinished import diverged_advice
from kdfast.study import schedule
from kdfast.study.board import Board
from kdfast.study.jobs import Jobs
from kdfast.study.process import Process, stop_processes
from kdfast.study.schedule import run_tasks
from kdfast.study.tasks import KDFAST, plan

NAMES = 'baseline,epochs=1', 'mine'


def test_a_plan_has_every_run_once_after_the_runs_it_needs(tmp_path):
    tasks = plan(
        [(find_recipe('exp1'), dict(epochs=2)), (find_recipe('exp2'), {}), (find_recipe('kd'), {})],
        range(2),
        'pets',
        tmp_path,
    )
    names = [task.name for task in tasks]
    assert sorted(names) == sorted(
        f'{r}, seed {s}' for r in ('teacher', 'hint', 'exp1,epochs=2', 'exp2', 'kd') for s in (0, 1)
    )
    for task in tasks:
        assert all(names.index(need.name) < names.index(task.name) for need in task.needs)
    assert [need.name for task in tasks if task.name == 'exp1,epochs=2, seed 1' for need in task.needs] == [
        'teacher, seed 1',
        'hint, seed 1',
    ]


def test_arguments_are_passed_on_to_what_is_needed(tmp_path):
    tasks = plan([(find_recipe('exp2'), dict(student='matched', matrix=True))], range(1), 'pets', tmp_path)
    assert [task.folder.recipe for task in tasks] == [
        'teacher',
        'hint,student=matched,matrix=True',
        'exp2,student=matched,matrix=True',
    ]
    assert tasks[-1].command([])[-3:] == ['--student', 'matched', '--matrix']


@pytest.mark.parametrize(
    'given', [{}, dict(student='matched'), dict(epochs=3, T=6.0), dict(student='matched', matrix=True)]
)
def test_a_commands_options_are_those_of_its_folder(tmp_path, given):
    "What a task's command line says is read back by the recipe's own command"
    for task in plan([(find_recipe('exp2'), given)], range(3, 4), 'pets', tmp_path):
        words = task.command(['--data', 'pets'])[6:]
        read = recipe_command(task.recipe, run_recipe).make_context('run', words).params
        arguments = task.recipe.resolve({o.name: read[o.name] for o in task.recipe.options})
        assert task.folder.path == tmp_path / 'pets' / task.recipe.folder_name(arguments) / str(read['seed'])


def run(kdfast, images, runs, *arguments):
    return kdfast('study', *arguments, '--data', images, '--runs', runs)


def test_runs_beside_each_other_have_the_weights_of_runs_alone(kdfast, images, tmp_path):
    done = run(kdfast, images, tmp_path / 'study', 'baseline', '--seeds', 2, '--epochs', 1, '--jobs', 2)
    assert done.status == 0, done.err
    assert 'mean ± standard deviation over seeds' in done.out and '2 of 2  baseline,epochs=1, seed' in done.err
    for seed in '01':
        words = 'run', 'baseline', '--epochs', 1, '--seed', seed, '--data', images, '--runs', tmp_path / 'alone'
        assert kdfast(*words).status == 0
        one, two = (weights(tmp_path / where / 'tiny' / 'baseline,epochs=1' / seed) for where in ('study', 'alone'))
        assert equal(one, two)
    again = run(kdfast, images, tmp_path / 'study', 'baseline', '--seeds', 2, '--epochs', 1)
    assert again.status == 0 and again.err == ''  # nothing was left to train


def test_runs_that_others_need_start_first(tmp_path, monkeypatch):
    "Teachers, then stage ones, then the rest, whatever their seeds"
    from conftest import make

    begun = []

    class Instant:
        ended, failure = True, ''

        def __init__(self, command, threads):
            begun.append(command[5])
            make(tmp_path, command[5], int(command[command.index('--seed') + 1]), valid_accuracy=0.5, seconds=1)

    monkeypatch.setattr(schedule, 'POLL_SECONDS', 0)
    monkeypatch.setattr(schedule, 'stop_processes', lambda _: None)
    tasks = plan(
        [(find_recipe('baseline'), {}), (find_recipe('kd'), {}), (find_recipe('exp1'), {})], range(2), 'pets', tmp_path
    )
    assert run_tasks(tasks, [], Jobs(1), 1, Console(quiet=True), Instant) == []
    assert begun == ['teacher'] * 2 + ['hint'] * 2 + ['baseline', 'kd', 'exp1'] * 2


def test_a_failed_run_is_reported_and_stops_no_other(kdfast, images, tmp_path):
    recipe(
        tmp_path / 'mine.py', 'if run.seed == 0: raise RuntimeError("no luck")\n    return baseline.main(run, epochs=1)'
    )
    done = run(kdfast, images, tmp_path / 'runs', tmp_path / 'mine.py', '--seeds', 2, '--jobs', 1)
    assert (
        done.status == 2
        and f'no result: mine, seed 0: {tmp_path / "mine.py"}, line 7: RuntimeError: no luck' in done.err
    )
    assert 'not in the table: mine, seed 0: failed (RuntimeError: no luck)' in done.out.replace('\n', ' ')
    status = {
        seed: json.loads((tmp_path / 'runs' / 'tiny' / 'mine' / str(seed) / 'run.json').read_text())['status']
        for seed in range(2)
    }
    assert status == {0: 'failed', 1: 'finished'}


def test_the_runs_of_a_study_decode_with_its_workers(kdfast, images, tmp_path):
    code = 'from kdfast.data import decoding_threads\n    raise RuntimeError(f"{decoding_threads.number} threads")'
    recipe(tmp_path / 'mine.py', code)
    done = run(kdfast, images, tmp_path / 'runs', tmp_path / 'mine.py', '--seeds', 1, '--workers', 3)
    assert done.status == 2 and 'RuntimeError: 3 threads' in done.err


def test_two_studies_at_once_share_their_runs(images, tmp_path):
    "Each run is trained by one of them, and both end with all results"
    words = ('study', 'baseline', '--epochs', 1, '--seeds', 2, '--jobs', 1, '--threads', 1)
    command = [*KDFAST, *words, '--data', images, '--runs', tmp_path]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    studies = [subprocess.Popen(list(map(str, command)), **pipes) for _ in range(2)]
    for study in studies:
        out, err = study.communicate(timeout=120)
        assert study.returncode == 0 and 'mean ± standard deviation over seeds' in out, err
        assert 'no result' not in err
    runs = [RunDir(tmp_path / 'tiny' / 'baseline,epochs=1' / seed) for seed in '01']
    assert all(folder.finished and len(folder.metrics()) == 1 for folder in runs)


def test_one_run_at_a_time_where_there_is_one_core(monkeypatch):
    monkeypatch.setenv('LOKY_MAX_CPU_COUNT', '1')
    for threads in (1, 2):
        training = StudyOptions(threads=threads)
        assert PlannedStudy([], None, DataOptions(), training, None).jobs == 1
        assert PlannedStudy([], None, DataOptions(), replace(training, jobs=5), None).jobs == 5


def test_runs_that_need_a_failed_run_are_not_started(tmp_path):
    tasks = plan([(find_recipe('exp1'), {})], range(1), 'pets', tmp_path)
    tasks[0].folder.start({}, '')
    tasks[0].folder.set_status('diverged', reason='the hard loss became nan')
    failed = run_tasks(tasks, [], Jobs(1), 1, Console(quiet=True))
    assert [task.failure for task in failed] == [
        f'diverged before (the hard loss became nan): {diverged_advice(tasks[0].folder)}',
        'it needs teacher, seed 0, which has no result',
        'it needs teacher, seed 0, which has no result',
    ]


def test_stopped_processes_are_gone():
    processes = [Process(['python', '-c', 'import signal; signal.pause()'], threads=1) for _ in range(2)]
    assert not any(process.ended for process in processes)
    stop_processes(processes)
    assert all(process.ended for process in processes)
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process.process.pid, 0)


def test_the_board_shows_the_state_of_every_run(tmp_path):
    from conftest import make

    from kdfast.core.atomic import write_csv

    make(tmp_path, 'teacher', 0, valid_accuracy=0.87, seconds=5)
    make(tmp_path, 'hint', 0, fit_loss=0.0312)
    make(tmp_path, 'exp1', 0, status='running')
    make(tmp_path, 'exp2', 0, status='running')
    tasks = plan(
        [(find_recipe('exp1'), {}), (find_recipe('exp2'), {}), (find_recipe('baseline'), {}), (find_recipe('kd'), {})],
        range(1),
        'pets',
        tmp_path,
    )
    teacher, hint, exp1, exp2, baseline, kd = tasks
    write_csv(exp1.folder / 'metrics.csv', ['epoch', 'valid_accuracy'], [[1, 0.5], [2, 0.714]])
    kd.failure = 'no luck'
    console = Console(width=80, record=True, file=open('/dev/null', 'w'))
    console.print(Board(tasks, {exp1: None, exp2: None}, console).table())
    lines = {line.split()[0]: line.split()[1:] for line in console.export_text().splitlines()[1:]}
    assert lines == dict(
        teacher=['87.00', '%'],
        baseline=['waiting'],
        kd=['failed'],
        hint=['loss', '0.031'],
        exp1=['2/6', '71.40', '%'],
        exp2=['0/6'],
    )


@pytest.mark.parametrize('seeds', [1, 3, 10, 200])
def test_the_board_fits_a_terminal_with_any_number_of_seeds(tmp_path, seeds):
    from conftest import make

    from kdfast.analysis.matrix import question_runs

    tasks = plan(question_runs(dict(epochs=6)), range(seeds), 'pets', tmp_path)
    for task in tasks[::50]:
        make(tmp_path, task.folder.recipe, task.seed, valid_accuracy=0.87, fit_loss=0.1)
    console = Console(width=80, record=True, file=open('/dev/null', 'w'))
    console.print(Board(tasks, {tasks[-1]: None}, console).table())
    lines = console.export_text().splitlines()
    assert len(lines) == 1 + 12 and max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:]] == sorted({task.folder.recipe for task in tasks}, key=study_order)


def test_each_seed_has_a_split_of_its_own_and_all_recipes_of_a_seed_the_same(kdfast, images, tmp_path):
    "Finished seeds remain; another one is rehearsed and trained on its own split; a finished run is exported with it"
    own = tmp_path / 'mine.py'
    own.write_text(
        '"Mine."\nfrom kdfast.all import *\nfrom kdfast.recipes import baseline\n\ndef main(run, epochs: int = 1):\n'
        '    run.needs("baseline", epochs=1)\n    return baseline.main(run, epochs=1, lr=0.05)\n'
    )
    common = ('--epochs', 1, '--data', images / 'train', '--resplit', '--runs', tmp_path)
    for name, seed in (('baseline', 1), (own, 0)):
        done = kdfast('run', name, *common, '--seed', seed)
        assert done.status == 0, done.err
    done = kdfast('study', 'baseline', own, *common, '--seeds', 2)
    assert done.status == 0 and 'a new split per seed' in ' '.join(done.out.split()), done.err
    folders = {name: [RunDir(tmp_path / 'train,resplit=True' / name / str(s)) for s in (0, 1)] for name in NAMES}
    sha = {name: [folder.run['data_sha256'] for folder in found] for name, found in folders.items()}
    assert sha['mine'] == sha['baseline,epochs=1'] and len(set(sha['mine'])) == 2
    for found in folders.values():
        assert [folder.run['images']['resplit'] for folder in found] == [0, 1]
        assert len({folder.run['drawn_from'] for folder in found}) == 1
    assert load(**folders['mine'][1].run['images']).fingerprint == sha['mine'][1]
    refused = kdfast('study', 'baseline', '--resplit', '--data', images, '--runs', tmp_path)
    assert refused.status == 2 and 'has validation images of its own' in refused.err
