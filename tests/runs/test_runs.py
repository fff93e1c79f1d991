import errno
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import make, recipe

from kdfast.core import file_lock, signals
from kdfast.core.atomic import write
from kdfast.core.errors import KdfastError, Locked
from kdfast.runs.find import find_run
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir


def test_files_are_written_whole_and_leave_nothing_else(tmp_path):
    write(tmp_path / 'a', 'old')
    with pytest.raises(TypeError):
        write(tmp_path / 'a', 5)
    assert (tmp_path / 'a').read_text() == 'old' and [f.name for f in tmp_path.iterdir()] == ['a']
    write(tmp_path / 'a', 'new')
    assert (tmp_path / 'a').read_text() == 'new' and [f.name for f in tmp_path.iterdir()] == ['a']


def write_often(file, letter):
    for _ in range(60):
        write(file, letter * 100_000)


def test_two_processes_may_write_one_file(tmp_path):
    writers = [
        multiprocessing.get_context('spawn').Process(target=write_often, args=(tmp_path / 'a', letter))
        for letter in 'xy'
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0] and (tmp_path / 'a').read_text() in (
        'x' * 100_000,
        'y' * 100_000,
    )


def test_a_run_is_found_by_recipe_data_and_seed(tmp_path):
    one, two = make(tmp_path, 'kd', 3), make(tmp_path, 'kd', 5)
    assert (
        find_run(tmp_path, 'kd').path == one.path
        and find_run(tmp_path, 'kd', seed=5).path == two.path == find_run(tmp_path, str(two)).path
    )
    with pytest.raises(KdfastError, match='no finished run exp1 .*; there are kd'):
        find_run(tmp_path, 'exp1')
    make(tmp_path, 'kd', 0, data='zoo')
    with pytest.raises(KdfastError, match='ran on pets, zoo: choose one with --data'):
        find_run(tmp_path, 'kd')


@pytest.mark.parametrize(
    'name,said',
    [
        ('kd', 'start with: kdfast run kd$'),
        ('kd,T=6.0', 'start with: kdfast run kd --T 6.0$'),
        ('exp1,matrix=True,epochs=3', 'start with: kdfast run exp1 --matrix --epochs 3$'),
        ('exp9', 'no recipe exp9; did you mean exp1?'),
        ('cats/0', 'no recipe cats/0; there are'),
        ('mine.py', 'no recipe file at mine.py'),
    ],
)
def test_no_run_is_told_what_trains_one_if_anything_does(tmp_path, name, said):
    with pytest.raises(KdfastError, match=said):
        find_run(tmp_path, name)


def test_a_recipes_name_alone_means_its_only_run(tmp_path):
    one = make(tmp_path, 'kd,epochs=6,teacher=runs_pets_teacher_epochs=3_0', 0)
    make(tmp_path, 'kd,T=2.0', 0)
    assert find_run(tmp_path, 'kd').path == one.path
    make(tmp_path, 'kd,epochs=8', 0)
    with pytest.raises(
        KdfastError, match='no finished run kd in .*; there are kd,T=2.0, kd,epochs=6,teacher=.*, kd,epochs=8$'
    ):
        find_run(tmp_path, 'kd')
    plain = make(tmp_path, 'kd', 0)
    assert find_run(tmp_path, 'kd').path == plain.path


@pytest.mark.parametrize('name', ['00', '000', '01', '٠', '+0', '0_0', '0 ', '-0', '0.0'])
def test_a_directory_that_is_not_called_like_a_seed_is_a_copy(tmp_path, kdfast, name):
    "Which counts nowhere, and may be named by its path"
    asked = [('compare', '--json'), ('compare', '--against', 'baseline', '--json'), ('ls', '--json')]
    _, folder = (make(tmp_path, recipe_name, 0, right=[1] * 60 + [0] * 40) for recipe_name in ('baseline', 'kd'))
    expected = [kdfast(*command, '--runs', tmp_path).out for command in asked]
    copy = shutil.copytree(folder.path, folder.path.with_name(name))
    assert [kdfast(*command, '--runs', tmp_path).out for command in asked] == expected
    found = find_run(tmp_path, str(copy))
    assert (found.path, found.seed, found.recipe, found.data) == (copy, 0, 'kd', 'pets')


@pytest.mark.parametrize('target', ['kd/1', 'dkd/3'])
def test_a_copy_under_another_seed_counts_nowhere_and_is_named(tmp_path, kdfast, target):
    make(tmp_path, 'baseline', 0, right=[1] * 60 + [0] * 40)
    folder = make(tmp_path, 'kd', 0, right=[1] * 60 + [0] * 40, recorded=dict(seed=0))
    shutil.copytree(folder.path, tmp_path / 'pets' / target)
    said = 'run.json is damaged (it is the record of seed 0, as in a copy): remove'
    for command in (['compare', '--json'], ['compare', '--against', 'baseline', '--json']):
        done = kdfast(*command, '--runs', tmp_path)
        assert done.status == 0 and said in done.out + done.err
        assert all(found['seeds'] == [0] for found in json.loads(done.out) if 'seeds' in found)
    assert said in kdfast('predict', tmp_path / 'pets' / target, 'cat.png').err
    assert kdfast('check', tmp_path).status == 2


def hold(path, held):
    with RunDir(path).locked():
        (
            RunDir(path).path.mkdir(),
            (path / 'run.json').write_text('{"status": "running", "pid": 4321, "host": "elsewhere"}'),
        )
        held.set()
        signal.pause()


@pytest.fixture
def another_user():
    "A directory that everyone may read, and what makes this process another user's, if it is root's"
    root = os.geteuid() == 0

    @contextmanager
    def changed():
        try:
            os.seteuid(65534 if root else os.geteuid())
            yield
        finally:
            os.seteuid(0 if root else os.geteuid())

    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory), changed


def test_the_runs_of_another_user_are_seen_as_they_are(another_user):
    directory, changed = another_user
    folder = make(directory, 'kd', 0, status='running')
    with folder.locked():
        folder.lock.chmod(0o444), folder.path.chmod(0o555)
        with changed():
            assert (folder.status, folder.is_locked) == ('running', True)
    with changed():
        assert (folder.status, folder.is_locked) == ('interrupted', False)


def test_who_looks_at_a_lock_is_in_nobodys_way(tmp_path, monkeypatch):
    "Nor in the way of another one who looks at the same moment"
    folder, flock, seen = make(tmp_path, 'kd', 0, status='running'), file_lock.flock, []

    def looked_at_meanwhile(f, operation):
        flock(f, operation)
        monkeypatch.undo()
        seen.append(folder.is_locked)

    with folder.locked():
        pass
    monkeypatch.setattr(file_lock, 'flock', looked_at_meanwhile)
    assert (folder.status, seen) == ('interrupted', [False])


def test_where_the_system_has_no_such_locks_the_lock_is_tried(tmp_path, monkeypatch):
    for flock in (None, lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSYS, 'no locks'))):
        monkeypatch.setattr(file_lock, 'flock', flock)
        folder = make(tmp_path, 'kd', 0, status='running')
        with folder.locked():
            assert folder.is_locked
        assert not folder.is_locked


@pytest.fixture
def holder(tmp_path):
    "A process that trains the baseline"
    spawn = multiprocessing.get_context('spawn')
    held = spawn.Event()
    process = spawn.Process(target=hold, args=(tmp_path / 'tiny' / 'baseline,epochs=1' / '0', held))
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join()


UNREAD = '''"Mine."
from kdfast.all import *
from kdfast.recipes import baseline

def taught(run): run.needs('baseline', epochs=1)

def main(run, epochs: int = 1):
    if not run.rehearsal: taught(run)
    return baseline.main(run, epochs)
'''


def test_a_run_of_a_study_waits_for_one_that_nobody_planned(holder, data, tmp_path, monkeypatch):
    "And one alone does not"
    from kdfast.training.execute import train  # here, because each spawned process imports what this file imports

    (tmp_path / 'mine.py').write_text(UNREAD)
    mine, check = find_recipe(str(tmp_path / 'mine.py')), RunDir.check_holder
    assert mine.needed(dict(epochs=1)) == []
    with pytest.raises(Locked, match='trained by process 4321'):
        train(mine, data, 0, {}, tmp_path)

    def end_after(folder, wait):
        check(folder, wait)
        holder.kill()

    monkeypatch.setenv(signals.STUDY_CHILD, '1')
    monkeypatch.setattr(RunDir, 'check_holder', end_after)
    assert train(mine, data, 0, {}, tmp_path).finished


def test_a_run_of_a_study_waits_for_the_process_that_trains_it(holder, data, tmp_path, monkeypatch):
    "Also if that process has begun after the study looked; its result counts, and without one the run is trained"
    from kdfast.training.execute import train  # here, because each spawned process imports what this file imports

    check, waited = RunDir.check_holder, []

    def end_after(folder, wait):
        check(folder, wait)
        waited.append(folder.recipe)
        holder.kill()

    monkeypatch.setenv(signals.STUDY_CHILD, '1')
    monkeypatch.setattr(RunDir, 'check_holder', end_after)
    assert train(find_recipe('baseline'), data, 0, dict(epochs=1), tmp_path).finished
    assert waited == ['baseline,epochs=1']


def test_no_run_waits_for_itself(tmp_path):
    folder = make(tmp_path, 'kd', 0, status='running')
    with folder.locked(wait=True), pytest.raises(KdfastError, match='its recipe needs itself'):
        assert folder.run['host'] == platform.node()
        with RunDir(folder.path).locked(wait=True):
            pass


def test_one_process_writes_and_a_killed_one_is_never_in_the_way(kdfast, images, tmp_path, holder):
    path = tmp_path / 'tiny' / 'baseline,epochs=1' / '0'
    before = (path / 'run.json').read_bytes()
    command = ('run', 'baseline', '--epochs', 1, '--data', images, '--runs', tmp_path)
    refused = kdfast(*command)
    assert (
        refused.status == 3
        and 'is being trained by process 4321 on elsewhere' in refused.err
        and (path / 'run.json').read_bytes() == before
    )
    holder.kill()
    holder.join()
    assert kdfast(*command).status == 0 and RunDir(path).finished


@pytest.mark.parametrize(
    'number,status,said', [(signal.SIGTERM, 143, 'terminated'), (signal.SIGINT, 130, 'interrupted')]
)
def test_a_signal_ends_a_run_with_a_note_and_its_exit_status(images, tmp_path, number, status, said):
    recipe(tmp_path / 'mine.py', 'print("training", flush=True); __import__("signal").pause()')
    process = subprocess.Popen(
        [sys.executable, '-P', '-m', 'kdfast', 'run', tmp_path / 'mine.py', '--data', images, '--runs', tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'training\n'
    process.send_signal(number)
    _, err = process.communicate()
    assert (
        process.returncode == status
        and err.splitlines()[-1] == f'kdfast: error: {said}; repeat the command to continue'
    )
    state = RunDir(tmp_path / 'tiny' / 'mine' / '0').run
    assert (state['status'], state['reason']) == ('interrupted', 'by a signal')
