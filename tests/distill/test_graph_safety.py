"Networks, inputs and settings for which no CUDA graph is recorded."

from types import SimpleNamespace

import graph_learners
import pytest
import torch
from fastai.vision.all import (
    TensorImage,
)
from graph_learners import replayed, same
from torch import nn
from torch.nn.utils import parametrizations, weight_norm
from torchvision.models import vgg11

from kdfast.distill.cuda_graphs.replay import CudaGraphs
from kdfast.distill.cuda_graphs.safety import problem, unfit
from kdfast.models.study_networks import thin

gpu = pytest.fixture(graph_learners.gpu)


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
        lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3))),
        lambda: nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 3)), nn.ReLU()),
        *(
            lambda change=change: changed(change)
            for change in (hooked, patched, weighted, parametrized, cumulative, compiled, lost)
        ),
    ],
)
def test_networks_with_anything_unknown_are_not_recorded(make):
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
def test_unusual_inputs_are_not_recorded(x):
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
def test_nothing_is_recorded_under_modes_that_watch_or_round(where):
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
        lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3))),
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
