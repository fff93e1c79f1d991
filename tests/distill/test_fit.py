"One definition of a fit: predictions in the middle of one disturb nothing, and nothing is left however it ends."

import random

import numpy as np
import pytest
import torch
from conftest import equal
from fastai.callback.core import event
from fastai.callback.data import CollectDataCallback
from fastai.vision.all import (
    Callback,
    CancelFitException,
    CrossEntropyLossFlat,
    FetchPredsCallback,
    Learner,
    MixedPrecision,
    MSELossFlat,
    accuracy,
    set_seed,
)
from learners import learner as fastai_learner
from taught_learners import learner, net
from torch import nn

from kdfast.distill.distill import Distill
from kdfast.distill.fit import FitCallback
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import at_loss
from kdfast.distill.match import Match


class Events(FitCallback):
    "The events that it is called with"

    order = 60

    def __init__(self, in_predictions=False):
        self.in_predictions, self.seen, self.left = in_predictions, [], 0

    def leave(self):
        self.left += 1


for _name in vars(event):
    if not _name.startswith('_'):
        setattr(Events, _name, lambda self, name=_name: self.seen.append(name))

FIT = [
    'before_fit',
    'before_epoch',
    'before_train',
    *[
        'before_batch',
        'after_pred',
        'after_loss',
        'before_backward',
        'after_backward',
        'before_step',
        'after_step',
        'after_batch',
    ]
    * 3,
    'after_train',
    'before_validate',
    *['before_batch', 'after_pred', 'after_loss', 'after_batch'] * 3,
    'after_validate',
    'after_epoch',
    'after_fit',
]


class At(Callback):
    "Does something once, at one event of the second epoch"

    def __init__(self, at, do, order=70):
        self.at, self.do, self.order, self.done = at, do, order, False

    def __call__(self, name):
        if (
            name == self.at
            and not self.done
            and (vars(self.learn).get('epoch') == 1 or name in ('before_fit', 'after_fit'))
        ):
            self.done = True
            self.do(self.learn)


def test_it_is_called_in_fits_alone_unless_it_asks_for_predictions():
    events, all_events = Events(), Events(in_predictions=True)
    learn = learner(cbs=[events, all_events])
    learn.validate(), learn.get_preds()
    assert not events.seen and all_events.seen.count('before_fit') == all_events.seen.count('after_fit') == 2
    all_events.seen.clear()
    learn.fit(1)
    assert events.seen == all_events.seen == FIT
    learn.validate()
    assert events.seen == FIT


def test_a_subclass_with_a_fit_of_its_own_fits():
    class Own(Learner):
        def fit(self, n_epoch, cbs=None):
            with self.added_cbs(cbs):
                self.create_opt()
                self.n_epoch = n_epoch
                self._with_events(self._do_fit, 'fit', CancelFitException, self._end_cleanup)

    events = Events()
    Own(learner().dls, net(), CrossEntropyLossFlat()).fit(1, cbs=events)
    assert events.seen == FIT


def trained(*cbs, model=None, **kwargs):
    set_seed(0)
    learn = learner(model or net(), metrics=accuracy, **kwargs)
    learn.dls.train.shuffle = True  # draws from a generator of the loader's own
    learn.fit_one_cycle(2, 1e-2, cbs=[*cbs])
    return learn, dict(learn.model.state_dict())


ASK = [
    lambda learn: learn.get_preds(),
    lambda learn: learn.validate(),
    lambda learn: learn.tta(n=1),
    lambda learn: learn.validate(dl=learn.dls.train),
]


@pytest.mark.parametrize(
    'at',
    [
        'before_fit',
        'before_epoch',
        'before_batch',
        'after_pred',
        'after_loss',
        'before_step',
        'after_batch',
        'before_validate',
        'after_epoch',
        'after_fit',
    ],
)
def test_predictions_in_the_middle_of_a_fit_disturb_nothing(at):
    def cbs():
        return [Distill(net(8)), Match(net(8), at_loss, 10.0, '4:4')]

    torch.manual_seed(1)
    learn, weights = trained(*cbs())
    for i, ask in enumerate(ASK):
        torch.manual_seed(1)
        asks = At(at, ask, order=(-20, 2.5, 70)[i % 3])
        other, same = trained(*cbs(), asks)
        assert (
            asks.done
            and equal(weights, same)
            and [list(row) for row in learn.recorder.values] == [list(row) for row in other.recorder.values]
        )


class Ready(Callback):
    "Acts on batches between its `before_fit` and its `after_fit` only, as MixedPrecision does"

    order = 10

    def __init__(self):
        self.ready, self.begun = False, 0

    def before_fit(self):
        self.ready, self.begun = True, self.begun + 1

    def before_batch(self):
        assert self.ready

    def after_fit(self):
        assert self.ready
        self.ready = False


@pytest.mark.parametrize('order', [-20, 2.5, 70])
@pytest.mark.parametrize('ask', ASK)
@pytest.mark.parametrize('at', ['before_fit', 'before_epoch', 'after_pred', 'after_validate', 'after_fit'])
def test_callbacks_that_a_fit_sets_up_are_ready_in_predictions(at, ask, order):
    asks, ready = At(at, ask, order=order), Ready()
    trained(Distill(net(8)), MixedPrecision(), ready, asks)
    assert asks.done and ready.begun == 1 and not ready.ready


@pytest.mark.parametrize('at', ['before_fit', 'before_epoch', 'after_batch', 'after_fit'])
def test_predictions_during_stage_one_change_nothing(at):
    "Whose callback is asked in predictions, too, and before the fit has begun"

    def stage_one(*cbs):
        set_seed(0)
        teacher = nn.Sequential(*net(8)[:5])
        learn = learner(nn.Sequential(*net()[:5]), loss=MSELossFlat())
        learn.fit_one_cycle(2, 1e-2, cbs=[Hint(teacher), *cbs])
        return dict(learn.model.state_dict())

    weights = stage_one()
    for order in (-20, 70):
        asks = At(at, ASK[1], order=order)
        assert equal(weights, stage_one(asks)) and asks.done


def test_random_states_and_hidden_states_come_back():
    class Draws(Callback):
        def before_batch(self):
            torch.rand(1), np.random.rand(), random.random()

    learn, events = fastai_learner('language'), Events()
    states = []

    def look(learn):
        states.append(
            [
                torch.rand(1).item(),
                np.random.rand(),
                random.random(),
                [h.sum().item() for layer in learn.model[0].hidden for h in layer],
            ]
        )

    def ask(learn):
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        hidden = [h.clone() for layer in learn.model[0].hidden for h in layer]
        learn.validate(cbs=Draws())
        assert (
            torch.equal(before[0], torch.get_rng_state())
            and before[2] == random.getstate()
            and (before[1][1] == np.random.get_state()[1]).all()
        )
        assert all(map(torch.equal, hidden, [h for layer in learn.model[0].hidden for h in layer]))

    at = At('after_batch', ask)
    learn.fit(2, 1e-3, cbs=[events, at])
    assert at.done


def test_a_callback_that_is_put_aside_for_a_prediction_goes_on_afterwards():
    "FetchPredsCallback takes off those that ask for it, and those that it is told"
    events, aside, cb = Events(), Events(), Distill(net(8))
    aside.remove_on_fetch = True
    learn = learner()
    learn.fit(2, cbs=[cb, events, aside, FetchPredsCallback(cbs=[cb])])
    assert events.seen == aside.seen == FIT[:-1] + FIT[1:] and aside.left == 1
    torch.manual_seed(1)
    plain, weights = trained(Distill(net(8)))
    torch.manual_seed(1)
    cb = Distill(net(8))
    assert equal(weights, trained(cb, FetchPredsCallback(cbs=[cb]))[1])


@pytest.mark.parametrize('error', [KeyboardInterrupt(), ValueError('no')])
@pytest.mark.parametrize('stays', [False, True])
def test_whatever_ends_a_fit_nothing_is_left_on_teacher_student_or_optimizer(error, stays):
    class Regressed(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Conv2d(8, 8, 1)

        def forward(self, guided, hint):
            return (self.matrix(guided) - hint).square().mean()

    teacher, events = net(8).train(), Events()
    cbs = [Distill(teacher), Match(teacher, Regressed(), 1.0, '4:4'), events]
    learn = learner(cbs=cbs if stays else None)

    def fail(learn):
        raise error

    with pytest.raises(type(error)):
        learn.fit(2, 1e-2, cbs=[*([] if stays else cbs), At('after_loss', fail)])
    hooks = [
        m for network in (learn.model, teacher) for m in network.modules() if m._forward_hooks or m._forward_pre_hooks
    ]
    assert not hooks and events.left == 1 and teacher.training and cbs[0].inference_teacher is None
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}
    if stays:
        return
    assert not {'validation_context', 'tta', 'fit'} & {*vars(learn)}
    events.seen.clear()
    learn.fit(1, cbs=[*cbs, CollectDataCallback()])
    assert events.seen == FIT
