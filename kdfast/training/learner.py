"""The Learner of a run: resumes its fits from their checkpoints; the order of its images."""

import inspect
from types import MappingProxyType

from fastai.basics import Callback, Learner, OptimWrapper
from fastai.callback.progress import ProgressCallback
from fastai.data.transforms import Normalize
from fastai.learner import CancelBackwardException, CancelEpochException, CancelFitException, CancelStepException
from fastai.vision.core import IntToFloatTensor
from torch import nn

from kdfast.core import signals
from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import ImageBatches
from kdfast.distill.fit import FitCallback
from kdfast.training.kinds import type_text
from kdfast.training.settings import check_fit
from kdfast.training.steps import step, zero_grad


class SeededOrder(FitCallback):
    """Set epoch and progress of the training DataLoader at the start of each epoch.

    Epoch and seed determine the order and the augmentation of the images; the progress determines their size in
    progressive resizing.
    """

    def before_epoch(self):
        self.dls.train.epoch = self.epoch
        self.dls.train.progress = self.epoch / self.n_epoch


class RunLearner(Learner):
    """A Learner whose fits resume from their checkpoints; without `checkpoints` a plain Learner.

    Weights that its network froze when it was built stay frozen, whatever `freeze` and `unfreeze` do.
    """

    checkpoints = None
    watchers = ()  # callbacks that only observe: they may differ when the run is resumed
    chosen = MappingProxyType({})  # learning rate and weight decay that the user set, whatever the recipe

    def __init__(
        self,
        dls,  # DataLoaders
        model,  # To train
        *args,  # Of Learner
        **kwargs,  # Of Learner
    ):
        super().__init__(dls, model, *args, **kwargs)
        self.always_frozen = [
            p for p in model.parameters() if not (p.requires_grad or getattr(p, 'frozen_by_learner', False))
        ]

    def freeze_to(self, n):
        "Freeze and unfreeze as fastai does, all but the weights that are always frozen."
        super().freeze_to(n)
        for p in self.model.parameters():
            p.frozen_by_learner = not p.requires_grad  # another Learner of the run may train it
        for p in self.always_frozen:
            p.requires_grad_(False).frozen_by_learner = False

    def fit(self, n_epoch, lr=None, wd=None, cbs=None, **kwargs):
        "Fit as fastai does, with signals handled between steps. Raises KdfastError if no weight trains."
        check_trains(self.model)
        check_fit(self, self.chosen, lr, wd, cbs)
        for cb in self.cbs:
            if cb.learn is not self:
                cb.learn = self  # a callback that several Learners of a run share
        signals.training = self.checkpoints is not None
        try:
            super().fit(n_epoch, lr, wd, cbs, **kwargs)
        finally:
            signals.training = False

    def create_opt(self):
        """Create the optimizer.

        Raises KdfastError if no weight trains, or if its steps need a closure, which fastai does not support.
        """
        check_trains(self.model)
        super().create_opt()
        if isinstance(self.opt, OptimWrapper) and needs_closure(self.opt.opt):
            raise KdfastError(
                f'{type_text(self.opt.opt)} computes the loss several times per step, which fastai does not support: '
                'choose another optimizer'
            )

    def _do_one_batch(self):
        for cb in self.cbs.sorted('order'):
            if isinstance(cb, FitCallback) and cb.fitting and not cb.isolated:
                cb.before_pred()
        super()._do_one_batch()

    def _step(self):
        step(self.opt)

    def _do_grad_opt(self):
        "As fastai does, but for all weights at once"
        self._with_events(self._backward, 'backward', CancelBackwardException)
        self._with_events(self._step, 'step', CancelStepException)
        zero_grad(self.opt)

    def _do_fit(self):
        if self.checkpoints is None:
            return super()._do_fit()
        place = self.checkpoints.begin(self)
        if place and place.epoch is None:  # the fit had ended
            if self.checkpoints.restore(self):
                raise CancelFitException()
            return None
        for cb in self.cbs:
            if place and isinstance(cb, ProgressCallback) and hasattr(cb, 'mbar'):
                cb.mbar.update(0)  # the bar must start at 0
        try:
            for self.epoch in range(place.epoch if place else 0, self.n_epoch):
                self._with_events(self._do_epoch, 'epoch', CancelEpochException)
        except CancelFitException:
            self.checkpoints.end(self, cancelled=True)
            raise
        self.checkpoints.end(self, cancelled=False)

    def all_batches(self):
        "Train on the batches from the checkpoint's step on; earlier batches are skipped."
        if self.checkpoints is None or not self.training:
            return self.other_batches()
        pending = self.checkpoints.pending
        first = pending.step if pending else 0
        done = self.dl.skip_batches(first) if isinstance(self.dl, ImageBatches) else 0
        self.n_iter = len(self.dl)
        if first == 0:
            self.checkpoints.between_steps(self, 0)
        for i, batch in enumerate(self.dl, done):
            if i >= first:
                if i:
                    self.checkpoints.between_steps(self, i)
                self.one_batch(i, batch)
            done = i + 1
        self.checkpoints.between_steps(self, done, last=True)

    def other_batches(self):
        "Process all batches without checkpoints: validation, or a Learner that has none."
        self.n_iter = len(self.dl)
        for i, batch in enumerate(self.dl):
            if self.checkpoints:
                signals.raise_if_received()
            self.one_batch(i, batch)

    def load(self, file, device=None, **kwargs):
        "Load as fastai does, but never unpickle anything except weights."
        return super().load(file, device, **kwargs | dict(weights_only=True))


def check_trains(
    network: nn.Module,  # To train
):
    "Raise KdfastError if all weights are frozen, or if there are none."
    parameters = list(network.parameters())
    if any(p.requires_grad for p in parameters):
        return
    state = f'all of its {len(parameters)} weights are frozen (requires_grad=False)' if parameters else 'it has none'
    raise KdfastError(
        f'{type(network).__name__} has no weight to train: {state}. Let the function that builds it, or the recipe, '
        'leave some that train'
    )


def needs_closure(
    optimizer,  # Of PyTorch
) -> bool:
    "Return whether `step` of an optimizer needs a closure that computes the loss."
    closure = inspect.signature(optimizer.step).parameters.get('closure')
    return closure is not None and closure.default is inspect.Parameter.empty


def without_watchers(
    learn: RunLearner,  # Of a run
) -> list[Callback]:
    "Return the callbacks that are part of a checkpoint."
    return [cb for cb in learn.cbs if cb not in learn.watchers]


def repeatable_order(
    dl,  # A DataLoader
) -> bool:
    "Return whether batches depend only on seed and epoch, so that a fit can resume within an epoch."
    return type(dl) is ImageBatches and all(
        type(transform) in (IntToFloatTensor, Normalize) for transform in dl.after_batch.fs
    )


def distributed_callbacks(
    dls,  # DataLoaders of a run
):
    "Return the callbacks for several processes; imported here because the import of accelerate is slow."
    from kdfast.training.distributed_run import DistributedRun, RankRandomNumbers

    return [DistributedRun(gpu=dls.device.type == 'cuda'), RankRandomNumbers()]
