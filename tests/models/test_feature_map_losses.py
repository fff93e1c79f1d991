"Losses and regressors between networks whose layers have different layouts."

from functools import partial
from pathlib import Path

import pytest
import torch
from fastai.vision.all import SGD, CrossEntropyLossFlat, Learner, ProgressCallback, noop
from layered_networks import SIDE, Tokens, convolutions, tokens
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
from kdfast.models.front import front
from kdfast.models.layers import layers, matching_layers

# Between networks of different layouts


def learner(data, net):
    torch.manual_seed(0)
    learn = Learner(loaders(data), net, CrossEntropyLossFlat(), opt_func=partial(SGD, mom=0.9))
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


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


def test_losses_of_maps_refuse_vectors_and_losses_of_vectors_refuse_maps():
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
from layered_networks import convolutions, tokens
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
    short = '--epochs', 1, '--teacher-epochs', 1, '--lr', 0.001
    done = kdfast('run', recipe, *named, *short, '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 0, done.err
