"""Learner, DataLoaders and checkpoints of a rehearsal: few images, short fits."""

from collections import namedtuple
from dataclasses import replace

import numpy as np
import torch
from fastai.basics import tuplify
from fastai.data.core import DataLoaders

from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import ImageBatches
from kdfast.data.dataset import SMALLEST_BATCH, Data
from kdfast.distill.fit import FitCallback
from kdfast.training.checkpoints import Checkpoints
from kdfast.training.learner import RunLearner

IMAGES = 2 * SMALLEST_BATCH  # of each split


class ShortLearner(RunLearner):
    "A Learner whose fits are one epoch of a few steps that change no weight."

    def __init__(
        self,
        run,  # RehearsalRun, which counts epochs
        *args,  # Of RunLearner
        **kwargs,  # Of RunLearner
    ):
        self.run = run  # RehearsalRun
        super().__init__(*args, **kwargs)
        self.add_cbs([NoStep(), RefuseNaN()])

    def fit(
        self,
        n_epoch,  # Epochs of the real fit
        *args,  # Of Learner.fit
        start_epoch=0,  # Epoch to start from
        **kwargs,  # Of Learner.fit
    ):
        "Fit one epoch; count the epochs that were requested."
        self.run.total_epochs += n_epoch
        return super().fit(min(n_epoch, start_epoch + 1), *args, start_epoch=start_epoch, **kwargs)

    def lr_find(self, start_lr=1e-7, end_lr=10, num_it=100, stop_div=True, show_plot=True, suggest_funcs=()):
        "Fit one epoch and return placeholder learning rates: two steps are too few for a range test."
        self.fit(1)
        names = [getattr(suggest, 'func', suggest).__name__ for suggest in tuplify(suggest_funcs or ())] or ['valley']
        return namedtuple('SuggestedLRs', names)(*[1e-3] * len(names))


class MeasuredCheckpoints(Checkpoints):
    "Checkpoints whose size is recorded instead of writing them, which takes long for large networks."

    def __init__(
        self,
        n_bytes,  # Size of the last checkpoint, by number of the fit
        *args,  # Of Checkpoints
    ):
        super().__init__(*args)
        self.n_bytes = n_bytes  # size of the last checkpoint, by number of the fit

    def store(
        self,
        where,  # Place in the fit
        content,  # Of the file, bytes
    ):
        "Record the size of a checkpoint."
        self.n_bytes[self.fit] = len(content)


class NoStep(FitCallback):
    "Set the learning rate to 0: with few images, a good rate for all images can be too high."

    order = 100  # after the schedule and other callbacks that set a rate

    def before_step(self):
        self.opt.set_hyper('lr', 0.0)


class RefuseNaN(FitCallback):
    "Raise KdfastError for a network that returns NaN before any step: no learning rate can help."

    order = -100  # before callbacks that compute with the outputs

    def after_pred(self):
        if not self.training:
            return
        outputs = self.pred if isinstance(self.pred, (tuple, list)) else [self.pred]
        if any(torch.isnan(output).any() for output in outputs if isinstance(output, torch.Tensor)):
            raise KdfastError(
                f'{type(self.model).__name__} returns NaN for training images before its first step: '
                'look for a division by zero, or the root or logarithm of a negative number'
            )


class FewBatches(ImageBatches):
    "Batches of IMAGES images, evenly spaced in the data set."

    @property
    def n(self):
        "The number of images"
        return min(IMAGES, len(self.dataset))

    @n.setter
    def n(
        self,
        n,  # From DataLoader
    ):
        "Ignore a new number of images: it depends on the data set only."

    def get_idxs(self):
        "Return the indices of the images."
        return [i * len(self.dataset) // self.n for i in range(self.n)]


def few_batches(
    dls: DataLoaders,  # Of a run
) -> DataLoaders:
    "Return DataLoaders of a few images of the same data sets."
    return DataLoaders(
        *(dl.new(cls=FewBatches, bs=min(SMALLEST_BATCH, dl.bs)) for dl in dls.loaders), device=dls.device
    )


def few_images(
    data: Data,  # Of a run
) -> Data:
    "Return the data set with a few images in each split."

    def few(images, labels):
        n = min(IMAGES, len(labels))
        rows = np.arange(n) * len(labels) // n
        return images[rows], labels[rows]

    train = few(*data.train)
    batch_size = data.batch_size and min(data.batch_size, len(train[1]))
    return replace(data, train=train, valid=few(*data.valid), batch_size=batch_size)
