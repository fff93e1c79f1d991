"""Callbacks, optimizers, losses and networks with state: an interrupted fit ends with the same bits or warns."""

import random
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import begun, equal
from fastai.vision.all import (
    Callback,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
    CancelValidException,
    CrossEntropyLossFlat,
    DataLoader,
    DataLoaders,
    OptimWrapper,
    SaveModelCallback,
    accuracy,
    params,
    ranger,
)
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.training import checkpoints
from kdfast.training.checkpoints import Checkpoints

sys.path.append(str(Path(__file__).parents[1] / 'slow'))
import callbacks
from callbacks import Case, Interrupt, constant, plain_net


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(checkpoints, 'EVERY', 0)


def fit(data, path, case, at=None, distill=False):
    "Through a run's Learner: weights, steps, rows of epochs, and what was said; None for all where it was interrupted"
    said = []
    run = begun(data, path, *([lambda _: at if isinstance(at, Callback) else Interrupt(*at)] if at else []))
    run.checkpoints = Checkpoints(run.folder, said.append)
    try:
        learn = case.train(lambda **settings: run.learner(run.build(case.net), **settings), distill)
    except KeyboardInterrupt:
        return None, said
    rows = [{k: v for k, v in row.items() if k != 'seconds'} for row in run.metrics_log.epochs]
    return (
        learn.model.state_dict(),
        (run.folder / 'steps.csv').read_text(),
        rows,
        torch.get_rng_state().tolist(),
    ), said


def same(one, other):
    return equal(one[0], other[0]) and one[1:] == other[1:]


class EMA(Callback):
    "An averaged model, which in the end is the model"

    def before_fit(self):
        self.average = deepcopy(self.model)

    def after_step(self):
        with torch.no_grad():
            for a, p in zip(self.average.parameters(), self.model.parameters()):
                a.lerp_(p, 0.3)

    def after_fit(self):
        self.model.load_state_dict(self.average.state_dict())


class LateEMA(EMA):
    "The same, made at the sixth step"

    def before_fit(self):
        self.average = None

    def after_step(self):
        if self.train_iter == 5:
            self.average = deepcopy(self.model)
        if self.average:
            super().after_step()


class Says(Callback):
    "Its own state"

    def __init__(self):
        self._n = object()  # what could not be kept

    def before_fit(self):
        self.n = 0

    def after_batch(self):
        self.n += self.training

    def before_step(self):
        for p in self.model.parameters():
            p.grad.mul_(1 / (1 + self.n))

    def state_dict(self):
        return dict(n=self.n)

    def load_state_dict(self, state):
        self.n = state['n']


class Stream(Callback):
    "Numbers from a generator, whose place nobody can tell"

    def __init__(self):
        self.numbers = (1 / (1 + i) for i in range(1000))

    def before_step(self):
        factor = next(self.numbers)
        for p in self.model.parameters():
            p.grad.mul_(factor)


class Cancels(Callback):
    order = 55

    def __init__(self, event, exception, epoch, step=None):
        def act():
            if self.epoch == epoch and (step is None or self.iter == step and self.training):
                raise exception()

        setattr(self, event, act)


class Unfreezes(Callback):
    def before_fit(self):
        self.learn.freeze()

    def before_batch(self):
        if self.training and self.train_iter == 10:
            self.learn.unfreeze()


class Predicts(Callback):
    "In the middle of it all"

    order = 55

    def after_batch(self):
        if self.training and self.iter == 3:
            self.learn.get_preds(), self.learn.validate()

    def after_epoch(self):
        self.learn.get_preds(ds_idx=0)


class Drops(Callback):
    "A schedule of dropout, which no state dict holds"

    def after_batch(self):
        self.model[5].p *= 0.98


class Leaves(Callback):
    def after_batch(self):
        self.learn.wd = 0.0 if self.learn.wd else 0.1
        if self.training and self.train_iter == 4:
            self.learn.remove_cb(self)


class Writes(Callback):
    def before_fit(self):
        self.file = (self.path / 'log.txt').open('w')

    def after_batch(self):
        self.file.write(f'{self.epoch} {self.iter} {self.loss.item():.9f}\n')

    def after_fit(self):
        self.file.close()
        with torch.no_grad():
            self.model[6].bias[0] = len((self.path / 'log.txt').read_text())


class TorchSchedule(Callback):
    order = 61

    def before_fit(self):
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.opt.opt, 20)

    def after_step(self):
        self.schedule.step()


def closure():
    n = 0

    def before_step(self):
        nonlocal n
        n += 1
        for p in self.model.parameters():
            p.grad.div_(n)

    return Callback(before_step=before_step)


class Curriculum:
    "A loss that counts"

    def __init__(self):
        self.n, self.loss = 0, CrossEntropyLossFlat()

    def __call__(self, pred, y, reduction='mean'):
        self.n += 1
        return self.loss(pred, y) * (1 + 1 / self.n)


class Centers(nn.Module):
    "A loss with a memory that is no buffer"

    def __init__(self):
        super().__init__()
        self.mean = None

    def forward(self, pred, y):
        self.mean = pred.detach().mean(0) if self.mean is None else self.mean.lerp(pred.detach().mean(0), 0.1)
        return nn.functional.cross_entropy(pred - self.mean, y)


def twice(learn, cbs):
    "Two fits, the second of which depends on what is left of the first"
    learn.fit_one_cycle(2, 0.1, cbs=cbs)
    learn.fit_one_cycle(2, 0.05 * learn.recorder.values[-1][1], cbs=cbs, reset_opt=len(learn.recorder.losses) % 2)


class Noisy(DataLoader):
    "Batches that random numbers of every kind decide"

    def create_item(self, i):
        x, y = self.dataset[i]
        return x + 0.1 * torch.rand(1) + 0.1 * random.random() + 0.1 * np.random.rand(), y


def other_loader(learn, cbs):
    x, y = torch.rand(72, 3, 8, 8), torch.arange(72) % 3
    learn.dls = DataLoaders(
        *(Noisy(list(zip(x, y)), bs=8 if shuffle else 72, shuffle=shuffle) for shuffle in (True, False))
    )
    learn.fit(3, 0.05)


def with_opt(opt, **more):
    return lambda: dict(opt_func=partial(OptimWrapper, opt=opt), **more)


def stays(cbs):
    return lambda: dict(cbs=cbs())


def two_groups(model):
    return [params(model[:3]), params(model[3:])]


KINDS = dict(
    average=Case(lambda: [EMA()]),
    late=Case(lambda: [LateEMA()]),
    says=Case(lambda: [Says()]),
    stream=Case(lambda: [Stream()]),
    closure=Case(lambda: [closure()]),
    batch=Case(
        lambda: [Cancels('before_batch', CancelBatchException, 0, 3), Cancels('after_loss', CancelBatchException, 1, 2)]
    ),
    step=Case(lambda: [Cancels('before_step', CancelStepException, 1, 2)]),
    train=Case(lambda: [Cancels('after_batch', CancelTrainException, 1, 2)]),
    untrained=Case(lambda: [Cancels('before_train', CancelTrainException, 1)]),
    unvalidated=Case(lambda: [Cancels('before_validate', CancelValidException, 1)]),
    epoch=Case(lambda: [Cancels('after_batch', CancelEpochException, 1, 2)]),
    end=Case(lambda: [Cancels('after_batch', CancelFitException, 2, 3)]),
    unfreezes=Case(lambda: [Unfreezes()], learner=lambda: dict(splitter=two_groups)),
    predicts=Case(lambda: [Predicts()]),
    drops=Case(lambda: [Drops()]),
    leaves=Case(lambda: [Leaves()]),
    writes=Case(lambda: [Writes()]),
    schedule=Case(lambda: [TorchSchedule()], constant, learner=with_opt(torch.optim.AdamW)),
    counts=Case(learner=lambda: dict(loss_func=Curriculum())),
    memory=Case(learner=lambda: dict(loss_func=Centers())),
    twice=Case(lambda: [EMA()], twice),
    stays=Case(fit=twice, learner=stays(lambda: [EMA()])),
    stream_twice=Case(fit=twice, learner=stays(lambda: [Stream()])),
    rmsprop=Case(learner=with_opt(torch.optim.RMSprop, splitter=two_groups, metrics=[accuracy])),
    ranger=Case(learner=lambda: dict(opt_func=ranger)),
    fine_tune=Case(fit=lambda learn, cbs: learn.fine_tune(2), learner=lambda: dict(splitter=two_groups)),
    loader=Case(fit=other_loader),
    others=Case(fit=lambda learn, cbs: (learn.fit_flat_cos(1, 0.1), learn.fit_sgdr(2, 1, 0.1), learn.fit(1))),
)
SAY = {'late', 'stream', 'stream_twice'}  # that they hold what cannot be kept
FASTAI = 'LRFinder', 'MixUp', 'SaveModelCallback'  # one with a fit inside, a distribution, a file; all: tests/slow


@pytest.mark.parametrize('name', [*KINDS, *FASTAI])
def test_an_interrupted_fit_ends_as_one_that_was_not(data, tmp_path, name):
    case, distill = KINDS.get(name) or callbacks.CASES[name], name in ('MixUp', 'average', 'twice')
    whole, said = fit(data, tmp_path / 'whole', case, distill=distill)
    assert any('cannot be saved' in note for note in said) == (name in SAY), said
    for i, moment in enumerate([(1, 4, 'after_batch'), (1, 0, 'after_validate')]):
        cut, said = fit(data, tmp_path / f'{i}', case, moment, distill)
        assert cut is None or moment[0] >= len(whole[2]) or name in ('epoch', 'untrained', 'unvalidated', 'train')
        assert same(fit(data, tmp_path / f'{i}', case, distill=distill)[0], whole)


def test_who_says_that_it_cannot_be_kept_says_so_first_and_names_it(data, tmp_path):
    class Look(Callback):
        def before_batch(self):
            assert said and 'Stream.numbers is a builtins.generator' in said[0]

    said = []
    run = begun(data, tmp_path / 'run')
    run.checkpoints = Checkpoints(run.folder, said.append)
    run.learner(run.build(plain_net)).fit(1, 0.1, cbs=[Stream(), Look()])
    assert said[0].endswith('if this run is interrupted, it resumes from the beginning of fit 1') and len(said) == 1


def test_a_fit_that_does_not_begin_alike_again_is_refused(data, tmp_path):
    def zeros(n):
        return plain_net(n).apply(lambda m: [nn.init.zeros_(p) for p in m.parameters()])

    case, other = KINDS['stream'], Case(KINDS['stream'].cbs, net=zeros)
    assert fit(data, tmp_path / 'run', case, (1, 4, 'after_batch'))[0] is None
    with pytest.raises(KdfastError, match='was interrupted in fit 1, which now begins with other weights'):
        fit(data, tmp_path / 'run', other)


def test_a_recipe_that_does_not_do_the_same_again_is_refused(data, tmp_path):
    assert fit(data, tmp_path / 'run', KINDS['average'], (1, 4, 'after_batch'))[0] is None
    with pytest.raises(
        KdfastError,
        match='the checkpoint has the state of test_callbacks.EMA at .callbacks.*the recipe creates different objects',
    ):
        fit(data, tmp_path / 'run', KINDS['says'])


def test_an_optimizer_that_fastai_cannot_step_is_refused_before_training(data, tmp_path):
    with pytest.raises(KdfastError, match='torch.optim.lbfgs.LBFGS computes the loss several times per step'):
        fit(data, tmp_path / 'run', Case(learner=with_opt(torch.optim.LBFGS)))


def test_learners_of_one_run_may_take_turns(data, tmp_path):
    def turns(make):
        one, other = make(), make()
        for learn in (one, other, one):
            learn.fit(1, 0.05)
        return one

    class Turns(Case):
        def train(self, make, distill):
            return turns(make)

    whole, _ = fit(data, tmp_path / 'whole', Turns())
    assert [row['stage'] for row in whole[2]] == [1, 2, 3]

    class Stop(Callback):
        def __init__(self, stage):
            self.stage = stage

        def after_step(self):
            if self.learn.metrics_log.stage == self.stage and self.iter == 4:
                raise KeyboardInterrupt

    for stage in (2, 3):
        assert fit(data, tmp_path / f'{stage}', Turns(), Stop(stage))[0] is None
        assert same(fit(data, tmp_path / f'{stage}', Turns())[0], whole)


def test_what_grows_with_the_steps_is_in_files_of_its_own(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, 'EVERY', 60)
    sizes = []

    class Size(Callback):
        order = 95

        def before_epoch(self):
            sizes.append([f.stat().st_size for f in sorted((self.path / 'resume').glob('*.safetensors'))][-1:])

    fit(data, tmp_path / 'run', Case(lambda: [Size()], lambda learn, cbs: learn.fit_one_cycle(12, 0.1, cbs=cbs)))
    grown = sizes[-1][0] - sizes[2][0]
    assert grown / 9 < 600  # bytes an epoch: its row in metrics.csv, and what fastai's Recorder keeps of it


def test_best_weights_are_never_read_by_pickle(data, tmp_path):
    class Bad(Callback):
        order = 62

        def after_epoch(self):
            torch.save(Says(), self.path / 'models' / 'model.pth')

    with pytest.raises(Exception, match='[Ww]eights.only'):
        fit(data, tmp_path / 'run', Case(lambda: [SaveModelCallback(), Bad()], constant))
