"""Two processes train one student, with fastai's distributed training: in a notebook, and with kdfast run."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import equal
from fastai.basics import CrossEntropyLossFlat, Learner
from safetensors.torch import load_file

from kdfast.all import Match
from kdfast.core import distributed
from kdfast.core.atomic import write
from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.distill.losses.vid import VID
from kdfast.models.study_networks import network
from kdfast.runs.run_dir import RunDir

SCRIPT = '''
import os, sys
import torch
from fastai.distributed import DistributedDL
from kdfast.all import *
from kdfast.data import load
from kdfast.data.dataloaders import loaders
from safetensors.torch import save_file
DistributedDL._broadcast = lambda self, order, rank: order # fastai's own needs a GPU; all processes have this order
images,home = sys.argv[1:]
set_seed(1, reproducible=True)
teacher = network((8, 16, 24), 3)
set_seed(0, reproducible=True)
learn = Learner(loaders(load(images)), network((4, 8, 12), 3), CrossEntropyLossFlat(), opt_func=SGD, metrics=accuracy)
learn.remove_cbs(ProgressCallback)
learn.logger,seen = noop,[]
class Look(Callback):
    def after_batch(self):
        if not self.training: return
        seen.extend(self.xb[0].flatten(1).sum(1).tolist())
        assert self.learn.distill.parts['soft'] > 0
        assert self.learn.match.parts['total'] == self.learn.loss > self.learn.distill.parts['total']
match = Match(teacher, at_loss, 10., 'stage2:stage2')
with learn.distrib_ctx(sync_bn=False, cpu=True): learn.fit(1, .05, cbs=[Distill(teacher), match, Look()])
assert type(learn.model) is nn.Sequential and not any(module._forward_hooks for module in learn.model.modules())
# What kdfast run does in several processes
from kdfast.core import distributed as processes
from kdfast.training.distributed_run import RankRandomNumbers, DistributedRun
processes.init()
made = Path(home)/'made'
def make():
    if not made.exists():
        assert processes.rank == 0
        made.write_text('x')
    return made.read_text()
assert processes.first_then_others(make) == 'x'
def masks(*cbs):
    "Which pixels dropout leaves in each step"
    set_seed(0)
    model,left = nn.Sequential(nn.Dropout(), *network((4, 8, 12), 3)),[]
    model[0].register_forward_hook(lambda dropout, inputs, out: left.append(out != 0) if dropout.training else None)
    cbs = [DistributedRun(gpu=False), RankRandomNumbers(), *cbs]
    one = Learner(loaders(load(images)), model, CrossEntropyLossFlat(), opt_func=SGD, cbs=cbs)
    one.remove_cbs(ProgressCallback)
    one.logger = noop
    try: one.fit(1, .05)
    except KeyboardInterrupt: pass
    assert one.model is model and not one.distributed_run.wrapped
    return torch.stack(left)
class Draws(Callback):
    order = -4.6
    def before_batch(self): torch.rand(self.iter + processes.rank) # a run that goes on begins with other states
class Break(Callback):
    def before_step(self):
        if self.iter == 2: raise KeyboardInterrupt
dropped = masks()
if processes.rank: assert torch.equal(dropped, masks(Draws())) and torch.equal(dropped[:3], masks(Break()))
else: masks(Draws()), masks(Break())
parameters = {name: p.detach().clone() for name,p in learn.model.named_parameters()}
save_file(parameters | dict(seen=tensor(seen), dropped=dropped.float().contiguous()),
          f'{home}/{os.environ["RANK"]}.safetensors')
'''


def addresses():
    "What a launcher tells each of two processes, but which of them it is"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    return os.environ | dict(
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU='true',
        PYTHONWARNINGS='ignore',
    )


def test_every_process_has_the_same_student_and_its_own_images(images, tmp_path):
    env = addresses()
    both = [
        subprocess.Popen([sys.executable, '-c', SCRIPT, images, tmp_path], env=env | dict(RANK=rank, LOCAL_RANK=rank))
        for rank in '01'
    ]
    assert [process.wait() for process in both] == [0, 0]
    one, other = (load_file(tmp_path / f'{rank}.safetensors') for rank in '01')
    seen = [set(end.pop('seen').tolist()) for end in (one, other)]
    first, second = (end.pop('dropped') for end in (one, other))
    assert first.shape == second.shape and not any(torch.equal(a, b) for a, b in zip(first, second))  # each its own
    assert equal(one, other)
    assert not seen[0] & seen[1] and len(seen[0]) == len(seen[1]) > 30


# A run in several processes: kdfast run, as accelerate launch and torchrun start it

NETWORK = '''
from torch import nn


def tiny(n_classes):
    convolutions = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, n_classes))
'''


# bfloat16, which some CPUs would use, rounds more than processes differ
IN_FLOAT32 = 'from kdfast import cli; from kdfast.training.run import Run; Run.precision = "float32"; cli.main()'


def start(home, *arguments):
    "kdfast run in two processes"
    env = addresses()
    return [
        subprocess.Popen(
            [sys.executable, '-c', IN_FLOAT32, 'run', *map(str, arguments)],
            cwd=home,
            env=env | dict(RANK=rank, LOCAL_RANK=rank),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in '01'
    ]


def ended(both):
    return [(*process.communicate(), process.returncode) for process in both]


@pytest.fixture(scope='module')
def two(images, tmp_path_factory):
    "A run in two processes of a network without batch norm; its folder, what was asked, and what each process said"
    home = tmp_path_factory.mktemp('processes')
    (home / 'nets.py').write_text(NETWORK)
    net = home / 'nets.py:tiny'
    asked = ['kd', '--data', images, '--teacher', net, '--student', net, '--epochs', 3, '--lr', 0.05]
    return SimpleNamespace(home=home, asked=asked, said=ended(start(home, *asked, '--runs', 'two')))


def test_a_run_in_two_processes_is_the_run_of_one(kdfast, two, monkeypatch):
    "The same steps, each on half of every batch"
    (out, err, status), (*silent, other) = two.said
    assert (status, other, silent) == (0, 0, ['', '']), err
    assert 'validation accuracy' in out and 'epoch 3/3' in err
    monkeypatch.setattr('kdfast.training.run.Run.precision', 'float32')
    assert kdfast('run', *two.asked, '--runs', two.home / 'one').status == 0
    found = [file.parent for file in (two.home / 'one').rglob('weights.safetensors')]
    assert len(found) == 2
    for alone in found:
        together = two.home / 'two' / alone.relative_to(two.home / 'one')
        weights = [load_file(run / 'weights.safetensors') for run in (alone, together)]
        assert all(torch.allclose(weights[0][name], weights[1][name], atol=2e-3) for name in weights[0])
        steps = [[float(row['hard']) for row in RunDir(run).metrics('steps.csv')] for run in (alone, together)]
        assert steps[0] == pytest.approx(steps[1], abs=2e-3)
        assert {f.name for f in together.iterdir()} == {f.name for f in alone.iterdir()}
        assert [RunDir(run).run['processes'] for run in (alone, together)] == [1, 2]


def test_a_run_in_two_processes_that_was_ended_goes_on_to_the_same_bits(two):
    (teacher,) = (two.home / 'two').glob('*/teacher*')
    shutil.copytree(teacher, two.home / 'ended' / teacher.relative_to(two.home / 'two'))
    first, second = both = start(two.home, *two.asked, '--runs', 'ended')
    while 'kd' not in (line := first.stderr.readline()) or 'epoch 1/3' not in line:
        assert first.poll() is None
    first.send_signal(signal.SIGTERM), second.send_signal(signal.SIGTERM)
    assert first.wait() == 143
    second.kill(), ended(both)  # as a launcher does
    went_on = ended(start(two.home, *two.asked, '--runs', 'ended'))
    assert 'resumes at epoch 2' in went_on[0][1]
    whole, gone_on = (next((two.home / name).rglob('kd*/0/weights.safetensors')) for name in ('two', 'ended'))
    assert whole.read_bytes() == gone_on.read_bytes()


def test_what_two_processes_cannot_do_is_said(data, monkeypatch):
    monkeypatch.setattr(distributed, 'size', 3), monkeypatch.setattr(distributed, 'is_initialized', lambda: True)
    with pytest.raises(KdfastError, match='3 processes cannot share a batch of 8 images evenly'):
        loaders(data)
    monkeypatch.setattr(distributed, 'size', 2)
    learn = Learner(loaders(data), network((4, 8, 12), 3), CrossEntropyLossFlat())
    with pytest.raises(KdfastError, match='VID is trained with the student.*use one process'):
        learn.fit(1, cbs=Match(network((4, 8, 12), 3), VID(8, 8), 1.0, 'stage2:stage2'))


def test_the_first_process_alone_writes_and_locks(tmp_path, monkeypatch):
    run = RunDir(tmp_path / 'data' / 'kd' / '0')
    with run.locked():
        monkeypatch.setattr(distributed, 'rank', 1)
        with run.locked():
            write(tmp_path / 'a.txt', 'b')
    assert not (tmp_path / 'a.txt').exists()
    monkeypatch.setattr(distributed, 'rank', 0)
    write(tmp_path / 'a.txt', 'b')
    assert (tmp_path / 'a.txt').read_text() == 'b'


def test_many_runs_start_processes_of_their_own(kdfast, monkeypatch, tmp_path):
    for name, value in addresses().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('RANK', '0')
    said = kdfast('study', '--runs', tmp_path)
    assert said.status == 2 and 'cannot run under torchrun or accelerate launch' in said.err
