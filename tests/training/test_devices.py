"What a step needs of a GPU, without one: the steps of recipes on a fake one; and what is set for a run and set back."

import gc
import os
import subprocess
import sys
from itertools import permutations

import fastai.callback.mixup
import pytest
import torch
from fastai.vision.all import Callback, CrossEntropyLossFlat, Learner, ProgressCallback, noop
from slow.fake_cuda import FakeCuda, steps, summary
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from kdfast.core.cores import usable_cores
from kdfast.core.errors import KdfastError
from kdfast.data import crops
from kdfast.data.dataloaders import loaders
from kdfast.data.device_transfer import RESIDENT, as_bytes, make_resident, move_to_device
from kdfast.distill.mixup import MixUp
from kdfast.distill.teacher import sums
from kdfast.models.random_states import random_states, set_random_states
from kdfast.models.study_networks import thin
from kdfast.runs.run_dir import RunDir
from kdfast.study.process import default_jobs
from kdfast.training.checkpoint_files import content_of
from kdfast.training.devices import THREAD_VARIABLES, device_name, limit_threads, repeatable, wait_for
from kdfast.training.rehearsal_stage import rehearsal_stage

CUDA = torch.device('cuda')


@pytest.mark.parametrize(
    'recipe,options',
    [('crd', dict(optimizer='muon')), ('dkd', dict(free=0)), ('funmatch', dict())],
    ids=['crd', 'dkd', 'funmatch'],
)
def test_a_recipes_steps_do_not_wait_for_the_gpu(recipe, options):
    "Labels, crops and places of the batch go there in one copy; all recipes: tests/slow/fake_cuda.py"
    found = summary(steps(recipe, **options))
    assert (found['waits'], found['waiting']) == (0, 0) and found['copies'] == 1 + (recipe == 'funmatch'), found


def test_a_fake_gpu_sees_what_a_gpu_would():
    "Refused: two devices at once. Counted: values that the host looks at, and copies"
    gpu = FakeCuda()
    with gpu.installed():
        there, here = torch.ones(4, device='cuda', requires_grad=True), torch.rand(4)
        with pytest.raises(RuntimeError, match='same device'):
            there + here
        assert not gpu.seen
        float(there.sum().detach()), there.cpu(), there.tolist(), here.copy_(there.detach())
        for values_decide in (lambda: there[there > 0], there.nonzero):  # on the shape: nothing can be computed with it
            with pytest.raises(DynamicOutputShapeException):
                values_decide()
        assert {kind for kind, _ in gpu.seen} == {'wait'} and sum(gpu.seen.values()) == 4 + 3 + 2, (
            gpu.seen
        )  # a list is looked at item by item
        gpu.seen.clear()
        (
            here.to('cuda'),
            there.detach().copy_(here),
            there[torch.tensor([1, 2])],
            here.to('cuda', non_blocking=True),
            move_to_device(CUDA, here),
        )
        assert sorted(kind for kind, n in gpu.seen.items() for kind in [kind[0]] * n) == ['copy'] + 4 * ['waiting copy']
        (there * 2).sum().backward()
        assert there.grad.device.type == 'cuda' and there.grad.shape == (4,) and torch.equal(here + 1, here + 1)


KINDS = torch.int64, torch.int16, torch.int8  # as indices, and as the labels of images that have several


@pytest.mark.parametrize('kinds', [kinds for n in (1, 3) for kinds in permutations(KINDS, n)], ids=str)
@pytest.mark.parametrize('shapes', [[(3,), (5, 1), (7,)], [(2, 5), (4, 8, 8, 3), (1,)], [(0,), (1, 2), (1, 3)]])
def test_tensors_arrive_as_they_left(kinds, shapes, monkeypatch):
    "In one copy, whatever their kinds, in any order"
    sent = [torch.randint(0, 99, shape).to(kind) for shape, kind in zip(shapes, kinds)]
    copies = []

    def to(tensor, device, non_blocking):
        return copies.append(device) or tensor.clone()

    monkeypatch.setattr(torch.Tensor, 'to', to)
    arrived = move_to_device(torch.device('mps'), *sent)
    assert copies == [torch.device('mps')]
    for a, b in zip(sent, arrived, strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype


@pytest.mark.parametrize(
    'tensor',
    [
        torch.arange(6)[::2],
        torch.arange(8)[::8],
        torch.tensor(3.0),
        torch.empty(0, 3),
        torch.randn(3, 4).T,
        torch.ones(1).expand(8),
        torch.randn(16, 1, 1, 1).to(memory_format=torch.channels_last),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    ],
    ids=lambda t: f'{tuple(t.shape)}-{t.stride()}',
)
def test_any_layout_has_bytes(tensor):
    "Such as the share of a process among several: every second image"
    assert torch.equal(as_bytes(tensor).view(tensor.dtype).view(tensor.shape), tensor)


def test_a_gpu_holds_the_images_of_several_runs_once(data, monkeypatch):
    monkeypatch.setattr('torch.cuda.mem_get_info', lambda device: (2**30, 2**30))
    with FakeCuda().installed():
        images = data.train[0]
        one, other = make_resident(images, CUDA), make_resident(images, CUDA)
        assert one is other and one.device.type == 'cuda' and make_resident(data.valid[0], CUDA) is not one
        del one, other
        gc.collect()
        assert id(images) not in RESIDENT


def test_a_studys_runs_take_turns_on_a_gpu(monkeypatch):
    assert default_jobs(10**6) == 1
    monkeypatch.setattr('joblib.cpu_count', lambda: 8)
    assert default_jobs(2) == 4
    monkeypatch.setattr('torch.backends.mps.is_available', lambda: True)
    assert default_jobs(2) == 1


@pytest.mark.parametrize('gpus,threads,jobs', [(1, 1, 1), (3, 1, 3), (3, 4, 2), (16, 1, 8), (2, 16, 1)])
def test_a_study_has_a_run_on_each_gpu_if_the_cores_allow(monkeypatch, gpus, threads, jobs):
    monkeypatch.setattr('joblib.cpu_count', lambda: 8)
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    assert default_jobs(threads) == jobs


COUNT = """
import os, sys
if sys.argv[1:]:
    os.sched_setaffinity(0, map(int, sys.argv[1:]))
from kdfast.data.decoding_threads import decoding_threads
from kdfast.study.process import default_jobs
print(default_jobs(1), decoding_threads())
"""


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='cores are assigned to processes on Linux')
@pytest.mark.parametrize('limit', ['affinity', 'variable'])
def test_one_thing_at_a_time_where_the_process_has_one_core(limit):
    "As taskset or SLURM assign it, or as LOKY_MAX_CPU_COUNT says; of a machine that may have more"
    cores = [str(min(os.sched_getaffinity(0)))] if limit == 'affinity' else []
    environment = os.environ | (dict(LOKY_MAX_CPU_COUNT='1') if limit == 'variable' else {})
    command = [sys.executable, '-P', '-W', 'ignore', '-c', COUNT, *cores]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split() == ['1', '1']


@pytest.mark.parametrize('limit', ['', ' ', '2', 'abc', '1.5', '-'])
def test_a_limit_that_is_no_number_is_named(monkeypatch, limit):
    monkeypatch.setenv('LOKY_MAX_CPU_COUNT', limit)
    if limit.strip() in ('', '2'):
        assert usable_cores() >= 1
    else:
        with pytest.raises(KdfastError, match=f'LOKY_MAX_CPU_COUNT={limit}: expected a number of cores'):
            usable_cores()


@pytest.mark.parametrize('set_by_user', [(), *((name,) for name in THREAD_VARIABLES), THREAD_VARIABLES], ids=str)
def test_threads_that_the_user_has_set_are_not_limited(one_core, monkeypatch, set_by_user):
    for name in set_by_user:
        monkeypatch.setenv(name, '3')
    limit_threads()
    assert torch.get_num_threads() == (3 if set_by_user else 1)


def test_fewer_threads_than_cores_stay_as_they_are(one_core, monkeypatch):
    monkeypatch.setattr('joblib.cpu_count', lambda: 8)
    limit_threads()
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize('words', [('layers', 'thin'), ('lr-find', 'baseline', '--data', 'IMAGES')], ids=str)
def test_a_command_that_computes_uses_the_cores_that_it_has(one_core, kdfast, images, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    done = kdfast(*(images if word == 'IMAGES' else word for word in words))
    assert done.status == 0 and torch.get_num_threads() == 1, done.err


STOPS_ONCE = """'Its first start ends in the second epoch'
from pathlib import Path
from kdfast.all import *

class Stop(Callback):
    def after_batch(self):
        if self.training and self.epoch == 1 and not Path('MARK').exists():
            Path('MARK').touch()
            raise KeyboardInterrupt

def main(run):
    learn = run.learner(run.build('thin'))
    learn.fit_one_cycle(2, cbs=Stop())
    return learn
"""


def test_a_run_resumes_with_the_threads_that_it_began_with(one_core, kdfast, images, tmp_path):
    recipe = tmp_path / 'mine.py'
    recipe.write_text(STOPS_ONCE.replace('MARK', str(tmp_path / 'mark')))
    for status in (130, 0):  # with another number, it would not go on
        torch.set_num_threads(3)  # as in another process
        done = kdfast('run', recipe, '--data', images, '--runs', tmp_path)
        assert done.status == status and RunDir(tmp_path / 'tiny' / 'mine' / '0').run['threads'] == 1, done.err


class Gpus:
    "Random states of several GPUs"

    def __init__(self, monkeypatch, *states):
        self.states = list(states)
        monkeypatch.setattr('torch.cuda.is_initialized', lambda: True)
        monkeypatch.setattr('torch.cuda.device_count', lambda: len(self.states))
        monkeypatch.setattr('torch.cuda.get_rng_state_all', lambda: list(self.states))
        monkeypatch.setattr('torch.cuda.set_rng_state', self.set)

    def set(self, state, device):
        self.states[getattr(device, 'index', device)] = state


@pytest.mark.parametrize(
    'saved, here, moved, then',
    [
        ('ab', 'xy', {}, 'ab'),
        ('ab', 'x', {}, 'a'),
        ('ab', '', {}, ''),
        ('a', 'xyz', {}, 'ayz'),
        ('ab', 'x', {'cuda:1': 'cuda:0'}, 'b'),
        ('ab', 'xy', {'cuda:0': 'cuda:1'}, 'xa'),
        ('a', '', {'cuda:0': 'cpu'}, ''),
    ],
)
def test_random_states_return_to_the_gpus_that_there_are(monkeypatch, saved, here, moved, then):
    gpus = Gpus(monkeypatch, *saved)
    states = random_states()
    gpus.states = list(here)
    set_random_states(states | dict(mps=torch.zeros(1)), moved)  # as of a Mac, too
    assert gpus.states == list(then)


def test_a_checkpoint_needs_no_room_on_the_gpu(monkeypatch):
    with FakeCuda().installed():
        tensors = dict(weight=torch.ones(3, device='cuda'), here=torch.ones(2))
        held = []
        monkeypatch.setattr('safetensors.torch.save', lambda tensors, about: held.append(tensors))
        content_of({}, tensors)
    assert {t.device.type for t in held[0].values()} == {'cpu'} and held[0]['here'] is not tensors['here']


@pytest.mark.parametrize('kind, waits', [('cpu', []), ('cuda', ['cuda']), ('mps', ['mps'])])
def test_a_clock_waits_for_what_was_launched(monkeypatch, kind, waits):
    waited = []
    monkeypatch.setattr('torch.cuda.synchronize', lambda device: waited.append('cuda'))
    monkeypatch.setattr('torch.mps.synchronize', lambda: waited.append('mps'))
    wait_for(torch.device(kind))
    assert waited == waits


def test_images_are_scaled_as_numbers_that_every_device_has(monkeypatch):
    "uint8 on a CPU alone; `meta` stands for any other device"
    kinds, scale = [], crops.interpolate

    def noted(x, *args, **kwargs):
        kinds.append(x.dtype)
        return scale(x, *args, **kwargs)

    monkeypatch.setattr(crops, 'interpolate', noted)
    scaled = [crops.resize(torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device=kind), (4, 4)) for kind in ('cpu', 'meta')]
    assert kinds == [torch.uint8, torch.float32] and {x.dtype for x in scaled} == {torch.uint8}


@pytest.mark.parametrize('available', [False, True])
def test_a_trial_frees_the_memory_of_any_gpu(monkeypatch, available):
    freed = []
    monkeypatch.setattr('torch.accelerator.is_available', lambda: available)
    monkeypatch.setattr('gc.collect', lambda *_: freed.append(True))
    with rehearsal_stage():
        freed.clear()
    assert bool(freed) == available


def test_a_teacher_may_lie_on_several_devices():
    with FakeCuda().installed():
        network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1, device='cuda'))
        found = sums(network)
        assert found.device.type == 'cpu' and found.shape == (4,)


def test_devices_have_names():
    assert [device_name(torch.device(kind)) for kind in ('cpu', 'mps')] == ['cpu', 'mps']


def test_deterministic_algorithms_are_for_a_run_on_cuda_alone(monkeypatch):
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)

    def state():
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
        )

    before = state()
    with repeatable(torch.device('cpu')):
        assert state() == before and 'CUBLAS_WORKSPACE_CONFIG' not in os.environ
    torch.backends.cudnn.benchmark = True
    try:
        with pytest.raises(KeyboardInterrupt), repeatable(CUDA):
            assert state() == (True, True, False) and os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'
            raise KeyboardInterrupt
        assert state() == (*before[:2], True)
    finally:
        torch.backends.cudnn.benchmark = before[2]


@pytest.mark.parametrize('stacked', [True, False])
def test_mixed_images_are_fastais(data, stacked):
    "Images, labels, shares and the loss; where the loss blends the labels, and where they are numbers of their own"

    def seen(kind):
        batches = []

        class Look(Callback):
            order = 1

            def before_batch(self):
                if self.training:
                    batches.append((*self.xb, *self.yb, self.mix_up.lam, *self.mix_up.yb1))

            def after_loss(self):
                batches.append((self.loss,))

        class Numbers(Callback):
            order = -1

            def before_batch(self):
                self.learn.yb = (torch.nn.functional.one_hot(torch.Tensor(self.y).long(), 3).float(),)

        torch.manual_seed(0)
        learn = Learner(
            loaders(data),
            thin(3),
            CrossEntropyLossFlat() if stacked else torch.nn.MSELoss(),
            cbs=[kind(0.4), Look(), *([] if stacked else [Numbers()])],
        )
        learn.remove_cbs(ProgressCallback)
        learn.logger = noop
        learn.fit(1, 0.01)
        return [t for batch in batches for t in batch]

    ours, fastais = seen(MixUp), seen(fastai.callback.mixup.MixUp)
    assert len(ours) > 9 * 5 and all(torch.equal(a, b) for a, b in zip(ours, fastais, strict=True))
