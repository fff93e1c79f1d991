"kdfast's callbacks receive the events of fits only, and leave nothing behind when a fit ends."

from copy import copy, deepcopy
from inspect import signature

import pytest
import torch
from conftest import equal
from fastai.callback.data import CollectDataCallback
from fastai.vision.all import (
    CancelFitException,
    CrossEntropyLossFlat,
    FetchPredsCallback,
    Learner,
)
from fit_events import At, Events, trained
from taught_learners import learner, net
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import at_loss
from kdfast.distill.match import Match

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


# Several Learners


def twice(make):
    "The weights of two Learners that are trained one after the other, and the callback of the first"
    first, second = make()
    for learn in (first, second):
        learn.fit(1, 1e-2)
    return [dict(learn.model.state_dict()) for learn in (first, second)], first


def hinted(cb):
    "A Learner whose callback replaces the target"
    return learner(cbs=cb, loss=lambda pred, hint: (pred - hint).square().mean())


TEACHER = net(8).eval()
SHARED = {
    'distill': (lambda: Distill(TEACHER), lambda cb: learner(cbs=cb)),
    'match': (lambda: Match(TEACHER, at_loss, 1.0, '3:3'), lambda cb: learner(cbs=cb)),
    'hint': (lambda: Hint(TEACHER), hinted),
}


@pytest.mark.parametrize('kind', SHARED)
def test_a_callback_of_two_learners_acts_on_the_one_that_calls(kind):
    make, learner_with = SHARED[kind]

    def shared():
        cb = make()
        return learner_with(cb), learner_with(cb)

    (one, two), first = twice(shared)
    apart = twice(lambda: (learner_with(make()), learner_with(make())))[0]
    assert equal(one, apart[0]) and equal(two, apart[1])
    assert next(iter(first.cbs.filter(lambda cb: hasattr(cb, 'parts')))).learn is not first


def test_predictions_of_another_learner_are_those_of_its_own_model():
    cb = Hint(TEACHER)
    one, two = hinted(cb), hinted(cb)
    alone = hinted(Hint(TEACHER))
    one.model = alone.model = net(5)
    two.validate()
    assert list(one.validate()) == list(alone.validate())


@pytest.mark.parametrize('event', ['before_train', 'after_loss', 'after_epoch'])
@pytest.mark.parametrize(
    'use',
    [
        lambda cb: learner(cbs=cb),
        lambda cb: learner(cbs=cb).fit(1),
        lambda cb: learner().fit(1, cbs=cb),
        lambda cb: learner(cbs=cb).validate(),
    ],
)
def test_a_callback_that_another_learner_takes_during_a_fit_never_trains_on_labels_alone(event, use):
    cb = Distill(TEACHER)
    with pytest.raises(KdfastError, match='Distill is used by two Learners at the same time'):
        learner(cbs=[cb, At(event, lambda learn: use(cb))]).fit(2, 1e-2)
    assert not cb.fitting and cb.inference_teacher is None


def test_predictions_of_a_learner_that_held_it_before_disturb_no_fit():
    cb = Distill(TEACHER)
    first = learner(cbs=cb)

    def weights(*cbs):
        return trained(cb, *cbs)[1]

    assert equal(weights(), weights(At('after_loss', lambda learn: first.validate())))


@pytest.mark.parametrize('fitted', [False, True])
@pytest.mark.parametrize('method', ['copy', 'vars', 'deepcopy'])
def test_a_copy_of_a_learner_fits_itself(method, fitted):
    first = learner(cbs=Distill(TEACHER))
    if fitted:
        first.fit(1)
    if method == 'vars':
        second = Learner.__new__(Learner)
        second.__setstate__(vars(first))
    else:
        second = dict(copy=copy, deepcopy=deepcopy)[method](first)
    second.model, second.opt = net(4), None
    before, given = (deepcopy(learn.model.state_dict()) for learn in (first, second))
    second.fit(1, 1e-2)
    assert equal(before, first.model.state_dict()) and not equal(given, second.model.state_dict())
    second.validate(), first.fit(1, 1e-2)
    assert not equal(before, first.model.state_dict()) and len(first.validate()) == 1


def test_a_learner_without_a_callback_of_kdfast_is_fastais():
    learner(cbs=Distill(TEACHER)).fit(1)
    plain = learner()
    assert not {'validation_context', 'tta', 'fit'} & {*vars(plain)}
    for method in ('fit', 'validation_context', 'tta'):
        assert signature(getattr(Learner, method)) == signature(getattr(Learner, method).__wrapped__)
