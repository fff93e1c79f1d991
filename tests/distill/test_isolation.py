"Predictions during a fit change nothing in it."

import random
from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    Callback,
    Categorize,
    ClassificationInterpretation,
    CrossEntropyLossFlat,
    Datasets,
    Interpretation,
    ItemGetter,
    Learner,
    MixedPrecision,
    MSELossFlat,
    ProgressCallback,
    TfmdDL,
    noop,
    set_seed,
)
from fit_events import ASK, At, Events, trained
from learners import learner as fastai_learner
from taught_learners import learner, net
from torch import nn

from kdfast.distill.distill import Distill
from kdfast.distill.freeze import FreezeNorm
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import at_loss
from kdfast.distill.losses.logits import kd_loss
from kdfast.distill.losses.vid import VID
from kdfast.distill.match import Match


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


@pytest.mark.parametrize('device', ['cpu', 'cuda', 'mps'])
def test_predictions_are_computed_without_the_autocast_of_a_fit(device):
    seen = []

    def ask(learn):
        hook = learn.model.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled(device)))
        before = torch.is_autocast_enabled(device)
        torch.set_autocast_enabled(device, True)
        try:
            learn.get_preds(dl=learn.dls.valid)
            assert torch.is_autocast_enabled(device)
        finally:
            torch.set_autocast_enabled(device, before)
            hook.remove()

    trained(Distill(net(8)), At('after_batch', ask))
    assert seen and not any(seen)


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


PREDICTS = dict(
    get_preds=lambda learn: learn.get_preds(),
    of_training=lambda learn: learn.get_preds(0),
    in_order_of_training=lambda learn: learn.get_preds(dl=learn.dls.train),
    predict=lambda learn: learn.predict(torch.zeros(3, 8, 8)),
    show_results=lambda learn: learn.show_results(),
    tta=lambda learn: learn.tta(n=1),
    validate=lambda learn: learn.validate(),
    interpretation=lambda learn: ClassificationInterpretation.from_learner(learn),
    interpretation_of_training=lambda learn: Interpretation.from_learner(learn, 0),
    most_confused=lambda learn: ClassificationInterpretation.from_learner(learn)[[0, 1]],
    test_dl=lambda learn: learn.get_preds(dl=learn.dls.test_dl([torch.zeros(3, 8, 8)] * 4)),
    export=lambda learn: learn.export(),
)


def with_datasets(make, path, ask=lambda learn: None, at='after_epoch'):
    "Train with fastai's Datasets, and images that draw from Python's random generator, as its transforms do"
    set_seed(0)
    cb, images = make(net(8)), torch.rand(24, 3, 8, 8)
    rows = [(x, i % 3) for i, x in enumerate(images)]
    pipelines = [[ItemGetter(0), jittered], [ItemGetter(1), Categorize()]]
    dls = Datasets(rows, pipelines, splits=(range(16), range(16, 24))).dataloaders(bs=8, num_workers=0, device='cpu')
    learn = Learner(dls, net(), CrossEntropyLossFlat(), path=path)
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    set_seed(1)
    asks = At(at, ask)
    learn.fit(3, 1e-2, cbs=[cb, asks])
    assert asks.done
    return dict(learn.model.state_dict()), random.random(), learn.opt


def jittered(x):
    return x + random.random()


@pytest.mark.parametrize('at', ['before_fit', 'after_batch', 'after_epoch'])
@pytest.mark.parametrize('ask', PREDICTS.values(), ids=PREDICTS)
def test_no_way_to_predict_draws_random_numbers_of_the_fit(ask, at, tmp_path, monkeypatch):
    monkeypatch.setattr(TfmdDL, 'show_results', noop)
    weights, drawn, _ = with_datasets(Distill, path=tmp_path)
    same, also_drawn, _ = with_datasets(Distill, path=tmp_path, ask=ask, at=at)
    assert equal(weights, same) and drawn == also_drawn


def test_a_loss_still_trains_after_an_export_during_the_fit(tmp_path):
    def fit(ask):
        torch.manual_seed(2)
        loss = VID(8, 8)
        _, _, opt = with_datasets(lambda teacher: Match(teacher, loss, 1.0, '4:4'), tmp_path, ask)
        return loss.state_dict(), opt

    (loss, _), (same, opt) = fit(lambda learn: None), fit(lambda learn: learn.export())
    assert equal(loss, same) and len(opt.all_params()) == 8


TEACHES = dict(
    distill=Distill,
    layers=lambda teacher: Match(teacher, at_loss, 1.0, '4:4,1:4'),
    logits=lambda teacher: Match(teacher, kd_loss),
    norms=lambda teacher: FreezeNorm('2'),
)
EVENTS = 'before_fit before_train before_batch after_pred after_loss after_batch before_validate after_epoch after_fit'


@pytest.mark.parametrize('at', EVENTS.split())
@pytest.mark.parametrize('make', TEACHES.values(), ids=TEACHES)
def test_a_copy_of_the_student_during_a_fit_is_one_without_callbacks(make, at, tmp_path):
    copies, x = [], torch.rand(2, 3, 8, 8)

    def look(learn):
        torch.save(learn.model, tmp_path / 'model.pt')
        copies.extend([deepcopy(learn.model).eval(), torch.load(tmp_path / 'model.pt', weights_only=False).eval()])
        copies.append(net().eval())
        copies[2].load_state_dict(learn.model.state_dict())

    trained(make(net(8)), At(at, look))
    outputs = [model(x) for model in copies]
    assert all(torch.equal(output, outputs[2]) for output in outputs) and len(copies) == 3
    left = [
        h for m in copies for s in m.modules() for h in [*s._forward_hooks.values(), *s._forward_pre_hooks.values()]
    ]
    assert all(type(hook.__self__) is nullcontext for hook in left) and (not left or at == 'before_batch')
