"Faster copies with folded batch norms have the same outputs, or the network itself is used."

import pytest
import torch
from conftest import equal
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from kdfast.models.folding import faster, folded
from kdfast.models.study_networks import wide


def conv(n_in=4, n_out=4, kind=nn.Conv2d, **options):
    return kind(n_in, n_out, 3, padding=1, **options)


def norm(kind=nn.BatchNorm2d, n=4):
    "Statistics and weights as training may leave them"
    made = kind(n)
    for t in (made.running_mean, made.bias):
        t.data.uniform_(-0.5, 0.5)
    for t in (made.running_var, made.weight):
        t.data.uniform_(0.5, 2)
    return made


class NormAct(nn.BatchNorm2d):
    "As timm's: a batch norm that is an activation, too"

    def forward(self, x):
        return super().forward(x).relu()


class Standardized(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class Steps(nn.Module):
    "Calls its layers in a way that the names of its children do not tell"

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.how = forward

    def forward(self, *xb):
        return self.how(self, *xb)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Backwards(nn.Sequential):
    def forward(self, x):
        return self[0](self[1](x))


class Noisy(nn.Sequential):
    "Stays in training mode"

    def train(self, mode=True):
        return super().train(True)


def hooked(module):
    module.register_forward_hook(lambda module, inputs, output: output * 2)
    return module


def own_forward(module):
    module.forward = lambda x: nn.functional.relu(x)
    return module


def shared_relu():
    relu = nn.ReLU()
    return nn.Sequential(conv(), relu, conv(), relu, norm())


def pruned():
    return prune.l1_unstructured(conv(), 'weight', 0.5)


def twice(self, x):
    return self.norm(self.conv(self.conv(x)))


def norm_twice(self, x):
    return self.norm(self.conv(x)) + self.norm(x)


def two_readers(self, x):
    return self.norm(y := self.conv(x)) + y


def late_reader(self, x):
    return torch.cat([self.norm(y := self.conv(x)).relu(), y], 1)


def own_weight(self, x):
    return self.norm(self.conv(x)) * self.conv.weight.sum()


def norm_of_view(self, x):
    return self.norm(self.conv(x).flip(-1))


def by_functions(self, x):
    return self.norm(nn.functional.conv2d(x, self.conv.weight, self.conv.bias, padding=1))


def by_keyword(self, x):
    return self.norm(input=self.conv(input=x))


def one_by_one(self, x):
    for child in self.seq.children():
        x = child(x) + (x if isinstance(child, nn.BatchNorm2d) else 0)
    return x


ODD = {  # how many batch norms may go: of a network that is as it looks one, of these none
    'norm with an activation': lambda: nn.Sequential(conv(), norm(NormAct)),
    'convolution of standardized weights': lambda: nn.Sequential(conv(kind=Standardized), norm()),
    'one ReLU in two places': shared_relu,
    'children called by hand, with a residual': lambda: Steps(one_by_one, seq=nn.Sequential(conv(), norm())),
    'in another order': lambda: Backwards(conv(), norm()),
    'convolution used twice': lambda: Steps(twice, conv=conv(), norm=norm()),
    'norm used twice': lambda: Steps(norm_twice, conv=conv(), norm=norm()),
    'read twice': lambda: Steps(two_readers, conv=conv(), norm=norm()),
    'read later': lambda: Steps(late_reader, conv=conv(), norm=norm()),
    'something between': lambda: Steps(norm_of_view, conv=conv(), norm=norm()),
    'hook on the norm': lambda: nn.Sequential(conv(), hooked(norm())),
    'hook on the convolution': lambda: nn.Sequential(hooked(conv()), norm()),
    'another forward': lambda: nn.Sequential(own_forward(conv()), norm()),
    'spectral norm': lambda: nn.Sequential(parametrizations.spectral_norm(conv()), norm()),
    'weight norm': lambda: nn.Sequential(parametrizations.weight_norm(conv()), norm()),
    'old spectral norm': lambda: nn.Sequential(spectral_norm(conv()), norm()),
    'old weight norm': lambda: nn.Sequential(weight_norm(conv()), norm()),
    'pruned': lambda: nn.Sequential(pruned(), norm()),
    'no running statistics': lambda: nn.Sequential(conv(), nn.BatchNorm2d(4, track_running_stats=False)),
    'norm that stays in training': lambda: Noisy(conv(), norm()),
    'group norm': lambda: nn.Sequential(conv(), nn.GroupNorm(2, 4)),
    'functions': lambda: Steps(by_functions, conv=conv(), norm=norm()),
}
PLAIN = {
    'from the last to the first': lambda: Backwards(norm(), conv()),
    'Sequential': lambda: nn.Sequential(conv(), norm()),
    'by keyword': lambda: Steps(by_keyword, conv=conv(), norm=norm()),
    'without a bias': lambda: nn.Sequential(conv(bias=False), norm(), nn.ReLU(inplace=True)),
    'in groups': lambda: nn.Sequential(conv(groups=2), norm()),
    'reflected': lambda: nn.Sequential(conv(padding_mode='reflect'), norm()),
    'residual': lambda: Residual(conv(), norm()),
    'no Sequential': lambda: Steps(lambda self, x: self.norm(self.conv(x)) + x, conv=conv(), norm=norm()),
    'in parts': lambda: nn.Sequential(nn.Sequential(conv()), nn.Sequential(norm(), nn.ReLU())),
    'not affine': lambda: nn.Sequential(conv(), nn.BatchNorm2d(4, affine=False)),
    'one under two names': lambda: Steps(
        lambda self, x: self.norm(self.conv(x)), **dict.fromkeys(('conv', 'alias'), conv()), norm=norm()
    ),
}


def computed(network):
    "Batch norms that still compute, in a network's forward pass"
    return sum(
        'forward' not in vars(m)
        for m in network.modules()
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    )


@pytest.mark.parametrize('name', [*ODD, *PLAIN])
def test_a_folded_copy_has_the_outputs_of_the_network_and_leaves_it_unchanged(name, capsys):
    torch.manual_seed(0)
    net, x = (ODD | PLAIN)[name](), torch.randn(2, 4, 6, 6)
    if name == 'norm that stays in training':
        net.train()
    before = {key: t.clone() for key, t in net.state_dict().items()}
    copy = folded(net)
    with torch.no_grad():
        expected = [net.eval()(x), net(x * 2)]
    for found, wanted in zip((copy(x), copy(x * 2)), expected):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    if name != 'norm that stays in training':
        assert equal(before, net.state_dict())
    assert (
        capsys.readouterr().err == ''
        and sum(len(m._forward_pre_hooks) for m in net.modules() if isinstance(m, nn.BatchNorm2d)) == 0
    )
    assert (faster(net, (x,)) is net) == (name in ODD)


@pytest.mark.parametrize('dims', [1, 2, 3])
def test_convolutions_of_any_number_of_dimensions_are_folded(dims):
    kind = getattr(nn, f'Conv{dims}d'), getattr(nn, f'BatchNorm{dims}d')
    net, x = nn.Sequential(conv(kind=kind[0]), norm(kind[1])).eval(), torch.randn(2, 4, *[5] * dims)
    copy = faster(net, (x,))
    assert computed(copy) == 0 and computed(net) == 1
    torch.testing.assert_close(copy(x), net(x), rtol=1e-5, atol=1e-5)


def test_no_batch_norm_of_the_teacher_is_left():
    torch.manual_seed(0)
    net = wide(3)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t in (m.weight, m.bias, m.running_mean, m.running_var):
                t.data.uniform_(0.5, 2)
    before, x = {name: t.clone() for name, t in net.state_dict().items()}, torch.randn(4, 3, 16, 16)
    copy = faster(net.train(), (x,))
    assert computed(copy) == 0 and not copy.training and net.training and equal(before, net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(copy(x), net.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'make,reason',
    [
        (lambda: Steps(own_weight, conv=conv(), norm=norm()), 'with folded batch norms it differs by'),
        (
            lambda: Steps(
                lambda self, x: self.norm(self.conv(x)) + 0 * self.made,
                conv=conv(),
                norm=norm(),
                made=(torch.ones(1, requires_grad=True) * 1),
            ),
            'it cannot be copied',
        ),
        (
            lambda: nn.Sequential(conv(), norm(), nn.Threshold(-1e9, 0), Steps(lambda self, x: x / 0)),
            'its outputs cannot be compared',
        ),
    ],
)
def test_networks_that_cannot_be_folded_are_used_with_one_note(make, reason, capsys):
    torch.manual_seed(0)
    net, x = make().eval(), torch.randn(2, 4, 6, 6)
    assert faster(net, (x,)) is net
    said = capsys.readouterr().err
    assert said.startswith('kdfast: the teacher') and reason in said and said.count('\n') == 1


@pytest.mark.parametrize('layer', ['0', '0.0', '1'])
def test_layers_whose_outputs_are_needed_keep_their_outputs(layer):
    "0.0 is a convolution, 0 ends with it; what its norm gives is the same with both made one"
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Sequential(conv()), norm(), nn.ReLU(inplace=True)).eval(), torch.randn(2, 4, 6, 6)
    copy, given = faster(net, (x,), [layer]), []
    for network in (net, copy):
        hook = network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output: given.append(output.clone())
        )
        network(x)
        hook.remove()
    torch.testing.assert_close(*given, rtol=1e-5, atol=1e-5)
    assert (copy is net) == (layer != '1')


def test_half_precision_weights_are_left_as_they_are():
    net = nn.Sequential(conv(), norm()).to(torch.bfloat16).eval()
    assert faster(net, (torch.randn(2, 4, 6, 6, dtype=torch.bfloat16),)) is net


@pytest.mark.parametrize('device', ['cpu', 'cuda', 'mps'])
def test_copy_and_original_are_compared_without_autocast(device):
    seen, net = [], nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    net[2].register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled(device)))
    torch.set_autocast_enabled(device, True)
    try:
        faster(net, (torch.randn(2, 3, 8, 8),))
    finally:
        torch.set_autocast_enabled(device, False)
    assert seen and not any(seen)
