"Runs as forks of a process that has imported everything: as in a process of their own."

import os
import signal
import sys

import pytest
from conftest import until

from kdfast.runs.run_dir import RunDir
from kdfast.study.fork_server import Fork, ForkServer, run_starter
from kdfast.study.process import Process, has_gpu, stop_processes
from kdfast.study.tasks import KDFAST

pytestmark = pytest.mark.skipif(sys.platform != 'linux' or has_gpu(), reason='runs are new processes here')


@pytest.fixture(scope='module')
def server():
    server = ForkServer(1)
    yield server
    server.close()
    assert server.process.returncode is not None


def waits(tmp_path, images):
    "A command that trains for ever, and the file that appears when it does"
    (tmp_path / 'slow.py').write_text(
        'import signal\n'
        'from pathlib import Path\n'
        f'def main(run):\n    Path({str(tmp_path / "began")!r}).touch()\n    signal.pause()\n'
    )
    command = ['run', str(tmp_path / 'slow.py'), '--data', str(images), '--runs', str(tmp_path / 'runs')]
    return [*KDFAST, *command], tmp_path / 'began'


def test_a_fork_trains_the_same_bits_as_a_new_process(server, images, tmp_path):
    words = ['kd', '--epochs', '1', '--teacher-epochs', '1', '--data', str(images), '--threads', '1']
    command = [*KDFAST, 'run', *words]
    processes = [
        Fork(server, [*command, '--runs', str(tmp_path / 'fork')]),
        Process([*command, '--runs', str(tmp_path / 'new')], 1),
    ]
    for process in processes:
        process.wait()
        assert process.ended and process.failure == ''
        process.stderr.seek(0)
        assert 'Warning' not in process.stderr.read()  # of a library, in the user's terminal
    name = 'kd,epochs=1,teacher_epochs=1'
    forked, new = (RunDir(tmp_path / where / 'tiny' / name / '0') for where in ('fork', 'new'))
    assert forked.finished and forked.files['weights.safetensors'] == new.files['weights.safetensors']


@pytest.mark.parametrize('words', [['run', 'nothing'], ['run', 'baseline', '--epochz', '1'], ['compare', '--no']])
def test_a_failure_is_that_of_a_new_process(server, words):
    fork, process = Fork(server, [*KDFAST, *words]), Process([*KDFAST, *words], 1)
    fork.wait(), process.wait()
    assert fork.failure == process.failure and fork.server.status(fork.number) == process.process.returncode == 2


def test_a_run_that_is_killed_is_a_failure_of_that_run_alone(server, images, tmp_path):
    command, began = waits(tmp_path, images)
    fork = Fork(server, command)
    until(began.exists, lambda: fork.ended)
    assert not fork.ended, fork.failure
    fork.kill(), fork.wait()
    assert fork.failure == 'its process was ended by signal 9 (Killed, as it is when memory runs out)'
    fork.kill()  # it has ended: nothing happens
    other = Fork(server, [*KDFAST, '--version'])
    other.wait()
    assert other.failure == ''


def test_stopped_forks_are_gone(server, images, tmp_path):
    command, began = waits(tmp_path, images)
    fork = Fork(server, command)
    until(began.exists, lambda: fork.ended)
    assert not fork.ended, fork.failure
    stop_processes([fork])
    assert fork.ended and server.status(fork.number) == 128 + signal.SIGTERM


def test_a_run_ends_with_its_study(server, images, tmp_path):
    command, began = waits(tmp_path, images)
    fork = Fork(server, command)
    until(began.exists, lambda: fork.ended)
    assert not fork.ended, fork.failure
    fork.alive.close()  # as when the process of the study ends, however it does
    fork.wait()
    assert server.status(fork.number) == 128 + signal.SIGTERM


def test_if_the_server_dies_its_runs_have_failed():
    server = ForkServer(1)
    fork = Fork(server, [*KDFAST, '--version'])
    os.kill(server.process.pid, signal.SIGKILL)
    fork.wait()
    assert fork.ended and 'signal 9' in fork.failure
    fork.terminate(), fork.kill()
    server.close()


def test_after_a_server_died_runs_are_started_by_another_one():
    with run_starter() as start:
        first = start([*KDFAST, '--version'], 1)
        os.kill(first.server.process.pid, signal.SIGKILL)
        first.server.process.wait()
        late = Fork(first.server, [*KDFAST, '--version'])  # asked for before its death was noticed
        late.wait()
        assert 'signal 9' in first.failure and 'signal 9' in late.failure
        next_one = start([*KDFAST, '--version'], 1)
        next_one.wait()
        assert next_one.server is not first.server and next_one.failure == ''


def test_without_runs_no_server_is_started(monkeypatch):
    monkeypatch.setattr('kdfast.study.fork_server.ForkServer', None)
    with run_starter():
        pass
