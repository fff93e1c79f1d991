"What a network holds is the same as long as no module, weight or buffer is another, in any place."

import copy

import pytest
import torch
from torch import nn

from kdfast.models.held import Held
from kdfast.models.inference import tensors
from kdfast.models.study_networks import thin


def weight(net):
    net.head[2].weight = nn.Parameter(net.head[2].weight.detach())


def buffer(net):
    net.stem[1].running_mean = net.stem[1].running_mean


def copied(net):
    net.stem[1].running_mean = net.stem[1].running_mean.clone()


def module(net):
    net.stem[2] = nn.ReLU()


def added(net):
    net.stem.append(nn.ReLU())


def removed(net):
    del net.stage1[1]


def registered(net):
    net.stem[2].register_buffer('more', torch.zeros(1))


def order(net):
    net._modules['stem'] = net._modules.pop('stem')


@pytest.mark.parametrize('change', [weight, copied, module, added, removed, registered, order])
def test_it_is_another(change):
    net = thin(3)
    held = Held(net)
    assert held.same
    change(net)
    assert not held.same


def test_it_is_the_same():
    net = thin(3)
    held = Held(net)
    buffer(net)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    net.eval().load_state_dict(thin(3).state_dict())
    assert held.same and all(a is b for a, b in zip(held.tensors, tensors(net), strict=True))
    assert Held(copy.deepcopy(net)).tensors[0] is not held.tensors[0]
