"""Learners, loaders and checkpoints of a rehearsal: few images, few epochs."""

from collections import namedtuple
from dataclasses import replace

import numpy as np
from fastai.basics import tuplify
from fastai.data.core import DataLoaders

from kdfast.data.dataloaders import ImageBatches
from kdfast.data.dataset import SMALLEST_BATCH, Data
from kdfast.distill.fit import FitCallback
from kdfast.training.checkpoints import Checkpoints
from kdfast.training.learner import RunLearner

IMAGES = 2 * SMALLEST_BATCH  # of each split


# Its fits and images


class Brief(RunLearner):
    "A Learner whose fits are an epoch of a few steps that move no weight."

    def __init__(self, run, *args, **kwargs):
        self.run = run
        super().__init__(*args, **kwargs)
        self.add_cb(NoStep())

    def fit(self, n_epoch, *args, start_epoch=0, **kwargs):
        self.run.asked_epochs += n_epoch
        return super().fit(min(n_epoch, start_epoch + 1), *args, start_epoch=start_epoch, **kwargs)

    def lr_find(self, start_lr=1e-7, end_lr=10, num_it=100, stop_div=True, show_plot=True, suggest_funcs=()):
        "Rates that are none: of two steps nothing can be learnt"
        self.fit(1)
        names = [getattr(suggest, 'func', suggest).__name__ for suggest in tuplify(suggest_funcs or ())] or ['valley']
        return namedtuple('SuggestedLRs', names)(*[1e-3] * len(names))


class Weighed(Checkpoints):
    "Checkpoints of which only the size is kept: of a large network they would take long to be written."

    def __init__(self, sizes, *args):
        super().__init__(*args)
        self.sizes = sizes  # by fit, of the one that it ends with

    def store(self, where, content):
        self.sizes[self.fit] = len(content)


class NoStep(FitCallback):
    "Steps of length 0: after so few images a rate that is right for many may be too high."

    order = 100  # after the schedule, and whatever else sets a rate

    def before_step(self):
        self.opt.set_hyper('lr', 0.0)


class FewBatches(ImageBatches):
    "Batches of some images, which lie as far apart as they can, of a data set that is there as a whole."

    @property
    def n(self):
        return min(IMAGES, len(self.dataset))

    @n.setter
    def n(self, n):
        pass  # the data set decides

    def get_idxs(self):
        return [i * len(self.dataset) // self.n for i in range(self.n)]


def few_batches(dls):
    return DataLoaders(
        *(dl.new(cls=FewBatches, bs=min(SMALLEST_BATCH, dl.bs)) for dl in dls.loaders), device=dls.device
    )


def few_images(
    data: Data,
) -> Data:
    "The data set, with a few images in each split."

    def few(images, labels):
        n = min(IMAGES, len(labels))
        rows = np.arange(n) * len(labels) // n
        return images[rows], labels[rows]

    train = few(*data.train)
    return replace(
        data, train=train, valid=few(*data.valid), batch_size=data.batch_size and min(data.batch_size, len(train[1]))
    )
