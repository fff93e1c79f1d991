"When a recorded CUDA graph is no longer used."

import copy

import pytest
import torch
from conftest import FLOAT32
from fastai.vision.all import (
    TensorImage,
)

from kdfast.distill.cuda_graphs.state import State
from kdfast.models.study_networks import thin

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


@pytest.mark.parametrize('setting', FLOAT32, ids=str)
def test_a_recording_is_of_one_precision_of_float32(setting, float32_setting):
    net, x = thin(3), torch.randn(2, 3, 8, 8)
    before = State(net, x)
    float32_setting(*setting)
    assert not before.holds(net, x) and State(net, x).holds(net, x)
