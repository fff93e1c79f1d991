"kdfast's callbacks receive the events of fits only, and leave nothing behind when a fit ends."

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

from kdfast.distill.distill import Distill
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
