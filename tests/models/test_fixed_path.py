"Batch norms are folded only in networks that compute the same layers for any input."

import threading
import warnings

import pytest
import torch
import torchvision
from test_folding import Steps, computed, conv, norm
from torch import nn

from kdfast.models.embedding import embedding, standardized
from kdfast.models.folding import faster, folded
from kdfast.models.front import front
from kdfast.models.inference import infer
from kdfast.models.study_networks import matched, thin, wide
from kdfast.models.tracing import has_fixed_path


def routes():
    return nn.ModuleList([norm(), norm()])


def by_value(self, x):
    return self.norms[int(x[0, 0, 0, 0] > 0)](self.conv(x))


def by_size(self, x):
    return self.norms[0 if x.shape[-1] > 6 else 1](self.conv(x))


def by_table(self, x):
    return {6: self.norms[1]}.get(x.shape[-1], self.norms[0])(self.conv(x))


def by_tensor_shape(self, x):
    return {x.new_empty(2, 4, 6, 6).shape: self.norms[1]}.get(x.shape, self.norms[0])(self.conv(x))


def by_known_sizes(self, x):
    return self.norms[x.shape[-1] in {6}](self.conv(x))


def by_number_of_images(self, x):
    for _ in range(len(x) - 1):
        y = self.norms[0](self.conv(x))
    return y if len(x) == 2 else self.norms[1](y)


def early_exit(self, x):
    y = self.norms[0](self.conv(x))
    return y if x.mean() > 0 else self.norms[1](y) + self.conv(x)


def caught(self, x):
    try:
        return self.norms[x.shape[-1] - 6](self.conv(x))
    except IndexError:
        return self.norms[1](self.conv(x)) * 2


def by_layer(self, x):
    y = nn.functional.relu(self.conv(x))
    return self.norms[0](self.conv(x)) if y.sum() > 500 else self.norms[1](self.conv(x))


class Counted(nn.Module):
    "Its layers depend on how often it was called"

    def __init__(self):
        super().__init__()
        self.conv, self.norms, self.calls = conv(), routes(), 0

    def forward(self, x):
        self.calls += 1
        return self.norms[self.calls % 2](self.conv(x))


class CountedInBuffer(Counted):
    def __init__(self):
        super().__init__()
        del self.calls
        self.register_buffer('calls', torch.zeros((), dtype=torch.long))


def in_hook():
    net = nn.Sequential(nn.Sequential(conv()), norm())
    net[0].register_forward_hook(lambda m, inputs, output: output * 2 if output.shape[-1] > 6 else output)
    return net


def own_forward(forward):
    net = nn.Identity()
    net.conv, net.norms = conv(), routes()
    net.forward = lambda x: forward(net, x)
    return nn.Sequential(net)


INPUTS = [torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(2)]
INPUTS[0][0, 0, 0, 0], INPUTS[1][0, 0, 0, 0] = -1.0, 1.0
INPUTS += [torch.rand(2, 4, 8, 8), -torch.rand(3, 4, 6, 6), torch.rand(2, 4, 6, 6)]
DECISIONS = [
    by_value,
    by_size,
    by_table,
    by_tensor_shape,
    by_known_sizes,
    by_number_of_images,
    early_exit,
    caught,
    by_layer,
]
VARIABLE = {f.__name__: lambda f=f: Steps(f, conv=conv(), norms=routes()) for f in DECISIONS} | {
    'in a parallel network': lambda: nn.Sequential(nn.DataParallel(Steps(by_value, conv=conv(), norms=routes()))),
    'its own forward': lambda: own_forward(by_value),
    'by calls': Counted,
    'by calls in a buffer': CountedInBuffer,
    'in a hook': in_hook,
}


@pytest.mark.parametrize('name', VARIABLE)
def test_networks_whose_layers_may_depend_on_the_input_are_used_as_they_are(name, capsys):
    torch.manual_seed(0)
    net = VARIABLE[name]().eval()
    reference, compute = VARIABLE[name]().eval(), folded(net)
    reference.load_state_dict(net.state_dict())
    with torch.no_grad():
        for x in INPUTS:
            assert torch.equal(compute(x), reference(x))
    assert capsys.readouterr().err.count('is used as it is') <= 1
    assert all('forward' not in vars(m) for m in net.modules() if isinstance(m, nn.BatchNorm2d))


FIXED = {
    'wide': (wide, 32),
    'thin': (thin, 32),
    'matched': (matched, 32),
    'resnet18': (lambda: torchvision.models.resnet18(weights=None), 32),
    'mobilenet_v3_small': (lambda: torchvision.models.mobilenet_v3_small(weights=None), 32),
    'shufflenet_v2_x0_5': (lambda: torchvision.models.shufflenet_v2_x0_5(weights=None), 32),
}


@pytest.mark.parametrize('name', FIXED)
def test_usual_networks_are_folded(name):
    make, side = FIXED[name]
    net = make().eval()
    before = {m: dict(vars(m)) for m in net.modules()}
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        copy = faster(net, (torch.randn(2, 3, side, side),))
    assert computed(copy) == 0 < computed(net)
    assert all(vars(m) == attributes for m, attributes in before.items())


PARTS = {
    'a Sequential up to a layer': lambda: front(wide(3), 'stage2'),
    'a network up to a layer': lambda: front(torchvision.models.resnet18(weights=None), 'layer2'),
    'a network up to a module of torch.nn': lambda: front(torchvision.models.resnet18(weights=None), 'layer1.0.bn1'),
    'a network up to its classifier': lambda: standardized(
        embedding(torchvision.models.resnet18(weights=None), torch.randn(2, 3, 32, 32))
    ),
}


@pytest.mark.parametrize('name', PARTS)
def test_parts_of_usual_networks_are_folded(name, capsys):
    "In stage one the teacher is a front, in `pretrain` a network up to its classifier"
    part, x = PARTS[name]().eval(), torch.randn(2, 3, 32, 32)
    expected = infer(part, (x,))[0]
    copy = faster(part, (x,))
    assert copy is not part and not capsys.readouterr().err
    torch.testing.assert_close(infer(copy, (x,))[0], expected, rtol=1e-3, atol=1e-4)


TRACED = {
    'sizes': lambda self, x: self.norm(self.conv(x)).reshape(x.shape[0], -1) * x.size(1),
    'unpacked': lambda self, x: unpacked(self.norm(self.conv(x))),
    'new tensors': lambda self, x: self.norm(self.conv(x)) + torch.ones(4, 6, 6) * torch.tensor(2.0),
    'option': lambda self, x, mask=None, features=False: self.norm(self.conv(x)) if mask is None else features,
}


def unpacked(x):
    n, c, h, w = x.shape
    return x.view(n, c * h, w)


@pytest.mark.parametrize('name', TRACED)
def test_arithmetic_of_sizes_new_tensors_and_options_are_no_decisions(name):
    net = Steps(TRACED[name], conv=conv(), norm=norm()).eval()
    assert has_fixed_path(net, 1, ())
    assert set(vars(net)) == set(vars(Steps(None)))


def test_networks_that_compute_in_other_threads_are_not_disturbed():
    other, seen, over = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), [], threading.Event()

    def compute():
        try:
            seen.append(other(torch.ones(1, 2)))
        finally:
            over.set()

    def meanwhile(self, x):
        threading.Thread(target=compute).start()
        over.wait()
        return self.norm(self.conv(x))

    assert has_fixed_path(Steps(meanwhile, conv=conv(), norm=norm()), 1, ())
    assert torch.equal(seen[0], other(torch.ones(1, 2)))


def test_hooks_are_not_called_without_values():
    calls, net = [], nn.Sequential(nn.Sequential(conv()), norm(), nn.ReLU()).eval()
    net[0].register_forward_hook(lambda *_: calls.append(1))
    net[2].register_forward_hook(lambda *_: calls.append(1))
    assert not has_fixed_path(net, 1, ()) and not calls
    net[0]._forward_hooks.clear()
    assert has_fixed_path(net, 1, ()) and not calls
