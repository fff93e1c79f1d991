"Feature maps of any layout, fronts of generated networks, and hints between convolutions, tokens and windows."

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from conftest import equal
from fastai.vision.all import SGD, CrossEntropyLossFlat, Learner, ProgressCallback, noop
from torch import nn
from torchvision.models import get_model

import kdfast.distill.hint  # noqa: F401, adds Learner.fit_hint
from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.distill.losses.crd import CRD
from kdfast.distill.losses.features import at_loss, hint_loss, sp_loss
from kdfast.distill.losses.regressed import Regressed
from kdfast.distill.losses.review import ReviewKD
from kdfast.distill.losses.vid import VID
from kdfast.distill.match import Match
from kdfast.distill.regressor import regressor
from kdfast.models import positions
from kdfast.models.feature_maps import Layout, layouts
from kdfast.models.front import front
from kdfast.models.layers import layers, matching_layers

SIDE = 32


def layout(net, *names, shape=(2, 3, SIDE, SIDE)):
    "Of layers of a network that sees images of this shape"
    found = layouts(net, {name: net.get_submodule(name) for name in names}, ((torch.zeros(shape),), {}))
    return found[names[0]] if len(names) == 1 else found


class Tokens(nn.Module):
    "A small vision transformer, with tokens of no position in front, behind and between"

    def __init__(
        self, n_classes=3, front=1, behind=0, middle=0, dim=24, patch=8, side=SIDE, depth=2, channels_first=False
    ):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        n = (side // patch) ** 2
        self.more = nn.ParameterList([torch.randn(1, k, dim) for k in (front, middle, behind)])
        self.place, self.side = nn.Parameter(0.1 * torch.randn(1, n, dim)), side
        self.join = nn.Identity()
        self.blocks = nn.Sequential(
            *[nn.TransformerEncoderLayer(dim, 2, 2 * dim, 0.0, batch_first=True, norm_first=True) for _ in range(depth)]
        )
        self.turned = nn.Identity()
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, n_classes)

    def forward(self, x):
        assert x.shape[2:] == (self.side, self.side), f'made for {self.side}×{self.side}'
        x = self.patches(x).flatten(2).mT + self.place
        (front, middle, behind), half = (more.expand(len(x), -1, -1) for more in self.more), x.shape[1] // 2
        x = self.blocks(self.join(torch.cat([front, x[:, :half], middle, x[:, half:], behind], 1)))
        self.turned(x.mT)
        return self.head(self.norm(x).mean(1))


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


def test_looking_leaves_no_trace():
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


def test_the_values_stay_what_they_are():
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


# Between networks of different layouts


def learner(data, net):
    torch.manual_seed(0)
    learn = Learner(loaders(data), net, CrossEntropyLossFlat(), opt_func=partial(SGD, mom=0.9))
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def convolutions(n_classes=3):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, 1, 1),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, n_classes),
    )


def tokens(n_classes=3):
    return Tokens(n_classes, patch=4, side=8, depth=1, dim=16)


def maps(net, layer, x):
    "What a layer of one of the networks above gives, arranged by hand"
    seen = []
    hook = net.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        net.eval()(x)
    hook.remove()
    return seen[0] if seen[0].dim() == 4 else seen[0][:, 1:].mT.unflatten(2, (2, 2))


PAIRS = [(tokens, 'blocks.0', convolutions, '2'), (convolutions, '2', tokens, 'blocks.0')]


@pytest.mark.parametrize('teacher,hint,student,guided', PAIRS)
def test_losses_of_features_see_maps_of_both(data, teacher, hint, student, guided):
    torch.manual_seed(1)
    net, learn, seen = teacher(), learner(data, student()), []

    def loss(guided, hint):
        copy = student()
        copy.load_state_dict(learn.model.state_dict())
        seen.append((guided.detach().clone(), hint.clone(), learn.xb[0].clone(), copy))
        return guided.mean()

    learn.fit(1, 0.01, cbs=Match(net, loss, 1.0, f'{hint}:{guided}'))
    for shown, target, x, model in seen[:3]:
        torch.testing.assert_close(target, maps(net, hint, x))
        torch.testing.assert_close(shown, maps(model, guided, x))  # no batch norm before the layer


@pytest.mark.parametrize('teacher,hint,student,guided', PAIRS)
def test_every_loss_trains_between_them(data, teacher, hint, student, guided):
    torch.manual_seed(1)
    net, channels = teacher(), {tokens: 16, convolutions: 8}
    g, h = channels[student], channels[teacher]
    x = torch.randn(2, 3, 8, 8)
    matrix = regressor(front(student(), guided), front(net, hint), x)
    for loss in (at_loss, sp_loss, VID(g, h), ReviewKD([g], [h]), Regressed(matrix)):
        learn = learner(data, student())
        learn.fit(1, 0.01, cbs=Match(net, loss, 0.1, f'{hint}:{guided}'))
        assert torch.isfinite(torch.tensor(learn.recorder.values[-1])).all()
    learn = learner(data, student())
    stage_one = learn.fit_hint(2, net, hint, guided, lr_max=0.05)
    assert stage_one.recorder.values[-1][0] < stage_one.recorder.values[0][0]
    learn.freeze()
    learn.fit(1, 0.01)


def test_a_regressor_goes_both_ways_between_sizes_and_kinds():
    "Shrunk by a valid convolution as in the paper, or enlarged, which has the gradient of a hint that was averaged"
    x, wide, small = torch.randn(2, 3, 16, 16), nn.Conv2d(3, 4, 2, 2), nn.Conv2d(3, 5, 4, 4)
    shrinks, grows = regressor(wide, small, x), regressor(small, wide, x)
    assert shrinks.kernel_size == (5, 5) and shrinks(wide(x)).shape == small(x).shape
    assert grows[0].kernel_size == (1, 1) and grows(small(x)).shape == wide(x).shape
    averaged = hint_loss(grows[0](small(x)), nn.functional.avg_pool2d(wide(x).detach(), 2))
    for ours, expected in zip(
        torch.autograd.grad(hint_loss(grows(small(x)), wide(x).detach()), grows.parameters()),
        torch.autograd.grad(averaged, grows.parameters()),
    ):
        torch.testing.assert_close(ours, expected)
    vectors = nn.Sequential(nn.Flatten(), nn.Linear(768, 7)), nn.Sequential(nn.Flatten(), nn.Linear(768, 9))
    assert regressor(*vectors, x)(vectors[0](x)).shape == (2, 9)
    with pytest.raises(KdfastError, match='features 7 to a hint 4×8×8: a vector has no positions'):
        regressor(vectors[0], wide, x)
    with pytest.raises(KdfastError, match='features 5×1×1 to a hint 4×8×8: one position'):
        regressor(nn.Conv2d(3, 5, 16), wide, x)


def test_layers_of_tokens_and_convolutions_pair_by_height_and_width():
    listed = layers(tokens(), 8)
    assert [
        (layer.name, layer.shape, layer.layout) for layer in listed if layer.name in ('patches', 'blocks', 'turned')
    ] == [
        ('patches', (16, 2, 2), 'N×C×H×W'),
        ('blocks', (16, 2, 2), '4 of 5 tokens'),
        ('turned', (16, 2, 2), '4 of 5 tokens'),
    ]
    assert [
        (h.name, g.name) for h, g in matching_layers(layers(Tokens(), SIDE), layers(get_model('resnet18'), SIDE * 2))
    ] == [('norm', 'layer3')]


def test_a_loss_is_told_apart_from_what_it_was_not_made_for():
    with pytest.raises(KdfastError, match=r'found \(2, 17, 24\)'):
        VID(17, 24)(torch.randn(2, 17, 24), torch.randn(2, 24, 4, 4))
    with pytest.raises(KdfastError, match='batch, 8, height, width'):
        ReviewKD([8], [4])([torch.randn(2, 6, 4, 4)], [torch.randn(2, 4, 4, 4)])
    with pytest.raises(KdfastError, match='compares feature maps'):
        at_loss(torch.randn(2, 17, 24), torch.randn(2, 24, 4, 4))
    with pytest.raises(KdfastError, match='CRD expects features of size 8'):
        CRD(8, 8, labels=[0, 1])(torch.randn(2, 8, 4, 4), torch.randn(2, 8), torch.arange(2))


def test_match_refuses_what_is_no_map_unless_the_loss_takes_it_raw(data):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls, self.body, self.rows = nn.Identity(), tokens(), nn.Identity()

        def forward(self, x):
            weights = self.rows(self.body.patches(x).flatten(2).softmax(1).mT @ self.body.patches(x).flatten(2))
            return self.body(x) + 0 * weights.mean()

    def loss(guided, hint):
        return guided.mean()

    with pytest.raises(KdfastError, match='layer rows gives 4×4 for an image, and its rows and columns cannot'):
        learner(data, Pooled()).fit(1, 0.01, cbs=Match(Pooled(), loss, 1.0, 'rows:rows'))
    loss.raw = True
    learner(data, Pooled()).fit(1, 0.01, cbs=Match(Pooled(), loss, 1.0, 'rows:rows'))


NETS = '''from torch import nn
from test_feature_maps import convolutions, tokens
def vit(n): return tokens(n)
def cnn(n): return convolutions(n)
'''


@pytest.mark.parametrize(
    'recipe,options',
    [
        ('hint', ('--teacher', 'vit', '--student', 'cnn', '--hint', 'blocks.0:2')),
        ('hint', ('--teacher', 'cnn', '--student', 'vit', '--hint', '2:blocks.0')),
        ('reviewkd', ('--teacher', 'vit', '--student', 'cnn', '--layers', 'patches:0,norm:2')),
        ('vid', ('--teacher', 'cnn', '--student', 'vit', '--hint', '2:norm')),
        ('fitnets', ('--teacher', 'cnn', '--student', 'vit', '--hint', '0:blocks.0')),
    ],
)
def test_recipes_of_features_run_between_them(kdfast, images, tmp_path, monkeypatch, recipe, options):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (tmp_path / 'nets.py').write_text(NETS)
    named = [f'{tmp_path}/nets.py:{word}' if word in ('vit', 'cnn') else word for word in options]
    done = kdfast('run', recipe, *named, '--epochs', 1, '--lr', 0.001, '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 0, done.err
