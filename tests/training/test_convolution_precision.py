"Training steps compute convolutions some of whose weights see nothing but padding in float32."

from functools import partial

import pytest
import torch
from fastai.vision.all import Callback
from precision_learners import CPU, learner
from torch.nn.functional import conv2d

from kdfast.training import precision
from kdfast.training.precision import sees_padding_alone

SIDES = (1, 1), (2, 2), (3, 3), (4, 1), (1, 4), (5, 5), (8, 8)


KERNELS = (
    (1, 1, 0),
    (1, 2, 0),
    (2, 2, 1),
    (3, 1, 1),
    (3, 2, 1),
    (3, 3, 1),
    (4, 4, 2),
    (5, 1, 2),
    (5, 2, 2),
    (7, 2, 3),
    (3, 1, 'same'),
)  # and stride, and padding


def convolutions():
    "Some of each kind, and an image for each of them"
    for side in SIDES:
        for kernel, stride, padding in KERNELS:
            with_room = padding == 'same' or min(side) + 2 * padding >= kernel
            if with_room:
                yield torch.nn.Conv2d(8, 4, kernel, stride, padding, bias=False), torch.randn(2, 8, *side)


def test_which_convolutions_have_weights_that_see_padding_alone():
    "Their gradient is zero for any image"
    for conv, x in convolutions():
        conv(x).pow(2).sum().backward()
        unseen = (conv.weight.grad.abs().sum((0, 1)) == 0).any()
        assert sees_padding_alone(conv, x.shape[2:]) or not unseen, (conv, x.shape)
        if conv.padding != 'same':
            assert sees_padding_alone(conv, x.shape[2:]) == unseen, (conv, x.shape)


def test_convolutions_with_weights_that_see_padding_alone_leave_bfloat16(data):
    "oneDNN would leave the gradients of such weights as memory was"
    seen = {}

    def note(name):
        return lambda conv, inputs, out: seen.update({(name, conv.training): out.dtype})

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 4, 1),
        torch.nn.BatchNorm2d(8),
        torch.nn.Conv2d(8, 8, 3, 2, 1),
        torch.nn.Conv2d(8, 8, 3, 2, 1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    learn = learner(data, net)  # sides of 8, 2, 1 and 1

    class Look(Callback):
        order = 6

        def before_fit(self):
            for name in (0, 2, 3, 5):
                net[name].register_forward_hook(note(name))

        def before_step(self):
            assert not net[3].weight.grad[:, :, 0].any() and net[3].weight.grad[:, :, 1, 1].any()

    learn.fit(1, 0.01, cbs=Look())
    half, whole = torch.bfloat16, torch.float32
    assert [seen[name, True] for name in (0, 2, 3, 5)] == [half, whole, whole, half]
    assert {seen[name, False] for name in (0, 2, 3, 5)} == {half}  # validation needs no gradients
    assert not net[3]._forward_pre_hooks and '_conv_forward' not in vars(net[3])


class Scaled(torch.nn.Conv2d):
    "A convolution with products of its own"

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, 2 * weight, bias)


class Direct(torch.nn.Conv2d):
    "A convolution that calls PyTorch's function"

    def forward(self, x):
        return 2 * conv2d(x, self.weight, None, self.stride, self.padding)


def given_products(*args):
    "A convolution whose products were replaced in the object"
    conv = torch.nn.Conv2d(*args, bias=False)
    conv._conv_forward = lambda x, weight, bias: 2 * conv2d(x, weight, bias, conv.stride, conv.padding)
    return conv


def given_forward(*args):
    "A convolution whose method was replaced in the object"
    conv = torch.nn.Conv2d(*args, bias=False)
    conv.forward = lambda x: 2 * conv2d(x, conv.weight, None, conv.stride, conv.padding)
    return conv


def weighted(*args):
    "A convolution whose weight is computed from another one"
    conv = torch.nn.Conv2d(*args, bias=False)
    torch.nn.utils.parametrize.register_parametrization(conv, 'weight', Double())
    return conv


class Double(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize('amx', [True, False])
@pytest.mark.parametrize('kind', [partial(Scaled, bias=False), Direct, given_products, given_forward, weighted])
def test_convolutions_with_methods_of_their_own_keep_them(data, kind, amx, monkeypatch):
    "All double their output; one has short rows and many channels, the other weights that see nothing but padding"
    monkeypatch.setattr(precision, 'has_amx', lambda: amx)
    torch.manual_seed(0)
    convolutions = [kind(96, 96, 3, 1, 1), kind(96, 8, 3, 8, 1)]
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 96, 3, 4, 1), *convolutions, torch.nn.Flatten(), torch.nn.Linear(8, 3))
    own = [dict(vars(conv)) for conv in convolutions]

    class Look(Callback):
        order = 6

        def after_pred(self):
            if not self.training:
                return
            x = expected = net[0](self.x)
            for conv in convolutions:
                expected = 2 * conv2d(expected, base(conv), None, conv.stride, conv.padding)
                x = conv(x)
            torch.testing.assert_close(x.float(), expected.float(), rtol=0.05, atol=0.01)
            self.seen = True

        def before_step(self):
            assert not base(convolutions[1]).grad[:, :, 0].any() and base(convolutions[1]).grad[:, :, 1, 1].any()

    look = Look()
    learner(data, net).fit(1, 0.01, cbs=look)
    assert look.seen
    for conv, before in zip(convolutions, own):
        assert not conv._forward_pre_hooks and vars(conv).keys() == before.keys()
        assert all(vars(conv)[name] is before[name] for name in ('_conv_forward', 'forward') if name in before)


def base(conv):
    "The weight before it is doubled"
    return conv.parametrizations.weight.original if hasattr(conv, 'parametrizations') else conv.weight


def test_a_convolution_takes_one_image_by_keyword(data):
    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = (
                torch.nn.Conv2d(3, 4, 3, 8, 1),
                torch.nn.Conv2d(4, 4, 3, 2, 1),
                torch.nn.Linear(4, 3),
            )

        def forward(self, x):
            return self.last(torch.stack([self.second(input=self.first(one)) for one in x]).flatten(1))

    net, seen = Named(), set()
    net.second.register_forward_hook(lambda conv, inputs, out: seen.add((conv.training, out.dtype)))
    learner(data, net).fit(1, 0.01)
    assert seen == {(True, torch.float32), (False, torch.bfloat16)} and not torch.is_autocast_enabled(CPU)
