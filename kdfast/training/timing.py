"""Measure how long a run takes, from a few steps at its real batch size.

A timed run is a rehearsal with other batches: steps on the real images, of which the first ones warm up, and a few
validation batches. Its fits have the epochs of the recipe, so that the time of the whole run follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from time import perf_counter

from fastai.basics import CancelTrainException, CancelValidException
from fastai.data.core import DataLoaders

from kdfast.data.dataloaders import ImageBatches
from kdfast.data.dataset import Data
from kdfast.distill.fit import FitCallback
from kdfast.runs.cost import RunCost
from kdfast.runs.recipes import Recipe
from kdfast.runs.run_dir import locate_run
from kdfast.training.devices import wait_for
from kdfast.training.rehearsal import Rehearsals
from kdfast.training.rehearsal_run import RehearsalRun
from kdfast.training.rehearsal_stage import rehearsal_stage
from kdfast.training.run import Run

WARM_UP = 3  # steps that are not counted, if there are more
STEPS = 23  # at most
SECONDS = 4.0  # after which a fit or its validation ends, once it has two steps


@dataclass(frozen=True)
class TimedFit:
    "What a fit of a timed run took."

    epochs: int  # Of the real fit
    step: float  # Seconds of a training step
    valid_batch: float  # Seconds of a validation batch
    seconds: float  # Of the timed fit itself


def time_recipes(
    wanted: Sequence[tuple[Recipe, dict, int]],  # Recipe, arguments and seed; each after what it needs
    data: Data,  # Images to train on
    runs_dir,  # Directory of the runs
) -> dict[str, RunCost]:  # By the name of the recipe's directory
    "Measure the cost of each recipe, without the runs that it needs. Raises KdfastError."
    with rehearsal_stage() as directory:
        seed = wanted[0][2]
        timed = TimedRehearsals(Run(locate_run(runs_dir, data.name, 'timed', seed), data, seed, runs_dir), directory)
        for recipe, arguments, _ in wanted:
            timed.rehearse(recipe, arguments)
    return {path.parent.name: cost for path, cost in timed.outcomes.items()}


class TimedRun(RehearsalRun):
    "A rehearsal on full batches that measures its steps."

    def __init__(
        self,
        folder,  # As of RehearsalRun
        rehearsals,  # As of RehearsalRun
        settings,  # As of RehearsalRun
    ):
        self.fits = []  # TimedFit of each
        super().__init__(folder, rehearsals, settings)
        self.watch = (lambda _: StepTimer(self),)

    def shortened(
        self,
        dls,  # DataLoaders of the real run
    ):
        "Return DataLoaders that give a few batches of the same images."
        self.n_batches = [len(dl) for dl in dls.loaders]
        return DataLoaders(*(dl.new(cls=TimedBatches) for dl in dls.loaders), device=dls.device)

    def rehearse(
        self,
        recipe,  # As of RehearsalRun
        arguments,  # As of RehearsalRun
        seeds,  # As of RehearsalRun
    ):
        "Rehearse the recipe; return the cost of the real run. What is no step happens as often in it."
        began = perf_counter()
        room = super().rehearse(recipe, arguments, seeds)
        once = perf_counter() - began - sum(fit.seconds for fit in self.fits)
        return RunCost(once + self.seconds_of_steps(), room.kept, room.while_trained)

    def seconds_of_steps(self):
        "Return the seconds of all epochs, and of the evaluation of all splits at the end."
        n_train, n_valid = self.n_batches
        epochs = sum(fit.epochs * (n_train * fit.step + n_valid * fit.valid_batch) for fit in self.fits)
        per_batch = self.fits[-1].valid_batch if self.fits else 0.0
        per_image = per_batch / self.dls.valid.bs
        n_images = sum(len(labels) for _, labels in (self.whole.train, self.whole.valid, self.whole.test or ((), ())))
        return epochs + n_images * per_image


class TimedRehearsals(Rehearsals):
    "The timed runs of several recipes; their outcomes are costs."

    run_class = TimedRun


class StepTimer(FitCallback):
    "Measure the training steps and validation batches of a fit, and end it when they are enough."

    order = 1000  # after all other callbacks

    def __init__(
        self,
        run: TimedRun,  # Receives the result
    ):
        self.run = run
        self.step = self.valid_batch = 0.0

    def before_fit(self):
        self.began = perf_counter()

    def before_train(self):
        self.times = [perf_counter()]

    before_validate = before_train

    def after_batch(self):
        wait_for(self.device)
        self.times.append(perf_counter())
        n = len(self.times) - 1
        if n >= STEPS or n >= 2 and self.times[-1] - self.times[0] > SECONDS:
            raise CancelTrainException() if self.training else CancelValidException()

    def after_train(self):
        self.step = typical_interval(self.times)

    def after_validate(self):
        self.valid_batch = typical_interval(self.times)

    def after_fit(self):
        epochs = self.run.total_epochs - sum(fit.epochs for fit in self.run.fits)
        self.run.fits.append(TimedFit(epochs, self.step, self.valid_batch, perf_counter() - self.began))


def typical_interval(
    times: Sequence[float],  # Start, and end of each step
) -> float:
    "Return the median duration of the steps after the warm-up; of the last two if they are few."
    intervals = [after - before for before, after in pairwise(times)]
    return median(intervals[min(WARM_UP, max(0, len(intervals) - 2)) :]) if intervals else 0.0


class TimedBatches(ImageBatches):
    "A few batches of full size; training images repeat if they are few."

    @property
    def n(self):
        "The number of images"
        few = STEPS * self.bs
        return few if self.shuffle else min(few, len(self.dataset))

    @n.setter
    def n(
        self,
        n,  # From DataLoader
    ):
        "Ignore a new number of images: it depends on the batch size only."

    @property
    def progress(self):
        "The end of the training, at which images have their full size"
        return 1.0

    @progress.setter
    def progress(
        self,
        progress,  # From SeededOrder
    ):
        "Ignore the progress."

    def get_idxs(self):
        "Return the indices of the images."
        return [i % len(self.dataset) for i in range(self.n)]
