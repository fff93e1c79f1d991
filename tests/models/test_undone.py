"Networks that change with every forward pass are as they were after kdfast looked at them with noise."

import random
from collections import deque
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.ao.quantization as quantization
from torch import nn
from torch.nn.utils import prune

from kdfast.core.errors import KdfastError
from kdfast.models.embedding import embedding
from kdfast.models.feature_maps import layouts
from kdfast.models.front import features, front, front_back
from kdfast.models.layers import layers

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, 5)
        self.prepare()

    def prepare(self):
        "What it has besides"

    def change(self, x):
        "What every pass does"

    def forward(self, x):
        self.change(x)
        return self.fc(self.body(x).mean((2, 3)))


class Counter(Net):
    def prepare(self):
        self.register_buffer('calls', torch.zeros(()))

    def change(self, x):
        self.calls += 1


class Replaced(Counter):
    def change(self, x):
        self.calls = self.calls + 1


class AlwaysUpdates(Net):
    def change(self, x):
        self.body[1].train()


class PlainTensor(Net):
    def prepare(self):
        self.calls, self.same = torch.zeros(()), {}
        self.same['calls'] = self.calls

    def change(self, x):
        self.calls += 1
        assert self.same['calls'] is self.calls


class Number(Net):
    calls = 0

    def change(self, x):
        self.calls += 1


class Containers(Net):
    def prepare(self):
        self.seen, self.last, self.sizes, self.by_size = [torch.zeros(())], deque([1]), {3}, {}

    def change(self, x):
        self.seen[0] += 1
        self.seen.append(x)
        self.last.append(x)
        self.sizes.add(x.shape[2])
        self.by_size[x.shape] = x


class Nested(Net):
    def prepare(self):
        self.kept = {'inner': [torch.zeros(()), (torch.zeros(()), np.zeros(2)), [0]]}

    def change(self, x):
        tensor, (in_tuple, array), calls = self.kept['inner'][:3]
        for value in (tensor, in_tuple, array):
            value += 1
        calls[0] += 1
        self.kept['inner'].append(self.kept)


class Generators(Net):
    def prepare(self):
        self.draws = [np.random.default_rng(0), random.Random(0), np.random.RandomState(0)]
        self.generator = torch.Generator().manual_seed(0)

    def change(self, x):
        self.draws[0].random(), self.draws[1].random(), self.draws[2].rand(), torch.rand(1, generator=self.generator)


class NewModule(Net):
    def change(self, x):
        if not hasattr(self, 'late'):
            self.late = nn.Linear(1, 1)


class OutsideRandom(Net):
    def change(self, x):
        random.random(), np.random.rand(), torch.rand(1)


class Hooked(Net):
    "Its weight is computed by a hook, as pruning and weight norm do"

    def prepare(self):
        prune.l1_unstructured(self.body[0], 'weight', 0.5)
        nn.utils.weight_norm(self.fc)


class Quantized(Net):
    def prepare(self):
        self.train().qconfig = quantization.get_default_qat_qconfig('x86')
        quantization.prepare_qat(self, inplace=True)


class Scripted(Net):
    def prepare(self):
        class Inner(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer('calls', torch.zeros(()))

            def forward(self, x):
                self.calls += 1
                return x

        self.inner = torch.jit.script(Inner())

    def change(self, x):
        self.inner(x)


NETS = [
    Counter,
    Replaced,
    AlwaysUpdates,
    PlainTensor,
    Number,
    Containers,
    Nested,
    Generators,
    NewModule,
    OutsideRandom,
    Hooked,
    Quantized,
    Scripted,
]


def look_at_layouts(net):
    layouts(net, {'body': net.body}, ((X,), {}))


def look_at_front(net):
    features(front(net, 'body'), X)


LOOKS = dict(
    layouts=look_at_layouts,
    front=look_at_front,
    split=lambda net: front_back(net, 'body', X),
    layers=lambda net: layers(net, 8),
    embedding=lambda net: embedding(net, X),
)


def generator_state(value):
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.RandomState):
        return value.get_state()
    return value.get_state().tolist() if isinstance(value, torch.Generator) else value


def state(net):
    "All that a pass may change: objects by identity, and their contents"
    found = {}
    for name, module in net.named_modules():
        for key, value in vars(module).items():
            inside = (
                value if isinstance(value, list | deque) else value.values() if isinstance(value, dict) else [value]
            )
            found[name, key] = [id(value), *(id(x) for x in inside), *(str(generator_state(x)) for x in inside)]
            found[name, key] += [x._version for x in inside if isinstance(x, torch.Tensor)]
    found['buffers'] = [(name, str(b)) for name, b in net.named_buffers()]
    found['sizes'] = sorted(getattr(net, 'sizes', ()))
    found['random'] = random.getstate(), str(np.random.get_state()), str(torch.get_rng_state())
    return found


@pytest.mark.parametrize('look', LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize('kind', NETS, ids=lambda kind: kind.__name__)
def test_a_network_is_as_it_was_before(kind, look):
    torch.manual_seed(0)
    net = kind()
    net(X)  # hooks and observers have computed something
    if kind in (Replaced, NewModule):
        net = deepcopy(kind())
    before = state(net)
    look(net)
    assert state(net) == before


class NotAgain(Net):
    "Remembers that a pass has begun"

    busy = False

    def forward(self, x):
        assert not self.busy, 're-entered'
        self.busy = True
        output = super().forward(x)
        self.busy = False
        return output


class OneSize(NotAgain):
    "Fails for images of another size when it has begun"

    def change(self, x):
        assert x.shape[2:] == (8, 8), 'another size'


def test_a_layer_of_torchscript_is_refused_in_words():
    with pytest.raises(KdfastError, match='layer inner is of TorchScript'):
        front(Scripted(), 'inner')


class FewImages(Net):
    def change(self, x):
        assert len(x) == 2, 'two images, please'


def test_a_network_that_fails_halfway_is_as_it_was_and_its_layers_are_found():
    net = OneSize()
    assert layouts(net, {'body': net.body}, ((X,), {}))['body'].axes == 'NCHW'
    assert not net.busy


def test_a_network_that_cannot_be_stopped_is_refused_with_its_own_words():
    net = NotAgain()
    with pytest.raises(KdfastError, match='cannot be stopped after its layer body.*AssertionError: re-entered'):
        features(front(net, 'body'), X)
    assert not net.busy


def test_what_keeps_a_layout_from_being_found_is_named():
    net = FewImages()
    net.change = lambda x: FewImages.change(net, x)
    net.body.append(nn.AdaptiveAvgPool2d((4, 4)))  # whatever the size of the images
    with pytest.raises(KdfastError, match='cannot be identified, because .*AssertionError: two images, please'):
        raise layouts(net, {'body': net.body}, ((X,), {}))['body']
