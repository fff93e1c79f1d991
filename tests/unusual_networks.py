"Unusual networks: each is trained, saved and loaded with equal logits, or rejected with the message beside it."

import random
from collections import namedtuple

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm


def head(n_in, n):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n))


def conv(n_in=3, n_out=8):
    return nn.Conv2d(n_in, n_out, 3, 2, 1)


class Net(nn.Module):
    "conv, and what is between it and the head"

    def __init__(self, n):
        super().__init__()
        self.start, self.end = conv(), head(8, n)

    def between(self, x):
        return x

    def forward(self, x):
        return self.end(self.between(self.start(x).relu()))


def plain(n):
    return Net(n)


# Tied, and odd tensors


class Shared(Net):
    def __init__(self, n):
        super().__init__(n)
        self.block = nn.Conv2d(8, 8, 3, 1, 1)
        self.again = self.block

    def between(self, x):
        return self.again(self.block(x).relu())


class Tied(Net):
    "One parameter in two modules; a buffer that is a view of it, and one that is a part of it"

    def __init__(self, n):
        super().__init__(n)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight
        self.register_buffer('turned', self.a.weight.detach().t())
        self.register_buffer('part', self.a.weight.detach()[2:4])

    def between(self, x):
        return self.b(self.a(x.movedim(1, -1)).relu()).movedim(-1, 1)


class Odd(Net):
    "Buffers of every kind that there is"

    def __init__(self, n):
        super().__init__(n)
        self.register_buffer('none', None)
        self.scale = nn.Parameter(torch.tensor(2.0))
        for name, value in dict(
            steps=torch.tensor(3),
            mask=torch.arange(8) % 2 == 0,
            no=torch.zeros(0, 3),
            order=torch.arange(8).flip(0),
            low=torch.ones(8).half(),
            wave=torch.polar(torch.ones(8), torch.arange(8.0)),
            turned=torch.arange(8.0).view(2, 4).t(),
            thin=torch.ones(1, 8, 1, 1).expand(1, 8, 4, 4),
            brain=torch.ones(8).bfloat16(),
            many=torch.ones(8, dtype=torch.float64),
        ).items():
            self.register_buffer(name, value)
        self.register_buffer('secret', torch.ones(3), persistent=False)

    def between(self, x):
        return (x * self.scale)[:, self.order] * (
            self.mask.float() * self.low.float() * self.brain.float() * self.wave.real
        ).view(1, 8, 1, 1)


class Turned(Net):
    "Weights that are not contiguous"

    def __init__(self, n):
        super().__init__(n)
        self.weight = nn.Parameter(torch.randn(8, 8).t())
        self.to(memory_format=torch.channels_last)

    def between(self, x):
        return torch.einsum('nchw,dc->ndhw', x, self.weight)


class Wave(Net):
    "A complex parameter"

    def __init__(self, n):
        super().__init__(n)
        self.wave = nn.Parameter(torch.randn(8, dtype=torch.complex64))

    def between(self, x):
        return x * self.wave.abs().view(1, 8, 1, 1)


def shared(n):
    return Shared(n)


def tied(n):
    return Tied(n)


def odd(n):
    return Odd(n)


def turned(n):
    return Turned(n)


def wave(n):
    return Wave(n)


class Volume(Net):
    "Has weights of five dimensions, which cannot be ordered channels-last"

    def __init__(self, n):
        super().__init__(n)
        self.mix = nn.Conv3d(1, 2, 3, padding=1)

    def between(self, x):
        return self.mix(x.unsqueeze(1)).mean(1)


def volume(n):
    return Volume(n)


# Lazy


def lazy(n):
    return nn.Sequential(nn.LazyConv2d(8, 3, 2, 1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(n))


# Reparametrised


def with_conv(n, change, **kwargs):
    net = Net(n)
    net.extra = nn.Conv2d(8, 8, 3, 1, 1)
    change(net.extra, **kwargs)
    net.between = net.extra.__call__
    return net


class Extra(Net):
    def __init__(self, n, change):
        super().__init__(n)
        self.extra = nn.Conv2d(8, 8, 3, 1, 1)
        change(self.extra)

    def between(self, x):
        return self.extra(x)


class Symmetric(nn.Module):
    def forward(self, w):
        return w + w.transpose(2, 3)


def old_weight_norm(n):
    return Extra(n, weight_norm)


def old_spectral_norm(n):
    return Extra(n, spectral_norm)


def new_weight_norm(n):
    return Extra(n, parametrizations.weight_norm)


def new_spectral_norm(n):
    return Extra(n, parametrizations.spectral_norm)


def parametrized(n):
    return Extra(n, lambda m: parametrize.register_parametrization(m, 'weight', Symmetric()))


def pruned(n):
    return Extra(n, lambda m: prune.l1_unstructured(m, 'weight', 0.5))


# State that is more than tensors


class Versioned(Net):
    _version = 3

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get('version') != 3:
            raise ValueError('of another version')
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


class Counting(Net):
    "Extra state in plain values"

    steps = 0

    def get_extra_state(self):
        return dict(steps=self.steps, name='it', parts=[1, None, 0.5])

    def set_extra_state(self, state):
        self.steps = state['steps']

    def between(self, x):
        self.steps += self.training
        return x * (1 + self.steps)


class Holding(Net):
    "Extra state that is a tensor"

    def __init__(self, n):
        super().__init__(n)
        self.value = torch.rand(8)

    def get_extra_state(self):
        return self.value

    def set_extra_state(self, state):
        self.value = state

    def between(self, x):
        return x * self.value.view(1, 8, 1, 1)


class Pickled(Net):
    "Extra state that only pickle could keep"

    def get_extra_state(self):
        return {1, 2}

    def set_extra_state(self, state):
        pass


def versioned(n):
    return Versioned(n)


def counting(n):
    return Counting(n)


def holding(n):
    return Holding(n)


def pickled(n):
    return Pickled(n)  # refused: of its state holds a set, which cannot be saved


def scripted(n):
    return torch.jit.script(Net(n))  # refused: could be trained, but not saved: it is of TorchScript


def traced(n):
    return torch.jit.trace(Net(n).eval(), torch.rand(2, 3, 8, 8))  # refused: not saved: it is of TorchScript


def with_a_traced_part(n):
    net = Net(n)
    net.start = torch.jit.trace(net.start, torch.rand(2, 3, 8, 8))
    return net  # refused: not saved: it is of TorchScript


# State that is nowhere


class Outside(Net):
    "A random tensor that is no buffer"

    def __init__(self, n):
        super().__init__(n)
        self.mix = torch.randn(8, 8)

    def between(self, x):
        return torch.einsum('nchw,dc->ndhw', x, self.mix)


class Constant(Net):
    "One that is the same each time"

    def __init__(self, n):
        super().__init__(n)
        self.mix = torch.linspace(0, 1, 8).view(1, 8, 1, 1)

    def between(self, x):
        return x * self.mix


class Listed(Net):
    "Modules in a plain list"

    def __init__(self, n):
        super().__init__(n)
        self.blocks = [nn.Conv2d(8, 8, 3, 1, 1) for _ in range(2)]

    def between(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Running(Net):
    "Statistics that training moves, as an attribute"

    mean = 0.0

    def between(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean().item()
        return x - self.mean


class Untold(Net):
    "A buffer that is not persistent, and random"

    def __init__(self, n):
        super().__init__(n)
        self.register_buffer('mix', torch.randn(8, 1, 1), persistent=False)

    def between(self, x):
        return x * self.mix


class Forgetful(Net):
    "A state dict without one of its weights, which cannot be loaded"

    def state_dict(self, *args, **kwargs):
        state = super().state_dict(*args, **kwargs)
        state.pop('start.weight', None)
        return state


class Widths(nn.Sequential):
    "Another network each time"

    def __init__(self, n):
        width = random.randrange(8, 1000)
        super().__init__(conv(3, width), head(width, n))


class Frozen(Net):
    "A parameter that memory holds once and shapes many times"

    def __init__(self, n):
        super().__init__(n)
        self.scale = nn.Parameter(torch.ones(1).expand(8))

    def between(self, x):
        return x * self.scale.view(1, 8, 1, 1)


class Sparse(Net):
    def __init__(self, n):
        super().__init__(n)
        self.register_buffer('eye', torch.eye(8).to_sparse())


class Precise(Net):
    def __init__(self, n):
        super().__init__(n)
        self.register_buffer('wave', torch.ones(8, dtype=torch.complex128))


def outside(n):
    return Outside(n)  # refused: has different outputs after it is saved and loaded


def constant(n):
    return Constant(n)


def listed(n):
    return Listed(n)  # refused: has different outputs after it is saved and loaded


def running(n):
    return Running(n)  # refused: has different outputs after it is saved and loaded


def untold(n):
    return Untold(n)  # refused: has different outputs after it is saved and loaded


def forgetful(n):
    return Forgetful(n)  # refused: but not loaded: Missing key


def widths(n):
    return Widths(n)  # refused: but not loaded: size mismatch


def frozen(n):
    return Frozen(n)  # refused: cannot be trained: scale cannot be changed


def sparse(n):
    return Sparse(n)  # refused: eye of its state is a torch.sparse_coo tensor


def precise(n):
    return Precise(n)  # refused: its state holds tensors of torch.complex128


# Random


class Always(Net):
    "Dropout in evaluation, too"

    def between(self, x):
        return nn.functional.dropout(x, 0.5)


class Depth(Net):
    "Stochastic depth"

    def __init__(self, n):
        super().__init__(n)
        self.extra = nn.Conv2d(8, 8, 3, 1, 1)

    def between(self, x):
        return x if self.training and torch.rand(()) < 0.5 else x + self.extra(x)


def always(n):
    return Always(n)


def depth(n):
    return Depth(n)


# Wrapped


def parallel(n):
    return nn.DataParallel(Net(n))


def compiled(n):
    return torch.compile(Net(n))


def compiled_inside(n):
    net = Net(n)
    net.start = torch.compile(net.start)
    return net


def compiled_in_place(n):
    net = Net(n)
    net.compile()
    return net


class Learner:
    def __init__(self, model):
        self.model = model


def learner(n):
    return Learner(Net(n))


class Copied(Net):
    def __deepcopy__(self, memo):
        raise RuntimeError('no copies')


def copied(n):
    return Copied(n)


# Quantization stubs


class Stubs(Net):
    def __init__(self, n):
        super().__init__(n)
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()

    def forward(self, x):
        return self.dequant(super().forward(self.quant(x)))


def stubs(n):
    return Stubs(n)


# Outputs

Both = namedtuple('Both', 'logits aux')


class Gives(Net):
    def __init__(self, n, what):
        super().__init__(n)
        self.what = what

    def forward(self, x):
        return self.what(super().forward(x), self)


def tuples(n):
    return Gives(n, lambda y, net: (y, y))  # refused: gives tuple for two images, expected 2×2


def named(n):
    return Gives(
        n, lambda y, net: Both(y, y) if net.training else y
    )  # refused: gives Both for two images, expected 2×2


def dictionary(n):
    return Gives(n, lambda y, net: dict(logits=y) if net.training else y)  # refused: let its forward return them alone


def one(n):
    return Net(1)  # refused: gives 2×1 for two images, expected 2×2


def squeezed(n):
    return Gives(n, lambda y, net: y.squeeze())  # refused: gives 2 for one image, expected 1×2


def integers(n):
    return Gives(n, lambda y, net: y.long())  # refused: gives


# What raises


def key(n):
    return dict(a=1)['b']  # refused: KeyError: 'b' (unusual_networks.py, line


def attribute(n):
    return n.no_such  # refused: AttributeError: 'int' object has no attribute 'no_such' (unusual_networks.py, line


def leaves(n):
    raise SystemExit(3)  # refused: SystemExit: 3 (unusual_networks.py, line


def grey(n):
    return nn.Sequential(
        conv(1, 8), head(8, n)
    )  # refused: takes images of 1 channel, expected 3 channels (red, green, blue)


def no_memory(n):
    raise MemoryError  # refused: MemoryError


def not_one(n):
    return None  # refused: gave NoneType, expected an nn.Module


def needs_more(n, width):
    return Net(n)  # refused: missing 1 required positional argument: 'width'


def large(n):
    return nn.Sequential(nn.Conv2d(3, 8, 64), head(8, n))  # refused: cannot process images of 8×8
