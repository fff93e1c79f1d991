"Learners whose steps are replayed as CUDA graphs, with a stand-in for the GPU that computes on a CPU."

import torch
from conftest import equal
from fastai.vision.all import (
    CrossEntropyLossFlat,
    Learner,
    ProgressCallback,
    noop,
)
from torch import nn
from torchvision.models.resnet import BasicBlock

from kdfast.data.dataloaders import loaders
from kdfast.distill.cuda_graphs import passes, replay
from kdfast.distill.cuda_graphs.replay import CudaGraphs
from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import at_loss, hint_loss
from kdfast.distill.match import Match
from kdfast.distill.regressor import regressor
from kdfast.models.front import front
from kdfast.models.study_networks import thin, wide
from kdfast.training.learner import SeededOrder
from kdfast.training.precision import autocast_state, restore_autocast

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
    "Of torchvision's blocks"
    half = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        BasicBlock(16, 16),
        BasicBlock(16, 32, 2, half),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


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


def short(learn):
    "Twelve steps an epoch, so that each size of images comes often enough"
    learn.dls.train.bs = 6
