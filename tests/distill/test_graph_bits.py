"Fits with CUDA graphs end with the bits of fits without, whatever happens during the fit."

import graph_learners
import pytest
import torch
from fastai.callback.training import GradientAccumulation
from fastai.torch_core import to_float
from fastai.vision.all import (
    Callback,
    CancelBatchException,
    MixUp,
)
from graph_learners import CPU, attention, guided, hint, kd, kd_of_logits, replayed, same, short, tiny
from torch import nn

from kdfast.distill.cuda_graphs.passes import TrainingGraph
from kdfast.distill.losses.features import hint_loss
from kdfast.models.front import front, front_back
from kdfast.models.study_networks import matched, thin
from kdfast.training.precision import autocast_state, restore_autocast, use_bfloat16

gpu = pytest.fixture(graph_learners.gpu)


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


def test_gradients_are_accumulated_the_same(gpu, data):
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


def test_progressive_resizing_changes_the_size_of_images(gpu, data):
    _, learn = same(data, lambda: thin(3), [Shapes, kd], epochs=5, begin=short)
    assert len(replayed) > 10


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
