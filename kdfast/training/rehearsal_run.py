"""One recipe in a rehearsal: train two steps, evaluate, save and load."""

from contextlib import contextmanager
from functools import partial

import torch
from fastai.basics import Learner

from kdfast.core.errors import KdfastError, reason, resource_failure, users_line
from kdfast.data.dataloaders import loaders
from kdfast.models.saved import load_network
from kdfast.runs.recipes import Recipe, find_recipe
from kdfast.runs.run_dir import RunDir, locate_run
from kdfast.training import evaluation, identity, teacher_cache
from kdfast.training.checkpoints import KEPT
from kdfast.training.lifecycle import begin_run, call_main, check_identity
from kdfast.training.precision import autocast_state, restore_autocast
from kdfast.training.room import Room
from kdfast.training.run import Run
from kdfast.training.small import MeasuredCheckpoints, ShortLearner, few_batches, few_images

CLOSE = 1e-3  # largest difference between logits of a network and of its loaded copy, relative to the largest logit


class RehearsalRun(Run):
    "A run of two steps; the runs that it depends on are rehearsed as well, or finished."

    rehearsal = True

    def __init__(
        self,
        folder: RunDir,  # Temporary run directory
        rehearsals,  # kdfast.training.rehearsal.Rehearsals, for the runs that it depends on
        settings: dict,  # As of Run
    ):
        run = rehearsals.run
        super().__init__(folder, run.data, run.seed, run.runs, settings=settings)
        self.rehearsals = rehearsals
        self.whole = run.data
        self.learner_class = partial(ShortLearner, self)
        self.total_epochs = 0  # of the fits as the recipe requests them
        self.checkpoint_bytes = {}  # by number of the fit
        self.checkpoints_class = partial(MeasuredCheckpoints, self.checkpoint_bytes)
        self.dls = self.shortened(run.dls)

    def shortened(
        self,
        dls,  # DataLoaders of the real run
    ):
        "Return DataLoaders of a few images of the same data sets."
        return few_batches(dls)

    def needs(
        self,
        name,  # Of a recipe
        **given,  # Its arguments
    ):
        "Return the network of a run, rehearsed or finished."
        network = super().needs(name, **given)
        self.teacher_caches = []  # the teacher's outputs for these few images are not saved
        return network

    def add_unlabeled(
        self,
        path,  # Directory or archive; empty for none
    ):
        "Rehearse on a few images of the data set and of those without labels."
        if path:
            super().add_unlabeled(path)
            self.dls = self.shortened(self.dls)

    def train(
        self,
        name,  # Of a recipe
        given,  # Its arguments
    ):
        "Rehearse a run that this one depends on, unless it is finished; return its run directory."
        recipe = find_recipe(name)
        arguments = recipe.resolve(given)
        trained = locate_run(self.runs, self.data.name, recipe.folder_name(arguments), self.seed)
        if not trained.finished:
            return self.rehearsals.rehearse(recipe, arguments)
        check_identity(trained, recipe, self.data, arguments)
        return trained

    def rehearse(
        self,
        recipe: Recipe,  # Recipe of the run
        arguments: dict,  # All of its arguments
        seeds: int,  # Number of runs like this that will be trained
    ) -> Room:
        "Do all that a run does, from beginning to end; return the disk space that the real runs need."
        begin_run(self, recipe, arguments)
        autocast = autocast_state(self.dls.device.type)
        try:
            outcome = call_main(self, recipe, arguments)
            self.data = few_images(self.data)
            self.dls = loaders(self.data, self.seed)
            result = evaluation.evaluate(self, arguments, outcome)
            check_loads(self, outcome.model if isinstance(outcome, Learner) else outcome)
            room = self.room(seeds)
            self.folder.finish(result)
            return room
        finally:
            restore_autocast(autocast)

    def room(
        self,
        seeds,  # Number of real runs
    ):
        """Return the disk space that the real runs need.

        Logits are saved in half precision; the teacher's logits are cached in single precision, on a CPU.
        """
        n_train, n_valid = (len(labels) for _, labels in (self.whole.train, self.whole.valid))
        n_classes = len(self.data.classes)
        uses_cache = self.upstream and self.dls.device.type == 'cpu'
        cache = 4 * self.total_epochs * n_train * n_classes if uses_cache else 0
        files = sum(file.stat().st_size for file in self.folder.path.iterdir() if file.is_file())
        kept = files + 2 * n_valid * n_classes + min(cache, teacher_cache.LIMIT)
        sizes = self.checkpoint_bytes.values()
        return Room(seeds * kept, sum(sizes) + (KEPT + 1) * max(sizes, default=0))


def check_loads(
    run: RehearsalRun,  # With the saved network
    network: torch.nn.Module,  # The network that was saved
):
    "Raise KdfastError if the saved network cannot be loaded or returns other logits."
    if 'network' not in getattr(network, 'build_info', {}):
        return  # built by the recipe itself: it cannot be built again
    name = network.build_info['network']
    loaded = load_network(run.folder)
    x = run.dls.valid.one_batch()[0].cpu().as_subclass(torch.Tensor)  # as in training
    with torch.no_grad():
        torch.manual_seed(0)
        expected = network.cpu().eval()(x)
        torch.manual_seed(0)
        found = loaded(x)
    if not isinstance(expected, torch.Tensor):
        return
    if not (expected.shape == found.shape and (expected - found).abs().max() <= CLOSE * expected.abs().max()):
        raise KdfastError(
            f'{name} returns other logits after saving and loading: its state dict lacks a part of its state'
        )


@contextmanager
def recipe_errors(
    recipe: Recipe,  # Recipe that runs
    arguments: dict,  # All of its arguments
):
    "Raise KdfastError for an error in the user's code or network; other errors are defects of kdfast."
    try:
        yield
    except (KdfastError, OSError):
        raise
    except Exception as e:
        if message := resource_failure(e):
            raise KdfastError(message) from e
        where = users_line(e)
        if not where and not identity.foreign_networks(arguments):
            raise
        raise KdfastError(f'{where or f"{recipe.name} cannot be run with these networks"}: {reason(e)}') from e
