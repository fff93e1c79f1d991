"A frozen front ends with the bits that it began with, whatever kinds of modules it has; what is behind it moves."

from collections import OrderedDict
from functools import partial

import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    SGD,
    Adam,
    Callback,
    CrossEntropyLossFlat,
    DataLoaders,
    Learner,
    OptimWrapper,
    ProgressCallback,
    noop,
    ranger,
)
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import kdfast.distill.hint  # noqa: F401, adds Learner.fit_hint
from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.distill.freeze import FreezeNorm
from kdfast.distill.losses.features import at_loss
from kdfast.distill.match import Match
from kdfast.models.front import front_back
from kdfast.training.distributed_run import synchronize_norms
from kdfast.training.optimizers.muon import Muon


class OwnNorm(nn.Module):
    "A norm that PyTorch knows nothing of"

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.register_buffer('average', torch.ones(1))

    def forward(self, x):
        if self.training:
            self.average.lerp_(x.detach().square().mean(), 0.1)
        return self.scale * x / self.average.sqrt()


class Counts(nn.Module):
    "No parameter, and nothing that is a floating-point number"

    def __init__(self, channels):
        super().__init__()
        self.register_buffer('times', torch.tensor(0))

    def forward(self, x):
        if self.training:
            self.times += 1
        return x


NORMS = dict(
    batch=nn.BatchNorm2d,
    without_parameters=partial(nn.BatchNorm2d, affine=False),
    synchronized=nn.SyncBatchNorm,
    instance=partial(nn.InstanceNorm2d, track_running_stats=True),
    lazy=lambda channels: nn.LazyBatchNorm2d(),
    own=OwnNorm,
    counts=Counts,
)


class Net(nn.Module):
    "No Sequential: `layer` is the front's last, or what is in it; the same norm stands in it and right behind it"

    def __init__(self, norm):
        super().__init__()
        self.stem, self.norm1 = nn.Conv2d(3, 8, 3, 2, 1), norm(8)
        self.guided = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2, self.last, self.norm3 = norm(8), nn.Conv2d(8, 8, 3, padding=1), norm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.guided(self.norm1(self.stem(x)).relu())
        x = self.norm3(self.last(self.norm2(x).relu()))
        return self.head(x.mean((2, 3)))


def sequential(norm):
    net = Net(norm)
    return nn.Sequential(
        OrderedDict(
            stem=net.stem,
            norm1=net.norm1,
            act=nn.ReLU(),
            guided=net.guided,
            norm2=net.norm2,
            last=net.last,
            norm3=net.norm3,
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=net.head,
        )
    )


def fit(data, net, *cbs, layer='guided', freeze=True):
    dls = loaders(data)
    with torch.no_grad():
        net.eval()(dls.one_batch()[0])  # lazy modules
    learn = Learner(
        dls,
        net,
        CrossEntropyLossFlat(),
        splitter=partial(front_back, layer=layer, xb=dls.one_batch()[0][:2]),
        train_bn=False,
    )
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    if freeze:
        learn.freeze()
    before = state(net)
    learn.fit(2, 0.01, cbs=[*cbs])
    return before, state(net)


def state(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


def parts(before, after, inside):
    return [{name: t for name, t in part.items() if name.startswith(inside)} for part in (before, after)]


@pytest.mark.parametrize('make', [Net, sequential], ids=['module', 'sequential'])
@pytest.mark.parametrize('norm', NORMS.values(), ids=NORMS)
def test_the_front_up_to_a_layer_stays_and_the_rest_moves(data, make, norm):
    states = fit(data, make(norm), FreezeNorm('guided'))
    assert equal(*parts(*states, ('stem', 'norm1', 'guided')))
    for name in ('norm2', 'norm3', 'last', 'head'):
        before, after = parts(*states, name)
        assert before and not equal(before, after), name


@pytest.mark.parametrize('norm', [name for name in NORMS if name not in ('without_parameters', 'counts', 'instance')])
def test_without_a_layer_frozen_parameters_say_what_stays(data, norm):
    states = fit(data, Net(NORMS[norm]), FreezeNorm())
    assert equal(*parts(*states, ('stem', 'norm1', 'guided')))
    assert not equal(*parts(*states, 'norm2')) and not equal(*parts(*states, 'norm3'))


def test_what_has_no_parameters_goes_with_its_surroundings(data):
    def block():
        return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False))

    net = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 8, 3, 2, 1),
            guided=block(),
            last=block(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(8, 3),
        )
    )
    states = fit(data, net, FreezeNorm())
    assert equal(*parts(*states, ('stem', 'guided'))) and not equal(*parts(*states, 'last.1'))


def test_a_parametrization_that_is_renewed_by_training_stays(data):
    def normed(conv):
        return spectral_norm(conv, n_power_iterations=2)

    net = Net(nn.BatchNorm2d)
    net.stem, net.last = normed(net.stem), normed(net.last)
    states = fit(data, net, FreezeNorm('guided'))
    assert equal(*parts(*states, ('stem', 'norm1', 'guided'))) and not equal(
        *parts(*states, 'last.parametrizations.weight.0')
    )


def test_a_norm_that_the_front_shares_with_the_rest_stays(data):
    net = Net(nn.BatchNorm2d)
    net.norm3 = net.norm1
    states = fit(data, net, FreezeNorm('guided'))
    assert equal(*parts(*states, ('stem', 'norm1', 'norm3', 'guided'))) and not equal(*parts(*states, 'norm2'))


def test_nothing_frozen_nothing_held(data):
    states = fit(data, Net(nn.BatchNorm2d), FreezeNorm(), freeze=False)
    assert not equal(*parts(*states, 'norm1'))


def test_a_layer_that_is_not_there_is_named_before_the_fit(data):
    with pytest.raises(KdfastError, match='Net has no layer guide; did you mean guided'):
        fit(data, Net(nn.BatchNorm2d), FreezeNorm('guide'))


# Several processes


class WithActivation(nn.BatchNorm2d):
    "Holds its activation, as timm's does"

    def forward(self, x):
        return super().forward(x).relu()


def test_norms_are_synchronized_for_a_fit_and_plain_again(data):
    "The same modules throughout; kinds of a user's own are left alone, whose forward pass would be lost"
    net = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 8, 3, 2, 1),
            norm=nn.BatchNorm2d(8),
            guided=nn.Sequential(nn.Conv2d(8, 8, 3), WithActivation(8)),
            last=nn.Conv2d(8, 8, 1),
            back=nn.BatchNorm2d(8),
            again=nn.Identity(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(8, 3),
        )
    )
    net.again = net.back  # one module twice
    modules, before = dict(net.named_modules(remove_duplicate=False)), state(net)
    calls = []
    net.back.register_forward_hook(lambda *_: calls.append(1))
    kinds = synchronize_norms(net)
    assert [type(net.get_submodule(name)) for name in ('norm', 'back', 'again', 'guided.1')] == 3 * [
        nn.SyncBatchNorm
    ] + [WithActivation]
    assert (
        net.back is net.again
        and dict(net.named_modules(remove_duplicate=False)) == modules
        and equal(before, state(net))
    )
    states = fit(data, net, FreezeNorm('guided'))
    assert equal(*parts(*states, ('stem', 'norm.', 'guided'))) and not equal(*parts(*states, 'back'))
    assert calls  # what was there before the fit still is
    for module, kind in kinds.items():
        module.__class__ = kind
    assert type(net.norm) is type(net.back) is nn.BatchNorm2d and equal(states[1], state(net))


# Several inputs


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.guided = nn.Conv2d(3, 8, 3, 2, 1), nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.more, self.norm, self.head = nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x, z):
        return self.head(self.norm(self.guided(self.stem(x) + self.more(z)[..., None, None]).mean((2, 3))))


def test_a_front_of_several_inputs_stays():
    rows = list(zip(torch.randn(16, 3, 8, 8), torch.randn(16, 2), torch.randint(0, 3, (16,))))
    dls = DataLoaders.from_dsets(rows, rows, bs=8, num_workers=0, device='cpu')
    learn = Learner(dls, Two(), CrossEntropyLossFlat())
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    learn.fit_hint(1, Two(), 'guided', 'guided', lr_max=0.01)
    learn.freeze()
    before = state(learn.model)
    learn.fit(1, 0.1, cbs=FreezeNorm('guided'))
    states = before, state(learn.model)
    assert equal(*parts(*states, ('stem', 'more', 'guided'))) and not equal(*parts(*states, 'norm'))


# Gradients from before


class At(Callback):
    "Does something at an iteration"

    order = 60

    def __init__(self, i, act):
        self.i, self.act = i, act

    def after_batch(self):
        if self.training and self.train_iter == self.i:
            self.act(self.learn)


def trained_before(learn):
    learn.fit(1, 0.01)


def interrupted_before(learn):
    with pytest.raises(KeyboardInterrupt):
        learn.fit(1, 0.01, cbs=Interrupted())


class Interrupted(Callback):
    def after_backward(self):
        raise KeyboardInterrupt


def plain_net(width=4):
    layers = nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 3))


TEACHES = dict(
    distill=lambda: Distill(plain_net(8)),
    match=lambda: Match(plain_net(8), at_loss, 1.0, '2:2'),
    norms=FreezeNorm,
)
OPTIMIZERS = dict(
    sgd=partial(SGD, mom=0.9),
    adam=Adam,
    muon=Muon,
    ranger=ranger,
    torch_adamw=partial(OptimWrapper, opt=torch.optim.AdamW),
    torch_sgd=partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=0.9)),
)


@pytest.mark.parametrize('opt_func', OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize('before', [trained_before, interrupted_before, None])
@pytest.mark.parametrize('make', TEACHES.values(), ids=TEACHES)
def test_frozen_weights_stay_whatever_trained_them_before(data, make, before, opt_func):
    "In a fit before this one, one that was interrupted between gradient and step, or the epoch before in the same fit"
    learn = Learner(
        loaders(data),
        plain_net(),
        CrossEntropyLossFlat(),
        opt_func=opt_func,
        wd=0.1,
        splitter=lambda net: [[*net[0].parameters()], [*net[2:].parameters()]],
    )
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    begun = []

    def freeze(learn):
        learn.freeze()
        begun.append(state(learn.model))

    if before:
        before(learn)
        freeze(learn)
        learn.fit(1, 0.01, cbs=make())
    else:
        learn.fit(2, 0.01, cbs=[make(), At(6, freeze)])
    assert equal(*parts(*begun, state(learn.model), inside='0.')) and len(begun) == 1
    assert not equal(*parts(*begun, state(learn.model), inside='2.'))
