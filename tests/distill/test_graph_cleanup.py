"Recording CUDA graphs leaves nothing behind: on the model, in a failed fit, in a run."

import copy
import pickle
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import graph_learners
import pytest
import torch
from conftest import begun, equal
from fastai.vision.all import (
    Callback,
    TensorImage,
)
from graph_learners import build, fitted, kd, learner, replayed, same, short, state, teacher
from torch import nn

from kdfast.distill.cuda_graphs import passes
from kdfast.distill.cuda_graphs.capture import stream_kept
from kdfast.distill.cuda_graphs.passes import InferenceGraph, TrainingGraph
from kdfast.distill.cuda_graphs.replay import CALLS_BEFORE, CudaGraphs, GraphedInference, Recordings
from kdfast.models.inference import infer
from kdfast.models.study_networks import thin
from kdfast.training import run as run_module

gpu = pytest.fixture(graph_learners.gpu)


# Nothing is left behind


def test_recording_changes_neither_buffers_nor_random_states(gpu):
    net, x = thin(3), torch.randn(4, 3, 8, 8)
    net(x).sum().backward()

    def all_of_it():
        return [
            t.clone() for t in (*net.state_dict().values(), *(p.grad for p in net.parameters()), torch.get_rng_state())
        ]

    before, held = all_of_it(), [*net.parameters()]
    TrainingGraph(net, x)
    InferenceGraph(net, x)
    assert (
        all(map(torch.equal, before, all_of_it()))
        and all(a is b for a, b in zip(held, net.parameters()))
        and all(m.training for m in net.modules())
    )


class Looks(Callback):
    "Whatever a callback can do with the model, in all events but the last before the forward pass"

    order = 60

    def before_fit(self):
        self.n = 0

    def look(self):
        self.n += 1
        assert 'forward' not in vars(self.model)
        if self.n % 7 == 0:  # of each event some
            pickle.loads(pickle.dumps(self.model)), copy.deepcopy(self.model)

    before_batch = after_pred = after_loss = before_backward = before_step = after_batch = after_train = (
        before_validate
    ) = after_epoch = look


def test_the_model_is_unchanged_in_every_event(gpu, data):
    _, learn = same(data, lambda: thin(3), cbs=[Looks()], epochs=4)
    assert learn.looks.n > 50 and 'TrainingGraph' in replayed


def test_a_learner_may_be_copied_and_pickled_in_the_middle_of_a_fit(gpu, data, tmp_path):
    class Copies(Callback):
        def after_batch(self):
            if self.iter == CALLS_BEFORE + 1:
                for cb in self.learn.cbs.filter(lambda cb: isinstance(cb, CudaGraphs)):
                    assert cb.recordings.held and copy.copy(cb).recordings is None and copy.copy(cb).learn is self.learn

    same(data, lambda: thin(3), epochs=1, cbs=[Copies()], path=tmp_path, begin=short)


def test_a_fit_that_fails_leaves_nothing(gpu, data):
    class Fails(Callback):
        order = 2000

        def before_batch(self):
            if self.iter == 1:
                raise ZeroDivisionError('here')

    learn = learner(data, thin(3), cbs=[Fails()])
    with pytest.raises(ZeroDivisionError):
        learn.fit(1, 0.01)
    assert 'forward' not in vars(learn.model) and learn.cuda_graphs.recordings is None


class Gpus:
    "Two GPUs: which is the current one, and the current stream of each, as `torch.cuda` has them"

    def __init__(self, monkeypatch):
        self.at, self.streams, cuda = 0, ['main', 'main'], 'torch.cuda.'
        monkeypatch.setattr(cuda + 'current_stream', self.current)
        monkeypatch.setattr(cuda + 'set_stream', lambda stream: self.go(stream.device, stream.name))
        monkeypatch.setattr(cuda + 'device', self.device)

    def current(self, device):
        return SimpleNamespace(device=device.index, name=self.streams[device.index])

    def go(self, device, stream):
        self.at, self.streams[device] = device, stream

    @contextmanager
    def device(self, device):
        before, self.at = self.at, device.index
        try:
            yield
        finally:
            self.at = before


@pytest.mark.parametrize('number', [0, 1])
@pytest.mark.parametrize('fails', [False, True])
def test_a_capture_leaves_the_current_gpu_and_its_stream(monkeypatch, number, fails):
    gpus = Gpus(monkeypatch)
    with suppress(ZeroDivisionError), stream_kept(torch.device('cuda', number)):
        assert gpus.at == number
        gpus.go(number, 'capture')
        if fails:
            raise ZeroDivisionError
        gpus.go(number, 'main')
    assert gpus.at == 0 and gpus.streams == ['main', 'main']


def test_a_capture_that_fails_is_said_once_and_changes_nothing(gpu, data, monkeypatch):
    def fails(compute, device, warm_up=None):
        warm_up()
        raise RuntimeError('operation not permitted when stream is capturing\nmore of it')

    notes = []
    eager = fitted(data, lambda: thin(3), [kd], graphs=False)
    monkeypatch.setattr(passes, 'capture', fails)
    learn = fitted(
        data, lambda: thin(3), [kd], graphs=False, begin=lambda learn: learn.add_cb(CudaGraphs(notes.append))
    )
    assert equal(state(eager), state(learn)) and notes == [
        'the Sequential is not replayed as a CUDA graph: RuntimeError: operation not permitted when stream is capturing'
    ]


def test_networks_that_cannot_be_recorded_compute_as_usual(gpu):
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.randn(2, 3, 2, 2)
    for p in net.parameters():
        p.requires_grad = False
    notes = []
    recordings = Recordings(TrainingGraph, notes.append)
    assert [recordings.find(net, (x,)) for _ in range(CALLS_BEFORE + 3)] == [None] * (CALLS_BEFORE + 3) and len(
        notes
    ) == 1


def test_an_old_loss_is_not_backpropagated_through_another_batch(gpu):
    net, x = thin(3), torch.randn(4, 3, 8, 8)
    training = TrainingGraph(net, x)
    old = training(x).sum()
    assert not training.free
    old.backward(retain_graph=True)
    assert training.free
    training(x)
    assert training.free  # nobody holds what it gave
    with pytest.raises(RuntimeError, match='keep no loss'):
        old.backward()


class Both(Callback):
    "Asks the model for a second batch, and backpropagates both at once"

    def after_loss(self):
        if self.training:
            self.learn.loss_grad = self.loss_grad + self.model(-self.xb[0]).square().mean()


def test_two_forward_passes_in_a_step(gpu, data):
    same(data, lambda: thin(3), [Both])
    assert 'TrainingGraph' in replayed


# GraphedInference


def test_answers_are_copies_of_what_the_teacher_gives(gpu):
    net, answers = teacher(), GraphedInference()
    xs = [torch.randn(4, 3, 8, 8) for _ in range(8)]
    given = [answers(net, (x,), ['stage1', 'stage2']) for x in xs]
    assert replayed and all(
        torch.equal(a, b)
        for outputs, x in zip(given, xs)
        for a, b in zip(outputs, infer(net, (x,), ['stage1', 'stage2']))
    )
    replayed.clear()
    given = [answers(net, (x,), choose=lambda logits: logits * 2)[0] for x in xs]
    assert (
        replayed
        and all(torch.equal(a, 2 * net(x)) for a, x in zip(given, xs))
        and not any(m._forward_hooks for m in net.modules())
    )


def test_answers_follow_weights_and_types(gpu):
    net, answers, x = teacher(), GraphedInference(), TensorImage(torch.randn(4, 3, 8, 8))
    for i in range(8):
        with torch.no_grad():
            net.head[2].bias += 1
        (given,) = answers(net, (x,))
        assert torch.equal(given, net(x)) and type(given) is type(net(x))
    assert replayed


def test_validation_is_not_recorded(gpu):
    net, answers, x = teacher(), GraphedInference(), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        for _ in range(8):
            answers(net, (x,))
    assert not replayed


# In a run


def test_a_run_goes_on_with_the_same_bits_and_keeps_nothing_of_graphs(gpu, data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        run_module, 'precision_on', lambda device, setting: 'float32'
    )  # on a CPU, its hooks keep graphs away

    class Ends(Callback):
        at = None

        def after_batch(self):
            if self.training and (self.epoch, self.iter) == self.at:
                raise KeyboardInterrupt

    def trained(path, graphs, at=None):
        ends = Ends()
        ends.at = at
        run = begun(data, path, lambda folder: ends, *([lambda folder: CudaGraphs()] if graphs else []))
        run.checkpoints = run.checkpoints_class(run.folder, run.say)
        learn = run.learner(build(lambda: thin(3)))
        learn.fit_one_cycle(4, 0.05, cbs=kd())
        return learn.model.state_dict()

    eager = trained(tmp_path / 'eager', False)
    assert equal(eager, trained(tmp_path / 'graphs', True)) and 'TrainingGraph' in replayed
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / 'ended', True, at=(2, 0))
    assert equal(eager, trained(tmp_path / 'ended', False))  # and where there are no graphs
