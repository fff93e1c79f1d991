"Callbacks, losses and optimizers with state of their own, each with a fit."

import random
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from callbacks import Case, constant
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
    accuracy,
    params,
    ranger,
)
from torch import nn


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
