"""The Learner of a run: skips what its checkpoints have, and goes on behind it."""

import inspect

from fastai.basics import Learner, OptimWrapper
from fastai.callback.progress import ProgressCallback
from fastai.data.transforms import Normalize
from fastai.learner import CancelEpochException, CancelFitException
from fastai.vision.core import IntToFloatTensor

from kdfast.core import signals
from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import ImageBatches
from kdfast.training.kinds import type_text


class RunLearner(Learner):
    "A Learner whose fits go on from their checkpoints; without `checkpoints`, it is a plain one."

    checkpoints, watchers = None, ()  # callbacks that only look on: another start of the run may have others

    def fit(self, *args, **kwargs):
        for cb in self.cbs:
            if cb.learn is not self:
                cb.learn = self  # one that Learners of a run share follows the one that fits
        signals.training = self.checkpoints is not None
        try:
            super().fit(*args, **kwargs)
        finally:
            signals.training = False

    def create_opt(self):
        super().create_opt()
        if (
            isinstance(self.opt, OptimWrapper)
            and inspect.signature(self.opt.opt.step).parameters.get('closure', inspect.Parameter).default
            is inspect.Parameter.empty
        ):
            raise KdfastError(
                f'{type_text(self.opt.opt)} computes the loss several times a step, which fastai has no way to do: choose another optimizer'
            )

    def _do_fit(self):
        if self.checkpoints is None:
            return super()._do_fit()
        place = self.checkpoints.begin(self)
        if place and place.epoch is None:  # it had ended
            if self.checkpoints.put(self):
                raise CancelFitException()
            return None
        for cb in self.cbs:
            if place and isinstance(cb, ProgressCallback) and hasattr(cb, 'mbar'):
                cb.mbar.update(0)  # its bar can begin nowhere else
        try:
            for self.epoch in range(place.epoch if place else 0, self.n_epoch):
                self._with_events(self._do_epoch, 'epoch', CancelEpochException)
        except CancelFitException:
            self.checkpoints.end(self, cancelled=True)
            raise
        self.checkpoints.end(self, cancelled=False)

    def all_batches(self):
        "From the checkpoint's step on; batches before it are passed over"
        if self.checkpoints is None or not self.training:
            return self.watched_batches()
        pending = self.checkpoints.pending
        first, done = pending.step if pending else 0, 0
        self.n_iter = len(self.dl)
        if first == 0:
            self.checkpoints.between_steps(self, 0)
        for i, batch in enumerate(self.dl):
            if i >= first:
                if i:
                    self.checkpoints.between_steps(self, i)
                self.one_batch(i, batch)
            done = i + 1
        self.checkpoints.between_steps(self, done, last=True)

    def watched_batches(self):
        self.n_iter = len(self.dl)
        for i, batch in enumerate(self.dl):
            if self.checkpoints:
                signals.raise_if_received()
            self.one_batch(i, batch)

    def load(self, file, device=None, **kwargs):
        "fastai's, without ever obeying the file"
        return super().load(file, device, **kwargs | dict(weights_only=True))


def without_watchers(learn):
    return [cb for cb in learn.cbs if cb not in learn.watchers]


def repeatable_order(dl):
    "Whether any of its batches follows from seed and epoch alone, so that a fit can go on in the middle of an epoch"
    return type(dl) is ImageBatches and all(
        type(transform) in (IntToFloatTensor, Normalize) for transform in dl.after_batch.fs
    )
