"Weight gradients from joined images are those of PyTorch, and training steps use them where they are faster."

import copy
import random
from functools import partial

import pytest
import torch
from precision_learners import learner
from torch import nn
from torch.nn.functional import conv2d

from kdfast.training import precision
from kdfast.training.row_gradient import Convolution, convolve, is_faster, weight_gradient


def geometries(n):
    "Convolutions of any kernel, stride, padding and dilation, and images with room for them"
    draw = random.Random(0)
    while n:
        images, channels, height, width = (draw.randint(1, most) for most in (9, 4, 9, 9))
        kernel, stride, padding, dilation = ([draw.randint(low, 3) for _ in range(2)] for low in (1, 1, 0, 1))
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
        if all(side + 2 * p >= r for side, p, r in zip((height, width), padding, reach)):
            n -= 1
            yield (images, channels, height, width), kernel, stride, padding, dilation


@pytest.mark.parametrize('shape, kernel, stride, padding, dilation', list(geometries(200)))
def test_joined_images_have_the_same_weight_gradient(shape, kernel, stride, padding, dilation):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64).to(
        memory_format=torch.channels_last if sum(shape) % 2 else torch.preserve_format
    )
    weight = torch.randn(5, shape[1], *kernel, dtype=torch.float64, requires_grad=True)
    out = conv2d(x, weight, None, stride, padding, dilation)
    of_output = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, weight, of_output)
    torch.testing.assert_close(weight_gradient(of_output, x, weight, stride, padding, dilation), expected)


def test_gradients_of_gradients_are_those_of_pytorch():
    torch.manual_seed(0)
    tensors = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 2, 4, 4), (3, 2, 3, 3), (3,))
    ]
    geometry = (2, 2), (1, 1), (1, 1)
    assert torch.autograd.gradcheck(lambda *t: Convolution.apply(*t, *geometry), tensors)
    assert torch.autograd.gradgradcheck(lambda *t: Convolution.apply(*t, *geometry), tensors)


def small_maps():
    "A network whose second and third convolutions have short rows and many channels"
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1),
        nn.Conv2d(8, 96, 3, 2, 1),
        nn.Conv2d(96, 96, 3, 1, 1),
        nn.Flatten(),
        nn.Linear(96 * 16, 3),
    ).to(memory_format=torch.channels_last)


def test_training_steps_use_them_and_leave_the_network_as_it_was(data, monkeypatch):
    used, apply = [], Convolution.apply
    monkeypatch.setattr(
        Convolution, 'apply', lambda x, weight, *rest: used.append(weight.shape) or apply(x, weight, *rest)
    )
    weights = {}
    for amx in (True, False):
        monkeypatch.setattr(precision, 'has_amx', lambda: amx)
        net = small_maps()
        learner(data, net).fit(1, 0.01)
        assert not any('_conv_forward' in vars(module) for module in net.modules())
        weights[amx] = net.state_dict()
    assert (
        used == [(96, 96, 3, 3)] * 9
    )  # steps, but neither validation nor the others: 8·96 channels are few for 8 pixels
    for name, weight in weights[True].items():
        torch.testing.assert_close(weight, weights[False][name], rtol=0.02, atol=2e-3)


class Sum(nn.Conv2d):
    "A convolution with a forward method of its own"

    def forward(self, x):
        return super().forward(x).sum((2, 3))


@pytest.mark.parametrize(
    'change, faster',
    [
        (dict(), True),
        (dict(bias=False), True),
        (dict(padding=2, dilation=2), True),
        (dict(groups=2), False),
        (dict(kernel_size=1, padding=0), False),
        (dict(padding='same'), False),
        (dict(padding_mode='reflect'), False),
        (dict(out_channels=4), False),
    ],
    ids=str,
)
def test_which_convolutions_are_faster_and_all_are_right(change, faster):
    torch.manual_seed(0)
    conv = Sum(**dict(in_channels=96, out_channels=96, kernel_size=3, padding=1) | change)
    plain, x = copy.deepcopy(conv), torch.randn(6, 96, 4, 4)
    conv._conv_forward = partial(convolve, conv)
    gradients = {}
    for net in (plain, conv):
        with torch.autocast('cpu', torch.bfloat16):
            assert is_faster(net, x, net.weight) == faster
            net(x).float().pow(2).mean().backward()
        gradients[net] = [p.grad for p in net.parameters()]
    for mine, theirs in zip(gradients[conv], gradients[plain]):
        torch.testing.assert_close(mine, theirs, rtol=0.03, atol=0.03 * float(theirs.abs().max()))
    x = torch.randn(96, 4, 4)
    with torch.autocast('cpu', torch.bfloat16):
        assert not is_faster(conv, x, conv.weight)  # a single image
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert not is_faster(conv, x[None], conv.weight)
    assert not is_faster(conv, x[None], conv.weight)  # float32
