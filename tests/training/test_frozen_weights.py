"Weights that a network froze when it was built stay frozen in every recipe; where none is left, nothing is trained."

import inspect

import pytest
import torch
from conftest import equal, weights
from fastai.vision.all import CrossEntropyLossFlat, Learner, ProgressCallback, noop, params, set_seed
from torch import nn

import kdfast.distill.hint  # noqa: F401, adds Learner.fit_hint
from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.distill.hint import held_by
from kdfast.models.build import build_network
from kdfast.runs.recipes import find_recipe
from kdfast.training.execute import train
from kdfast.training.learner import RunLearner

NETS = '''
from torch import nn

class Net(nn.Module):
    def __init__(self, n, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.adapter = nn.Conv2d(width, width, 1)
        self.late = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, n)

    def forward(self, x):
        x = self.body(x)
        return self.head(self.late(x + self.adapter(x)).mean((2, 3)))

def teacher(n): return Net(n, 8)

def frozen(n, *names):
    net = Net(n)
    for name in names: net.get_submodule(name).requires_grad_(False)
    return net

def adapted(n): return frozen(n, 'body', 'late.0')
def front(n): return frozen(n, 'body', 'adapter', 'late')
def back(n): return frozen(n, 'head')
def everything(n): return frozen(n, '')
'''
RECIPES = 'baseline kd exp1 exp2 finetune at fitnets crd dist dkd funmatch ls pkt reviewkd rkd sp vid'.split()


@pytest.fixture(scope='module')
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp('frozen')
    (folder / 'nets.py').write_text(NETS)
    return folder


def arguments(folder, recipe, student, pair='late:late'):
    possible = dict(
        student=f'{folder}/nets.py:{student}',
        teacher=f'{folder}/nets.py:teacher',
        teacher_epochs=1,
        hint=pair,
        layers=pair,
        epochs=1,
    )
    own = inspect.signature(find_recipe(recipe).main()).parameters
    return {name: value for name, value in possible.items() if name in own}


def at_first(folder, student):
    set_seed(0)
    net = build_network(f'{folder}/nets.py:{student}', 3)
    return net.state_dict(), {name: p.requires_grad for name, p in net.named_parameters()}


@pytest.mark.parametrize('recipe', RECIPES)
def test_frozen_weights_stay_and_the_others_move(nets, data, recipe):
    pair = 'head:head' if recipe == 'crd' else 'late:late'
    done = train(find_recipe(recipe), data, 0, arguments(nets, recipe, 'adapted', pair), nets / 'runs', rehearsed=True)
    (first, trains), now = at_first(nets, 'adapted'), weights(done.path)
    moved = {name for name in trains if not torch.equal(first[name], now[name])}
    assert moved == {name for name, wanted in trains.items() if wanted}
    if recipe in ('exp1', 'exp2'):
        (stage_one,) = (nets / 'runs' / 'tiny').glob('hint*/0')
        start = weights(stage_one)
        front = {name for name in start if name.startswith(('body', 'adapter', 'late'))}
        same = equal({n: start[n] for n in front}, {n: now[n] for n in front})
        assert same == (recipe == 'exp1') and torch.equal(first['body.0.weight'], start['body.0.weight'])
        assert not torch.equal(first['adapter.weight'], start['adapter.weight'])


REFUSED = [
    ('kd', 'everything', 'Net has no weight to train: all of its 12 weights are frozen'),
    ('teacher', 'everything', 'Net has no weight to train: all of its 12 weights are frozen'),
    ('at', 'everything', 'Net has no weight to train'),
    ('hint', 'front', 'Net has no weight up to its layer late that trains (body.0.weight'),
    ('exp1', 'front', 'Net has no weight up to its layer late that trains'),
    ('exp2', 'front', 'Net has no weight up to its layer late that trains'),
    ('exp1', 'back', 'Net has no weight to train: all of its 12 weights are frozen'),
    ('pretrain', 'front', 'Net has no weight before its classifier that trains'),
]


@pytest.mark.parametrize('recipe,student,said', REFUSED)
def test_a_run_in_which_nothing_would_train_is_refused_before_training(nets, data, recipe, student, said):
    given = arguments(nets, recipe, student)
    if recipe == 'teacher':
        given = dict(network=f'{nets}/nets.py:{student}', epochs=1)
    with pytest.raises(KdfastError) as error:
        train(find_recipe(recipe), data, 0, given, nets / 'refused')
    assert said in error.value.message and not (nets / 'refused').exists()


def plain(data, net, kind=Learner, **kwargs):
    learn = kind(loaders(data), net, CrossEntropyLossFlat(), **kwargs)
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def body_and_head(width=4):
    body = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)))


@pytest.mark.parametrize('train_bn', [True, False])
def test_stage_one_of_a_frozen_learner_is_refused_and_that_of_an_unfrozen_one_trains(data, train_bn):
    "As of vision_learner(pretrained=True), whose front has batch norms that `train_bn` trains"
    net = body_and_head()
    learn = plain(data, net, splitter=lambda net: [params(net[0]), params(net[1])], train_bn=train_bn)
    learn.freeze()
    for width in (4, 8):  # without a regressor, and with one
        with pytest.raises(KdfastError, match=r'no weight up to its layer 0 that trains .* call unfreeze\(\) first'):
            learn.fit_hint(1, body_and_head(width), hint='0', guided='0', lr_max=0.01)
    learn.unfreeze()
    before = net[0][0].weight.detach().clone()
    learn.fit_hint(1, body_and_head(8), hint='0', guided='0', lr_max=0.01)
    assert not torch.equal(before, net[0][0].weight)


def test_a_second_learner_trains_what_the_first_held(data):
    "But not what was frozen before the first"
    net = body_and_head()
    net[0][1].requires_grad_(False)

    def state():
        return [p.requires_grad for p in net.parameters()]

    for _ in range(2):
        learn = plain(data, net, RunLearner, splitter=lambda net: [params(net[0]), params(net[1])])
        learn.unfreeze()
        assert state() == [True, True, False, False, True, True]
        learn.freeze()
        assert state() == [False, False, False, False, True, True]
        assert len(held_by(learn.opt)) == 4
