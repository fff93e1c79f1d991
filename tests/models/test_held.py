"What a network holds is the same as long as no module, weight or buffer is another, in any place."

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdfast.models.held import Attributes, Held, Sample
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


@dataclass
class Settings:
    scale: float = 1.0


def with_attributes():
    net = thin(3)
    net.stem.scale, net.stem.settings, net.stem.space = 1.0, Settings(), SimpleNamespace(scale=[1.0])
    net.head.options, net.head.steps, net.head._names = dict(a=1, b=[2, 3]), [1, (2, [3])], {'a'}
    net.head.hidden, net.head.constant = [nn.BatchNorm2d(3)], torch.ones(2)
    return net


CHANGES = [
    lambda net: setattr(net.stem, 'scale', 2.0),
    lambda net: setattr(net.stem, 'more', None),
    lambda net: delattr(net.stem, 'scale'),
    lambda net: setattr(net.stem, 'forward', lambda x: x),
    lambda net: setattr(net.stem.settings, 'scale', 2.0),
    lambda net: net.stem.space.scale.append(2.0),
    lambda net: net.head.options.update(a=2),
    lambda net: net.head.options.update(c=3),
    lambda net: net.head.options['b'].append(4),
    lambda net: net.head.steps.pop(),
    lambda net: net.head.steps[1][1].append(4),
    lambda net: net.head._names.add('b'),
    lambda net: setattr(net.head.hidden[0], 'eps', 1.0),
    lambda net: setattr(net.head.hidden[0], 'weight', nn.Parameter(torch.ones(3))),
    lambda net: setattr(net.head, 'constant', torch.ones(2)),
    lambda net: net.head[2].register_forward_hook(print),
    lambda net: net.stem.register_forward_pre_hook(print),
]


@pytest.mark.parametrize('change', CHANGES)
def test_another_attribute(change):
    net = with_attributes()
    attributes = Attributes(net)
    assert attributes.same
    change(net)
    assert not attributes.same


def test_modes_and_passes_change_no_attribute():
    net = with_attributes()
    attributes = Attributes(net)
    net.train()(torch.randn(2, 3, 8, 8)).sum().backward()
    net.eval().requires_grad_(False)
    assert attributes.same and {id(t) for t in attributes.tensors} == {
        id(t) for t in (net.head.constant, *tensors(net.head.hidden[0]))
    }


def by_numpy(t):
    t.detach().numpy()[...] += 1


WRITES = [
    lambda t: t.data.mul_(2).add_(1),
    lambda t: setattr(t, 'data', t.data + 1),
    lambda t: setattr(t, 'data', t.data.clone()),
    by_numpy,
]


@pytest.mark.parametrize('write', WRITES)
@pytest.mark.parametrize(
    'make',
    [
        lambda: torch.rand(()),
        lambda: torch.rand(2),
        lambda: torch.rand(4, 3, 3, 3).to(memory_format=torch.channels_last),
        lambda: torch.rand(5, 4).t(),
        lambda: torch.rand(9)[2:8:3],
        lambda: torch.rand(3, dtype=torch.float64),
        lambda: torch.tensor(3),
    ],
)
def test_writes_to_whole_tensors_show_in_a_sample(write, make):
    others = [torch.rand(2, 3), torch.rand(0), torch.rand(3).to_sparse(), torch.tensor([True])]
    sample = Sample([*others, tensor := make()])
    assert sample.same
    write(tensor)
    assert not sample.same


def test_no_sample_is_read_from_other_devices():
    assert not Sample([torch.rand(2), torch.rand(2, device='meta')]).tensors
