"""Networks replayed as CUDA graphs give what they give without, to the bit, or are left alone.

A stand-in for the capture computes again, on the CPU, and writes where the first result lies, as a graph does: what is
kept without being copied, or frozen without being noticed, shows. The real one: benchmarks/gpu.py --parts graphs.
"""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from conftest import begun, equal
from fastai.callback.training import GradientAccumulation
from fastai.torch_core import to_float
from fastai.vision.all import (
    Callback,
    CancelBatchException,
    CrossEntropyLossFlat,
    Learner,
    MixUp,
    ProgressCallback,
    TensorImage,
    noop,
)
from torch import nn
from torch.nn.utils import parametrizations, weight_norm
from torchvision.models import resnet18, vgg11

from kdfast.data.dataloaders import loaders
from kdfast.distill.cuda_graphs import passes, replay
from kdfast.distill.cuda_graphs.passes import InferenceGraph, TrainingGraph
from kdfast.distill.cuda_graphs.replay import CALLS_BEFORE, CudaGraphs, GraphedInference, Recordings
from kdfast.distill.cuda_graphs.safety import problem, unfit
from kdfast.distill.cuda_graphs.state import State
from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import at_loss, hint_loss
from kdfast.distill.match import Match
from kdfast.distill.regressor import regressor
from kdfast.models.front import front, front_back
from kdfast.models.inference import infer
from kdfast.models.study_networks import matched, thin, wide
from kdfast.training import run as run_module
from kdfast.training.precision import autocast_state, restore_autocast, use_bfloat16
from kdfast.training.run import SeededOrder

CPU = torch.device('cpu')
replayed = []  # what was replayed, by name


def stand_in(compute, device, warm_up=None):
    if warm_up:
        for _ in range(3):
            warm_up()
    static, frozen = compute(), autocast_state('cpu')

    def again():
        replayed.append(compute.__qualname__.split('.')[0])
        now = autocast_state('cpu')
        restore_autocast(frozen)
        for old, new in zip(tensors(static), tensors(compute()), strict=True):
            old.data.copy_(new.data)
        restore_autocast(now)

    return static, again


def tensors(given):
    return [given] if isinstance(given, torch.Tensor) else [t for t in given if t is not None]


@pytest.fixture
def gpu(monkeypatch):
    "As if there were one"
    replayed.clear()
    monkeypatch.setattr(passes, 'capture', stand_in)
    monkeypatch.setattr(replay, 'on_gpu', lambda x: isinstance(x, torch.Tensor))


def learner(data, model, loss=None, cbs=(), graphs=True, **kwargs):
    learn = Learner(
        loaders(data),
        model,
        loss or CrossEntropyLossFlat(),
        cbs=[SeededOrder(), *cbs, *([CudaGraphs()] if graphs else [])],
        **kwargs,
    )
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def build(make, seed=0):
    torch.manual_seed(seed)
    return make()


def tiny():
    "Of torchvision's blocks, for images of 8×8"
    return resnet18(num_classes=3)


def guided():
    net, teacher = thin(3), wide(3)
    return nn.Sequential(front(net), regressor(front(net), front(teacher), torch.randn(2, 3, 8, 8)))


def teacher():
    return build(lambda: wide(3), 7).eval()


def kd():
    return Distill(teacher())


def kd_of_logits():
    return Match(teacher(), hint_loss, 0.1)


def hint():
    return Hint(front(teacher()))


def attention():
    return Match(teacher(), at_loss, 10.0, 'stage2:stage2')


def fitted(data, make, callbacks=(), graphs=True, loss=None, epochs=4, begin=lambda learn: None, **kwargs):
    "Weights after a fit, and what else it left: momenta and gradients"
    model = build(make)
    learn = learner(data, model, loss, graphs=graphs, **kwargs)
    begin(learn)
    learn.fit(epochs, 0.05, cbs=[make_cb() for make_cb in callbacks])
    return learn


def state(learn):
    momenta = {f'opt {i}': s['grad_avg'] for i, s in enumerate(learn.opt.state_dict()['state']) if 'grad_avg' in s}
    gradients = {f'grad {name}': p.grad for name, p in learn.model.named_parameters() if p.grad is not None}
    return learn.model.state_dict() | momenta | gradients


def same(data, make, callbacks=(), **kwargs):
    "The same state with graphs and without; both Learners"
    eager = fitted(data, make, callbacks, graphs=False, **kwargs)
    replayed.clear()
    learn = fitted(data, make, callbacks, **kwargs)
    assert equal(state(eager), state(learn))
    return eager, learn


# What is replayed gives the same


@pytest.mark.parametrize(
    'make, callbacks, loss, student, teaches',
    [
        (lambda: thin(3), [], None, True, False),
        (tiny, [], None, True, False),
        (lambda: thin(3), [kd], None, True, True),
        (lambda: thin(3), [kd_of_logits], None, True, True),
        (lambda: thin(3), [MixUp, kd], None, True, True),
        (lambda: front(matched(3)), [hint], hint_loss, True, True),
        (guided, [hint], hint_loss, True, True),
        (lambda: thin(3), [attention], None, False, True),
    ],
    ids=['plain', 'torchvision', 'kd', 'logits', 'mixup', 'matched', 'hint', 'attention'],
)
def test_fits_with_graphs_give_the_same_bits(gpu, data, make, callbacks, loss, student, teaches):
    same(data, make, callbacks, loss=loss)
    assert ('TrainingGraph' in replayed) == student and ('InferenceGraph' in replayed) == teaches


def test_gradients_are_accumulated_as_ever(gpu, data):
    same(data, lambda: thin(3), [lambda: GradientAccumulation(40)])
    assert 'TrainingGraph' in replayed


def test_gradients_are_the_learners_own(gpu):
    "Not the memory that the next replay writes"
    net, x = thin(3), torch.randn(4, 3, 8, 8)
    training = TrainingGraph(net, x)
    training(x).sum().backward()
    before = [p.grad.clone() for p in net.parameters()]
    held = [torch.autograd.grad(training(-x).square().sum(), [*net.parameters()]) for _ in range(2)][0]
    was = [g.clone() for g in held]
    training(x + 1).sum().backward(retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(held, was))
    assert any(not torch.equal(p.grad, b) for p, b in zip(net.parameters(), before))  # summed up


class Keeps(Callback):
    def before_fit(self):
        self.kept = []

    def after_batch(self):
        self.kept.append(self.pred.detach())


def test_predictions_may_be_kept(gpu, data):
    eager, learn = same(data, lambda: thin(3), [kd], cbs=[Keeps()])
    assert all(map(torch.equal, eager.keeps.kept, learn.keeps.kept)) and 'TrainingGraph' in replayed


class Predicts(Callback):
    "In the middle of a fit"

    def before_fit(self):
        self.seen = []

    def after_batch(self):
        if self.training:
            self.seen.append(self.learn.get_preds()[0])


def test_predictions_in_the_middle_of_a_fit(gpu, data):
    eager, learn = same(data, lambda: thin(3), [kd], cbs=[Predicts()])
    assert all(map(torch.equal, eager.predicts.seen, learn.predicts.seen)) and 'TrainingGraph' in replayed


class Shapes(Callback):
    "Images that grow, as with --grow"

    order = 5

    def before_batch(self):
        if self.training:
            self.learn.xb = (self.xb[0][..., : 4 + self.epoch, : 4 + self.epoch].contiguous(),)


def test_images_that_grow(gpu, data):
    _, learn = same(data, lambda: thin(3), [Shapes, kd], epochs=5, begin=short)
    assert len(replayed) > 10


def short(learn):
    "Twelve steps an epoch, so that each size of images comes often enough"
    learn.dls.train.bs = 6


class Thaws(Callback):
    "In the middle of an epoch"

    def before_batch(self):
        if self.iter == 6:
            self.learn.freeze() if self.epoch % 2 else self.learn.unfreeze()


def test_freezing_and_thawing_in_the_middle(gpu, data):
    def split(net):
        return front_back(net, 'stage1')

    same(data, lambda: thin(3), [Thaws, kd], splitter=split, begin=lambda learn: (short(learn), learn.freeze()))
    assert 'TrainingGraph' in replayed


class Momentum(Callback):
    "Of batch norms, which a graph has frozen"

    def before_batch(self):
        for m in self.model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.momentum = 0.1 / (1 + self.epoch)


def test_settings_that_change(gpu, data):
    same(data, lambda: thin(3), [Momentum], begin=short)
    assert 'TrainingGraph' in replayed


class Hooks(Callback):
    "From the second epoch on, a hook looks at a layer"

    def before_fit(self):
        self.seen = 0

    def before_epoch(self):
        if self.epoch == 1:
            self.model.stage1[0].conv1.register_forward_hook(self.look)

    def look(self, *_):
        self.seen += self.model.training


def test_hooks_that_come_in_the_middle_are_called_in_every_step(gpu, data):
    _, learn = same(data, lambda: thin(3), [kd], cbs=[Hooks()], epochs=3, begin=short)
    assert learn.hooks.seen == 2 * len(learn.dls.train) and 'TrainingGraph' in replayed


class Replaces(Callback):
    "A layer, by one that computes something else; its weights, by others"

    def before_epoch(self):
        if self.epoch == 1:
            self.model.stem[2] = nn.LeakyReLU(0.3)
        if self.epoch == 2:
            self.model.head[2].weight.data = self.model.head[2].weight.data * 0.5
        if self.epoch == 3:
            self.model.stem[1].register_buffer('running_mean', self.model.stem[1].running_mean + 1)


def test_layers_and_weights_that_are_replaced(gpu, data):
    same(data, lambda: thin(3), [Replaces], begin=short)
    assert 'TrainingGraph' in replayed


class Skips(Callback):
    "Batches, behind the forward pass, and before it"

    def after_pred(self):
        if self.training and self.iter % 5 == 4:
            raise CancelBatchException

    def before_batch(self):
        if self.training and self.iter % 5 == 1:
            raise CancelBatchException


def test_batches_that_are_skipped(gpu, data):
    _, learn = same(data, lambda: thin(3), [Skips], begin=short)
    assert 'TrainingGraph' in replayed and 'forward' not in vars(learn.model)


class Half(Callback):
    "Bfloat16, without its hooks on convolutions, which there are on a CPU alone"

    order = 5

    def before_batch(self):
        self.before = autocast_state('cpu')
        if self.training:
            use_bfloat16(CPU)

    def after_pred(self):
        self.learn.pred = to_float(self.pred)

    def after_loss(self):
        restore_autocast(self.before)


def test_bfloat16(gpu, data):
    def layers():
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))

    same(data, layers, [kd], cbs=[Half()])
    assert 'TrainingGraph' in replayed and 'InferenceGraph' in replayed and not torch.is_autocast_enabled('cpu')


def test_a_backward_pass_is_recorded_without_autocast(gpu, monkeypatch):
    "With it, a GPU would sum up in another precision than in an eager step, whose backward pass has none"
    seen, grad = [], torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd,
        'grad',
        lambda *args, **kwargs: (seen.append(torch.is_autocast_enabled('cpu')), grad(*args, **kwargs))[1],
    )
    with torch.autocast('cpu', torch.bfloat16, cache_enabled=False):
        training = TrainingGraph(thin(3), torch.randn(2, 3, 8, 8))
    assert seen and not any(seen) and training.output.dtype is torch.bfloat16


# What is left alone


class Turns(nn.Module):
    "Computes something else every second time"

    def __init__(self):
        super().__init__()
        self.net, self.n = thin(3), 0

    def forward(self, x):
        self.n += 1
        return self.net(x) * (1 + self.n % 2)


class MyLinear(nn.Linear):
    pass


def changed(change):
    net = thin(3)
    change(net)
    return net


def hooked(net):
    net.stage2[0].conv1.register_forward_pre_hook(lambda *_: None)


def patched(net):
    net.stage2[0].forward = lambda x: x


def weighted(net):
    weight_norm(net.head[2])


def parametrized(net):
    parametrizations.weight_norm(net.head[2])


def cumulative(net):
    net.stem[1].momentum = None


def compiled(net):
    net.stem.compile()


def lost(net):
    net.stem[1].running_mean = net.stem[1].running_mean.to('meta')


@pytest.mark.parametrize(
    'make',
    [
        Turns,
        lambda: nn.Sequential(thin(3), MyLinear(3, 3)),
        lambda: vgg11(num_classes=3),
        lambda: nn.DataParallel(thin(3)),
        lambda: torch.compile(thin(3), backend='eager'),
        lambda: nn.Sequential(thin(3), nn.SyncBatchNorm(3)),
        *(
            lambda change=change: changed(change)
            for change in (hooked, patched, weighted, parametrized, cumulative, compiled, lost)
        ),
    ],
)
def test_networks_of_which_it_is_not_sure_are_left_alone(make):
    assert problem(make().train(), torch.randn(2, 3, 8, 8))


def test_dropout_draws_only_in_training():
    net, x = vgg11(num_classes=3), torch.randn(2, 3, 8, 8)
    assert problem(net, x) and not problem(net.eval(), x) and not problem(vgg11(num_classes=3, dropout=0), x)


def test_a_class_of_a_library_with_another_forward_is_left_alone(monkeypatch):
    monkeypatch.setattr(nn.Linear, 'forward', lambda self, x: x @ self.weight.T * 2)
    assert problem(thin(3), torch.randn(2, 3, 8, 8))


def test_a_class_that_only_is_called_like_one_of_the_list_is_left_alone():
    class Linear(nn.Linear):
        pass

    Linear.__module__ = 'torch.nn.modules.linear'
    assert problem(nn.Sequential(Linear(3, 3)), torch.randn(2, 3))


@pytest.mark.parametrize(
    'x',
    [
        torch.randn(2, 3, 8, 8).requires_grad_(),
        torch.zeros(2, 3, dtype=torch.long),
        torch.randn(2, 3, 8, 16)[..., ::2],
        [torch.randn(2, 3)],
        torch.randn(0, 3, 8, 8),
        TensorImage(torch.randn(2, 3, 8, 8), about=1),
    ],
)
def test_inputs_of_which_it_is_not_sure(x):
    assert unfit(x)


@pytest.mark.parametrize(
    'where',
    [
        lambda: torch.autograd.detect_anomaly(check_nan=False),
        torch.inference_mode,
        lambda: torch.device('cpu'),
        lambda: torch.autocast('cpu', torch.bfloat16),
        lambda: torch.autocast('cpu', torch.float16, cache_enabled=False),
    ],
)
@pytest.mark.filterwarnings('ignore:Anomaly')
def test_what_watches_or_rounds_leaves_networks_alone(where):
    x = torch.randn(2, 3, 8, 8)
    assert not unfit(x) and not unfit(TensorImage(x))
    with where():
        assert unfit(x)
    with torch.autocast('cpu', torch.bfloat16, cache_enabled=False):
        assert not unfit(x)


def test_control_flow_is_not_frozen(gpu, data):
    same(data, Turns)
    assert 'TrainingGraph' not in replayed


@pytest.mark.parametrize(
    'make',
    [
        Turns,
        lambda: nn.DataParallel(thin(3)),
        lambda: torch.compile(thin(3), backend='eager'),
        lambda: changed(nn.Module.compile),
    ],
)
def test_other_networks_are_not_touched(make):
    "Not even their `forward`, of which a compiler may make what it likes"
    cb, net = CudaGraphs(), make()
    cb.learn = SimpleNamespace(model=net, training=True, cbs=[])
    before = dict(vars(net))
    cb.before_batch()
    assert vars(net) == before
    cb.learn.model = thin(3)
    cb.before_batch()
    assert 'forward' in vars(cb.learn.model)


# What changes makes a recording void


def mode(net, x):
    net.stage1.eval()


def number(net, x):
    net.stem[1].eps = 1e-3


def frozen(net, x):
    net.head[2].bias.requires_grad = False


def elsewhere(net, x):
    net.head[2].weight.data = net.head[2].weight.data.clone()


def other_buffer(net, x):
    net.stem[1].num_batches_tracked = torch.tensor(0)


def another(net, x):
    net.head[2] = copy.deepcopy(net.head[2])


def reordered(net, x):
    net._modules['stem'] = net._modules.pop('stem')


def shared(net, x):
    net.stage1[1].conv2 = net.stage1[1].conv1


def turned(net, x):
    net.stem[0].weight.data = net.stem[0].weight.data.transpose(2, 3)


def hook(net, x):
    net.stem.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    'change', [mode, number, frozen, elsewhere, other_buffer, another, reordered, shared, turned, hook]
)
def test_a_recording_is_void_when_what_it_froze_has_changed(change):
    net, x = thin(3), torch.randn(2, 3, 8, 8)
    before = State(net, x)
    assert before.holds(net, x) and before.holds(net, torch.randn(2, 3, 8, 8))
    change(net, x)
    assert not before.holds(net, x)


def test_a_recording_is_of_one_kind_of_input():
    net, x = thin(3), torch.randn(2, 3, 8, 8)
    before = State(net, x)
    for other in (x[:1], x.double(), x.to(memory_format=torch.channels_last), TensorImage(x)):
        assert not before.holds(net, other)
    with torch.autocast('cpu', torch.bfloat16):
        assert not before.holds(net, x)
    with torch.no_grad():
        assert not before.holds(net, x)
    assert not before.holds(copy.deepcopy(net), x)
    torch.use_deterministic_algorithms(True)
    try:
        assert not before.holds(net, x)
    finally:
        torch.use_deterministic_algorithms(False)


# Nothing is left behind


def test_recording_moves_nothing(gpu):
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
        pickle.loads(pickle.dumps(self.model)), copy.deepcopy(self.model)

    before_batch = after_pred = after_loss = before_backward = before_step = after_batch = after_train = (
        before_validate
    ) = after_epoch = look


def test_nothing_is_on_the_model_in_any_event(gpu, data):
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


def test_what_cannot_be_recorded_is_not(gpu):
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
    monkeypatch.setattr(run_module, 'multiplies_bfloat16', lambda device: False)  # on a CPU, its hooks keep graphs away

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
