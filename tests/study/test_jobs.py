"How many runs train at a time: fewer when memory runs out, more while the GPUs have room."

import pytest
from conftest import make
from rich.console import Console

from kdfast.core.atomic import write_csv
from kdfast.core.errors import resource_failure
from kdfast.runs.recipes import find_recipe
from kdfast.study import gpu_use, jobs, schedule
from kdfast.study.gpu_use import Use, use_of
from kdfast.study.jobs import Jobs, more_jobs
from kdfast.study.process import failure_of, memory_ran_out
from kdfast.study.schedule import run_tasks
from kdfast.study.tasks import plan

MANY = 10**6


@pytest.mark.parametrize(
    'number,looks,expected',
    [
        (1, [[Use(1, MANY, 0.0)]], 2),  # at most twice as many
        (1, [[Use(0, MANY, 0.0)]], 2),
        (1, [[Use(1, MANY, 0.5)]], 2),
        (1, [[Use(1, MANY, 0.51)]], 1),  # two would need 102 % of the time
        (4, [[Use(1, MANY, 0.8)]], 5),
        (4, [[Use(1, MANY, 0.9)], [Use(1, MANY, 0.7)]], 5),  # the mean of the looks
        (8, [[Use(1, MANY, 1.0)]], 8),
        (4, [[Use(4000, 1499, 0.1)]], 4),  # a further run is expected to need 1.5 times 1,000 MiB
        (4, [[Use(4000, 1500, 0.1)]], 5),
        (4, [[Use(4000, 9000, 0.1)], [Use(4000, 3000, 0.1)]], 6),  # the least of the looks
        (2, [[Use(1, MANY, 0.1), Use(1, MANY, 0.9)]], 2),  # the GPU with the least room
        (2, [[Use(1, MANY, 0.1), Use(1, MANY, 0.2)]], 4),
        (3, [[Use(2, 1, 0.1), Use(1, 9, 0.1)]], 4),  # two runs on the first GPU, so that the second may have two
    ],
)
def test_more_runs_as_memory_and_time_allow(number, looks, expected):
    assert more_jobs(number, looks) == expected


def task_of(tmp_path, seed=0):
    [task] = plan([(find_recipe('baseline'), {})], range(seed, seed + 1), 'pets', tmp_path)
    task.folder.start({}, '')
    return task


def train(task, epochs):
    write_csv(task.folder.path / 'metrics.csv', ['epoch'], [[i] for i in range(epochs)])


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(jobs, 'LOOK_SECONDS', 0)
    monkeypatch.setattr(jobs, 'N_LOOKS', 2)


def test_the_number_rises_once_every_run_has_trained_for_an_epoch_of_this_study(tmp_path, at_once):
    first, second, third = (task_of(tmp_path, seed) for seed in range(3))
    found = Jobs(1, 3, lambda: [Use(1000, MANY, 0.1)])

    def number_after(*running, looks=4):
        for _ in range(looks):
            found.look(running)
        return found.number

    train(first, 5)  # before, in an earlier study
    assert number_after(first) == 1
    train(first, 6)
    assert number_after(first, looks=1) == 1 and number_after(first, looks=1) == 2
    assert number_after(first) == 2  # the second one has not started, so that nothing can be said of two
    assert number_after(first, second) == 2
    train(second, 1)
    assert number_after(first, second) == 3  # at most, though twice as many would fit
    train(third, 1)
    assert number_after(first, second, third) == 3


@pytest.mark.parametrize('found', [Jobs(2), Jobs(2, 8), Jobs(2, 1, lambda: [Use(1, MANY, 0)]), Jobs(2, 8, list)])
def test_the_number_stays_where_it_was_given_or_cannot_be_measured(tmp_path, at_once, found):
    tasks = [task_of(tmp_path, seed) for seed in range(2)]
    for epoch in range(5):
        for task in tasks:
            train(task, epoch)
        found.look(tasks)
    assert found.number == found.most == 2


def test_after_memory_ran_out_the_number_does_not_rise_again(tmp_path, at_once):
    found, task = Jobs(4, 8, lambda: [Use(1, MANY, 0)]), task_of(tmp_path)
    found.keep(1)
    for epoch in range(5):
        train(task, epoch)
        found.look([task])
    assert found.number == 1


@pytest.mark.parametrize(
    'failure',
    [
        resource_failure(MemoryError()),
        resource_failure(RuntimeError('CUDA error: out of memory')),
        resource_failure(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")),
        failure_of(-9, None),
        'its machine failed: Task was killed due to the node running low on memory.',
    ],
)
@pytest.mark.parametrize('fits', [1, 2, 3])
def test_runs_without_enough_memory_for_all_train_with_fewer_beside_them(tmp_path, monkeypatch, capsys, failure, fits):
    "Each run fails as long as more than `fits` train at a time"
    assert memory_ran_out(failure)
    now, most = [], []

    class Run:
        def __init__(self, command, threads):
            self.seed, self.failure, self.left = int(command[command.index('--seed') + 1]), '', 3
            now.append(self)
            most.append(len(now))

        @property
        def ended(self):
            self.left -= 1
            if self.left:
                return False
            if len(now) > fits:
                self.failure = failure
            else:
                make(tmp_path, 'baseline', self.seed, valid_accuracy=0.5, seconds=1)
            now.remove(self)
            return True

    monkeypatch.setattr(schedule, 'POLL_SECONDS', 0)
    monkeypatch.setattr(schedule, 'stop_processes', lambda _: None)
    tasks = plan([(find_recipe('baseline'), {})], range(7), 'pets', tmp_path)
    found = Jobs(4)
    assert run_tasks(tasks, [], found, 1, Console(stderr=True), Run) == []
    assert all(task.folder.finished for task in tasks)
    assert 1 <= found.number <= fits and max(most) == 4 and most[-1] <= fits
    assert 'at a time' in capsys.readouterr().err


def test_a_run_without_enough_memory_alone_fails(tmp_path, monkeypatch):
    class Run:
        ended, failure = True, 'out of memory (MemoryError)'

        def __init__(self, command, threads):
            pass

    monkeypatch.setattr(schedule, 'POLL_SECONDS', 0)
    monkeypatch.setattr(schedule, 'stop_processes', lambda _: None)
    tasks = plan([(find_recipe('baseline'), {})], range(3), 'pets', tmp_path)
    failed = run_tasks(tasks, [], Jobs(3), 1, Console(quiet=True), Run)
    assert failed == tasks and {task.failure for task in tasks} == {Run.failure}


@pytest.mark.parametrize('failure', ['', 'RuntimeError: no luck', failure_of(-15, None), 'the disk is full'])
def test_other_failures_are_none_of_memory(failure):
    assert not memory_ran_out(failure)


# What nvidia-smi says

ONE = '0, GPU-8932f937-d72c, NVIDIA H100 80GB HBM3, 1521, 79566, 37'
OTHER = '1, GPU-b2a9ffff-0000, NVIDIA H100 80GB HBM3, 0, 81089, 0'
SLOW = '1, GPU-b2a9ffff-0000, Quadro T1000, 0, 4096, 0'
USED, UNUSED = Use(1521, 79566, 0.37), Use(0, 81089, 0)


@pytest.mark.parametrize(
    'lines,gpus,order,expected',
    [
        ([ONE], ['0'], None, [USED]),
        ([ONE, OTHER], ['1', '0'], None, [UNUSED, USED]),
        ([ONE, OTHER], ['GPU-b2a9'], None, [UNUSED]),
        ([ONE, SLOW], ['GPU-8932f937-d72c'], None, [USED]),
        ([ONE, SLOW], ['0'], None, []),  # CUDA may count in another order
        ([ONE, SLOW], ['0'], 'PCI_BUS_ID', [USED]),
        ([ONE], ['0', '1'], None, []),
        ([ONE], ['MIG-c6d4f1ef'], None, []),
        ([ONE.replace('37', '[N/A]')], ['0'], None, []),
        ([ONE.replace('1521', '[Not Supported]')], ['0'], None, []),
        (['No devices were found'], ['0'], None, []),
        ([], ['0'], None, []),
    ],
)
def test_the_use_of_gpus_as_nvidia_smi_says(tmp_path, monkeypatch, lines, gpus, order, expected):
    said(tmp_path, monkeypatch, '\n'.join(lines))
    monkeypatch.delenv('CUDA_DEVICE_ORDER', raising=False)
    if order:
        monkeypatch.setenv('CUDA_DEVICE_ORDER', order)
    assert use_of(gpus) == expected


def said(tmp_path, monkeypatch, text, then=''):
    "Put a program in the place of nvidia-smi"
    program = tmp_path / 'nvidia-smi'
    program.write_text(f'#!/bin/sh\ncat <<END\n{text}\nEND\n{then}\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')


def test_without_an_answer_of_nvidia_smi_the_use_is_not_known(tmp_path, monkeypatch):
    said(tmp_path, monkeypatch, ONE, then='exit 9')  # its driver does not answer
    assert use_of(['0']) == []
    monkeypatch.setenv('PATH', str(tmp_path / 'nothing'))
    assert use_of(['0']) == []
    said(tmp_path, monkeypatch, ONE, then='exec tail -f /dev/null')  # never ends
    monkeypatch.setattr(gpu_use, 'SECONDS', 0.01)
    assert use_of(['0']) == []
