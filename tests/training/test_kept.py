"Whatever ends a run, what it has trained is kept, and the next start goes on from there."

import errno
import json
import re

import pytest
import torch
from conftest import beside
from fastai.basics import Callback
from interruptions import same
from rich.console import Console

from kdfast.core.errors import Diverged, KdfastError
from kdfast.report.summary import run_summary
from kdfast.report.tables import run_view
from kdfast.runs.find import find_runs
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.training import evaluation, execute
from kdfast.training.run import Run

GIVEN = dict(epochs=2)
FAILS = dict(  # what may happen to anybody, and how run.json has it
    memory=(
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB.\nSee the manual'),
        'failed',
        'out of memory (OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.)',
    ),
    of_the_cpu=(
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        'failed',
        'out of memory (RuntimeError: [enforce',
    ),
    of_a_library=(
        RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'),
        'failed',
        'out of memory (RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED',
    ),
    device=(
        RuntimeError('CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronous'),
        'failed',
        'the device, or the connection to it, failed (RuntimeError: CUDA error',
    ),
    network=(
        torch.distributed.DistBackendError('NCCL communicator was aborted on rank 1.'),
        'failed',
        'the device, or the connection to it, failed (DistBackendError',
    ),
    disk=(
        OSError(errno.ENOSPC, 'No space left on device', 'weights.safetensors'),
        'interrupted',
        '[Errno 28] No space left',
    ),
    defect=(ValueError('a defect'), 'failed', 'ValueError: a defect'),
    key=(KeyError('name'), 'failed', 'KeyError: name'),
    silent=(AssertionError(), 'failed', 'AssertionError'),
    users=(KdfastError('a layer that is not there'), 'interrupted', 'a layer that is not there'),
    diverged=(Diverged('the hard loss became nan'), 'diverged', 'the hard loss became nan'),
    ctrl_c=(KeyboardInterrupt(), 'interrupted', 'by a signal'),
)


class Fail(Callback):
    "Raises at one step; or counts the steps"

    order, steps = 90, 0

    def __init__(self, error=None, at=(1, 4)):
        self.error, self.at = error, at

    def after_step(self):
        Fail.steps += 1
        if self.error is not None and (self.epoch, self.iter) == self.at:
            raise self.error


def train(data, runs, cb=None, recipe='baseline'):
    Fail.steps = 0
    return execute.train(find_recipe(recipe), data, 0, GIVEN, runs, [lambda _: cb or Fail()])


def folder_of(runs, recipe='baseline'):
    return RunDir(runs / 'tiny' / f'{recipe},epochs=2' / '0')


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp('whole'))


@pytest.mark.parametrize('name', FAILS)
def test_a_failed_training_resumes(data, whole, tmp_path, capsys, name):
    error, status, reason = FAILS[name]
    with pytest.raises(BaseException):
        train(data, tmp_path, Fail(error))
    folder = folder_of(tmp_path)
    assert folder.status == status and folder.run['reason'].startswith(reason) and '\n' not in folder.run['reason']
    assert same(train(data, tmp_path), whole) and Fail.steps == 9 and 'resumes at epoch 2' in capsys.readouterr().err


LATER = dict(judging=(evaluation, 'evaluate'), saving=(evaluation, 'save_network'), finishing=(RunDir, 'finish'))


@pytest.mark.parametrize('name', LATER)
@pytest.mark.parametrize(
    'error',
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        OSError(errno.ENOSPC, 'No space left on device'),
        IndexError('a defect'),
    ],
)
def test_what_fails_after_training_is_done_again_and_nothing_else(data, whole, tmp_path, monkeypatch, name, error):
    owner, what = LATER[name]
    real = getattr(owner, what)

    def fail(*args, **kwargs):
        if not (tmp_path / 'tiny').exists() or Fail.steps == 0:
            return real(*args, **kwargs)  # in the rehearsal
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(owner, what, fail)
        with pytest.raises(type(error) if 'memory' not in str(error) else KdfastError):
            train(data, tmp_path)
    assert Fail.steps == 18 and not folder_of(tmp_path).finished
    assert same(train(data, tmp_path), whole) and Fail.steps == 0


def test_a_teacher_is_not_trained_again_for_its_student(study, data, tmp_path):
    runs = beside(study, tmp_path, 'teacher')
    before = (runs / 'tiny' / 'teacher' / '0' / 'run.json').read_bytes()
    with pytest.raises(ValueError):
        train(data, runs, Fail(ValueError('x')), 'kd')
    assert (
        train(data, runs, recipe='kd').finished
        and (runs / 'tiny' / 'teacher' / '0' / 'run.json').read_bytes() == before
    )


def test_the_error_of_a_failed_run_says_how_to_resume(kdfast, images, data, tmp_path, monkeypatch):
    learner = Run.learner

    def failing(self, *args, **kwargs):
        learn = learner(self, *args, **kwargs)
        if not self.rehearsal:
            learn.add_cb(Fail(torch.OutOfMemoryError('CUDA out of memory.'), (0, 3)))
        return learn

    monkeypatch.setattr(Run, 'learner', failing)
    done = kdfast('run', 'baseline', '--epochs', 2, '--data', images, '--runs', tmp_path)
    assert done.status == 2 and done.err.splitlines()[-1] == (
        'kdfast: error: out of memory (OutOfMemoryError: CUDA out of memory.): '
        'stop other programs, or use smaller batches (--batch-size), networks or images (--size). '
        'The training so far is saved: the same command resumes it'
    )
    listed = kdfast('ls', '--runs', tmp_path)
    assert 'failed' in listed.out and 'out of memory' in ' '.join(listed.out.split())
    [run] = json.loads(kdfast('ls', '--json', '--runs', tmp_path).out)['runs']
    assert run['status'] == 'failed' and run['reason'].startswith('out of memory')


def test_the_list_of_runs_has_reasons(tmp_path):
    from conftest import make

    (
        make(tmp_path, 'kd', 0, valid_accuracy=0.8, seconds=1),
        make(tmp_path, 'exp1', 1, status='failed'),
        make(tmp_path, 'exp2', 1, status='diverged'),
    )
    console = Console(width=100, record=True, file=open('/dev/null', 'w'))
    console.print(*run_view(find_runs(tmp_path), console.width))
    lines = console.export_text().splitlines()
    assert 'reason' in lines[0] and [line.split()[-2:] for line in lines[2:]] == [['no', 'luck']] * 2


# What changed since

SOURCE = '''"Mine."
from kdfast.all import *
import helper

def main(run, epochs:int=2):
    learn = run.learner(run.build(thin))
    learn.fit_one_cycle(epochs, helper.LR)
    return learn
'''


@pytest.fixture
def mended(data, tmp_path):
    "A run whose own code failed, and has been mended since: its folder, and how to start it"
    (tmp_path / 'mine.py').write_text(SOURCE), (tmp_path / 'helper.py').write_text('LR = .1\n')

    def start(cb=None):
        return execute.train(
            find_recipe(str(tmp_path / 'mine.py')), data, 0, {}, tmp_path / 'runs', [lambda _: cb or Fail()]
        )

    with pytest.raises(ValueError):
        start(Fail(ValueError('no luck')))
    return RunDir(tmp_path / 'runs' / 'tiny' / 'mine' / '0'), start


@pytest.mark.parametrize(
    'file,content,changed',
    [
        ('mine.py', SOURCE.replace('Mine', 'Mended'), 'its recipe is another version'),
        ('helper.py', 'LR = .1 # mended\n', "'helper.py': "),
    ],
)
def test_changed_code_resumes_if_the_user_removes_recipe_py(mended, tmp_path, capsys, file, content, changed):
    folder, start = mended
    before = sorted((folder / 'resume').iterdir())
    (tmp_path / file).write_text(content)
    with pytest.raises(
        KdfastError,
        match=f'was failed and cannot go on: .*{changed}.*Its checkpoints are kept: change that back to resume; '
        'remove .*recipe.py to resume nevertheless',
    ):
        start()
    assert sorted((folder / 'resume').iterdir()) == before and folder.status == 'failed'
    (folder / 'recipe.py').unlink()
    Fail.steps = 0
    assert start().finished and Fail.steps == 9
    [note] = folder.run['notes']
    assert (
        note.startswith('these weights cannot be reproduced')
        and note in capsys.readouterr().err
        and re.search(changed.replace('is', 'may be'), note)
    )
    console = Console(width=300, record=True, file=open('/dev/null', 'w'))
    console.print(run_summary(folder))
    assert note in console.export_text()


def test_changed_arguments_or_images_are_never_resumed(mended):
    folder, start = mended
    (folder / 'recipe.py').unlink()
    run = folder.run
    (folder / 'run.json').write_text(json.dumps(run | dict(data_sha256='0' * 64)))
    with pytest.raises(
        KdfastError,
        match=r'cannot go on: data_sha256 was 00000000, is [0-9a-f]{8}. Its checkpoints are kept: '
        'change that back to resume; move the folder away',
    ):
        start()
    assert folder.has_checkpoints


def test_a_change_of_code_stays_recorded(mended, tmp_path):
    folder, start = mended
    (tmp_path / 'helper.py').write_text('LR = .2\n')
    (folder / 'recipe.py').unlink()
    with pytest.raises(ValueError):
        start(Fail(ValueError('again'), (1, 6)))
    assert (
        start().finished
        and len(folder.run['notes']) == 1
        and 'these weights cannot be reproduced' in folder.run['notes'][0]
    )
