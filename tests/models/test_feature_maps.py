"Layers of any layout become feature maps (images, channels, height, width)."

import pytest
import timm
import torch
from conftest import equal
from layered_networks import SIDE, Tokens
from torch import nn
from torchvision.models import get_model

import kdfast.distill.hint  # noqa: F401, adds Learner.fit_hint
from kdfast.core.errors import KdfastError
from kdfast.models import positions
from kdfast.models.feature_maps import Layout, layouts
from kdfast.models.front import front
from kdfast.models.layers import layers


def layout(net, *names, shape=(2, 3, SIDE, SIDE)):
    "Of layers of a network that sees images of this shape"
    found = layouts(net, {name: net.get_submodule(name) for name in names}, ((torch.zeros(shape),), {}))
    return found[names[0]] if len(names) == 1 else found


class Last(nn.Module):
    "Convolutions that go on with channels last, as Swin does, one size of images alone where asked"

    def __init__(self, n_classes=3, dim=16, side=None, order=(0, 2, 3, 1)):
        super().__init__()
        self.stem, self.order, self.side = nn.Conv2d(3, dim, 4, 2, 1), order, side
        self.last, self.mlp = nn.Identity(), nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.head = nn.Linear(dim, n_classes)

    def forward(self, x):
        assert self.side in (None, x.shape[2])
        x = self.last(self.stem(x).permute(self.order))
        x = x + self.mlp(x) if self.order[-1] == 1 else x
        return self.head(x.permute([self.order.index(axis) for axis in range(4)]).mean((2, 3)))


# What a layer gives


@pytest.mark.parametrize('side', [None, SIDE])
@pytest.mark.parametrize('order,axes', [((0, 1, 2, 3), 'NCHW'), ((0, 2, 3, 1), 'NHWC'), ((0, 2, 1, 3), 'NHCW')])
def test_a_layer_of_as_many_channels_as_rows_and_columns_is_told_by_what_it_does(side, order, axes):
    "16×16×16, whether the network takes other sizes or not"
    found = layout(Last(side=side, order=order), 'stem', 'last')
    assert found['stem'] == Layout('NCHW') and found['last'] == Layout(axes)


@pytest.mark.parametrize(
    'shape,axes',
    [
        ((2, 1, 7, 7), ['NCHW']),  # of an attention over positions
        ((2, 7, 7, 1), ['NHWC']),
        ((2, 7, 1, 7), ['NHCW']),
        ((2, 49, 7, 7), ['NCHW']),
        ((2, 64, 7, 1), ['NCHW', 'NHWC', 'NHCW']),  # a strip
        ((2, 7, 7, 7), ['NCHW', 'NHWC', 'NHCW']),
    ],
)
def test_a_map_whose_sides_are_in_proportion_to_the_image_goes_first(shape, axes):
    "A map of one channel was taken for a row of as many channels as it had rows"
    assert positions.proportional(['NCHW', 'NHWC', 'NHCW'], shape, (224, 224)) == axes


def test_columns_before_rows_are_told_where_sizes_tell():
    assert layout(Last(order=(0, 3, 2, 1)), 'last') == Layout('NWHC') and layout(
        Last(order=(0, 1, 3, 2)), 'last'
    ) == Layout('NCWH')


@pytest.mark.parametrize('more,prefix', [((0, 0), 0), ((1, 0), 1), ((2, 0), 2), ((5, 0), 5), ((0, 1), 0), ((1, 4), 1)])
def test_tokens_without_a_position_are_told_from_the_others(more, prefix):
    "25 tokens are 5×5, 4×4 next to 9, or …"
    torch.manual_seed(0)
    net = Tokens(front=more[0], behind=more[1])
    found = layout(net, 'patches', 'join', 'blocks.0', 'blocks', 'turned', 'norm', 'head')
    tokens = Layout('NTC', (4, 4), prefix)
    assert found == dict(
        patches=Layout('NCHW'),
        join=tokens,
        blocks=tokens,
        norm=tokens,
        head=Layout('NC'),
        turned=Layout('NCT', (4, 4), prefix),
    ) | {'blocks.0': tokens}


@pytest.mark.parametrize('seed', range(4))
def test_tokens_are_told_apart_when_attention_has_become_sharp(seed):
    "A class token that looks at one place changes like a token of that place"
    torch.manual_seed(seed)
    net = Tokens(front=1)
    for block in net.blocks:
        block.self_attn.in_proj_weight.data[: 2 * 24] *= 12  # queries and keys
    before = {name: value.clone() for name, value in net.state_dict().items()}
    tokens = Layout('NTC', (4, 4), 1)
    assert layout(net, 'blocks.0', 'blocks', 'norm') == {'blocks.0': tokens, 'blocks': tokens, 'norm': tokens}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_tokens_in_another_order_or_with_some_between_are_refused():
    torch.manual_seed(0)
    assert isinstance(layout(Tokens(front=0, middle=1), 'blocks'), KdfastError)
    unrolled = timm.create_model('hiera_tiny_224', img_size=64, embed_dim=24, num_heads=1)
    found = layout(unrolled, 'patch_embed', 'blocks.0', 'blocks.3', shape=(2, 3, 64, 64))
    assert found['patch_embed'] == Layout('NTC', (16, 16)) and all(
        isinstance(found[name], KdfastError) for name in ('blocks.0', 'blocks.3')
    )


@pytest.mark.parametrize('sides', [(64, 32), (32, 96)])
def test_tokens_of_images_that_are_no_squares(sides):
    net = timm.create_model('vit_tiny_patch16_224', img_size=sides, patch_size=8, depth=2, embed_dim=48, num_heads=2)
    grid = sides[0] // 8, sides[1] // 8
    assert layout(net, 'blocks.1', shape=(2, 3, *sides)) == Layout('NTC', grid, 1)
    assert layout(
        timm.create_model('vit_tiny_patch16_224', img_size=32, patch_size=(8, 4), depth=1, embed_dim=48, num_heads=2),
        'blocks.0',
    ) == Layout('NTC', (4, 8), 1)


class Odd(nn.Module):
    "Gives everything that is no feature map"

    def __init__(self):
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 8, 4, 4), nn.ReLU()
        for name in ('windows', 'weights', 'five', 'pooled', 'scalar', 'unused', 'head'):
            setattr(self, name, nn.Identity())
        self.pair = nn.Module()
        self.pair.forward = lambda x: (x, x)

    def forward(self, x):
        x = self.again(self.again(self.conv(x)))
        self.windows(x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).flatten(0, 2))
        tokens = x.flatten(2).mT
        self.weights((tokens[:, None] @ tokens[:, None].mT).softmax(3).expand(-1, 2, -1, -1))
        self.five(x[:, :, None]), self.scalar(x.mean()), self.pair(x)
        return self.head(self.pooled(x.mean((2, 3))))


@pytest.mark.parametrize(
    'layer,said',
    [
        ('windows', 'windows.* gives 8×4×4×8 for 2 images'),
        ('weights', 'gives 2×64×64 for an image, and its rows and columns cannot be identified'),
        ('five', '8×1×8×8 for an image, neither a feature map nor a vector'),
        ('pair', 'pair gives tuple'),
        ('unused', 'does not compute its layer unused'),
        ('again', 'computes its layer again 2 times'),
        ('scalar', 'scalar'),
    ],
)
def test_what_is_no_feature_map_is_refused_in_words(layer, said):
    net = Odd()
    with pytest.raises(KdfastError, match=said):
        front(net, layer)(torch.randn(2, 3, SIDE, SIDE))
    assert [layer.name for layer in layers(net, SIDE)] == ['conv']
    assert layout(net, 'pooled') == Layout('NC')


def test_finding_layouts_changes_nothing():
    "Of modes, weights, random states and hooks"
    net = get_model('resnet18', num_classes=3).train()
    net.layer1.eval()
    before, modes = {name: t.clone() for name, t in net.state_dict().items()}, [m.training for m in net.modules()]
    random = torch.get_rng_state()
    layout(net, 'layer2', 'fc')
    assert (
        equal(before, net.state_dict())
        and modes == [m.training for m in net.modules()]
        and torch.equal(random, torch.get_rng_state())
    )
    assert not any(m._forward_hooks for m in net.modules())


def test_feature_maps_have_the_values_of_the_layers():
    x, tokens = torch.randn(2, 4, 3, 3), torch.arange(14.0).view(1, 7, 2)
    assert Layout('NCHW').arrange(x) is x
    assert torch.equal(Layout('NHWC').arrange(x.permute(0, 2, 3, 1)), x) and torch.equal(
        Layout('NWHC').arrange(x.permute(0, 3, 2, 1)), x
    )
    assert torch.equal(
        Layout('NTC', (2, 3), 1).arrange(tokens), torch.tensor([[[[2.0, 4, 6], [8, 10, 12]], [[3, 5, 7], [9, 11, 13]]]])
    )
    assert torch.equal(Layout('NCT', (3, 3)).arrange(x.flatten(2)), x) and Layout('NC').arrange(
        x[:, :, 0, 0]
    ).shape == (2, 4)
