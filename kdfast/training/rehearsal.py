"""A recipe tried in small before it is trained: what cannot be trained, judged, kept or loaded is said before the first epoch.

The recipe's own `main` runs on a few images, and so does that of every run that it needs and that is not finished: each fit is cut to
an epoch of two steps that move no weight, what `main` returns is judged and saved in a folder that is removed, and loaded again.
"""

import errno
import gc
import io
import random
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fastai.basics import Learner

from kdfast.core import distributed, signals
from kdfast.core.errors import Diverged, KdfastError, listed, reason, resource_failure, users_line
from kdfast.data.dataloaders import loaders
from kdfast.data.dataset import Data
from kdfast.models.saved import load_network
from kdfast.runs.recipes import Recipe, find_recipe
from kdfast.runs.run_dir import RunDir, locate_run
from kdfast.training import evaluation, identity, teacher_cache
from kdfast.training.checkpoints import KEPT
from kdfast.training.lifecycle import begin_run, call_main, check_identity
from kdfast.training.precision import autocast_state, restore_autocast
from kdfast.training.room import Room, check_room
from kdfast.training.run import Run
from kdfast.training.small import Brief, Weighed, few_batches, few_images

CLOSE = 1e-3  # how far the logits of a network may lie from those of its copy that was loaded, next to the largest


def rehearse(
    run: Run,  # Not begun
    recipe: Recipe,  # What it is to do
    arguments: dict,  # Every one of them
):
    """Try the recipe, and all that it needs, in small; afterwards nothing is left of it.

    Raises KdfastError for whatever would fail later: of a recipe or network of the user's with the file and line where it failed.
    """
    with rehearsal_stage() as aside:
        cast = Cast(run, aside)
        try:
            cast.perform(recipe, arguments, identity_of=run.identity)
        except Diverged:
            return  # of so few images a loss may be anything
    check_room(run.runs, cast.kept() + cast.while_trained())


def rehearse_all(
    wanted: list[tuple[Recipe, dict, list[int]]],  # Recipes, each with its arguments and seeds, behind what it needs
    data: Data,  # On which images
    kept_in: Path,  # Where runs are kept
    jobs: int,  # How many will be trained side by side
):
    "Try the recipes of a study, each once. Raises KdfastError, which names every one that fails."
    casts, failed = {}, {}
    with rehearsal_stage() as aside:
        for recipe, arguments, seeds in wanted:
            seed = seeds[0]
            if seed not in casts:
                casts[seed] = Cast(Run(locate_run(kept_in, data.name, recipe.name, seed), data, seed, kept_in), aside)
            try:
                casts[seed].perform(recipe, arguments, len(seeds))
            except Diverged:
                continue
            except KdfastError as e:
                failed.setdefault(e.message, []).append(recipe.folder_name(arguments))
    if failed:
        raise KdfastError(
            'nothing was trained: ' + '; '.join(f'{listed(names)}: {message}' for message, names in failed.items())
        )
    check_room(
        kept_in,
        sum(cast.kept() for cast in casts.values())
        + jobs * max((cast.while_trained() for cast in casts.values()), default=0),
    )


@contextmanager
def rehearsal_stage() -> Iterator[Path]:
    "A folder for rehearsals. Afterwards the process is as it was: random states, warnings, signals, memory."
    with ExitStack() as undone:
        aside = undone.enter_context(tempfile.TemporaryDirectory(prefix='kdfast-'))
        if torch.cuda.is_available():
            undone.callback(gc.collect)  # networks and optimizers hang together in circles, and would fill its memory
        undone.enter_context(same_random())
        undone.enter_context(same_signals())
        undone.enter_context(distributed.as_single_process())
        undone.enter_context(warnings.catch_warnings())
        warnings.simplefilter('ignore')
        for redirect in (redirect_stdout, redirect_stderr):
            undone.enter_context(redirect(io.StringIO()))
        try:
            yield Path(aside)
        except OSError as e:
            if e.errno != errno.ENOSPC or aside not in str(e.filename):
                raise
            raise KdfastError(
                f'{e.strerror}: {tempfile.gettempdir()} is full, and a network is saved there to try it: make room, or name another folder with TMPDIR'
            ) from e


@contextmanager
def same_random():
    "Afterwards all random numbers, and how cuDNN computes, are as before"
    states, cudnn = (random.getstate(), np.random.get_state()), torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        cudnn.deterministic, cudnn.benchmark = flags


@contextmanager
def same_signals():
    here = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in signals.MESSAGES} if here else {}
    try:
        yield
    finally:
        signals.training = False
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Cast:
    "The runs that are tried, each once."

    def __init__(
        self,
        run: Run,  # Whose images and seed they have
        aside: Path,  # Where they are kept meanwhile
    ):
        self.run, self.aside, self.played = (
            run,
            aside,
            {},
        )  # by folder: None while it is played, then the Room that it takes, or why it fails

    def perform(
        self,
        recipe: Recipe,
        arguments: dict,  # Every one of them
        seeds: int = 1,  # How many runs like this there will be
        identity_of: dict | None = None,  # Of the run, where it is known
    ) -> RunDir:  # As if the run were finished
        "Try one recipe, unless that has been done. Raises KdfastError."
        folder = locate_run(self.aside, self.run.data.name, recipe.folder_name(arguments), self.run.seed)
        if folder.path in self.played:
            known = self.played[folder.path]
        else:
            self.played[folder.path] = None
            known = self.played[folder.path] = self.play(folder, recipe, arguments, seeds, identity_of)
        if known is None:
            raise KdfastError(f'{recipe.name} needs itself: {recipe.file} leads back to it')
        if isinstance(known, KdfastError):
            raise known
        return folder

    def play(self, folder, recipe, arguments, seeds, identity_of):
        small = Rehearsal(folder, self)
        try:
            with recipe_errors(recipe, arguments):
                small.identity = identity.of(recipe, arguments, self.run.data) if identity_of is None else identity_of
                return small.play(recipe, arguments, seeds)
        except KdfastError as e:
            return e

    def rooms(self):
        return [room for room in self.played.values() if isinstance(room, Room)]

    def kept(self):
        return sum(room.kept for room in self.rooms())

    def while_trained(self):
        return max((room.while_trained for room in self.rooms()), default=0)


@contextmanager
def recipe_errors(recipe, arguments):
    "What fails is an error of the user's, unless it can only be ours"
    try:
        yield
    except (KdfastError, OSError):
        raise
    except Exception as e:
        if words := resource_failure(e):
            raise KdfastError(words) from e
        where = users_line(e)
        if not where and not identity.foreign(arguments):
            raise
        raise KdfastError(f'{where or f"{recipe.name} cannot be run with these networks"}: {reason(e)}') from e


# The run


class Rehearsal(Run):
    "A run in small: what it needs is another such run, or one that is finished."

    rehearsal = True

    def __init__(self, folder, cast):
        run = cast.run
        super().__init__(folder, run.data, run.seed, run.runs)
        self.cast, self.whole = cast, run.data
        self.kind, self.asked_epochs, self.sizes = partial(Brief, self), 0, {}
        self.keeper = partial(Weighed, self.sizes)
        self.dls = few_batches(run.dls)

    def needs(self, name, **given):
        network = super().needs(name, **given)
        self.caches = []  # outputs of these few images are not to be kept
        return network

    def train(self, name, given):
        recipe = find_recipe(name)
        arguments = recipe.resolve(given)
        trained = locate_run(self.runs, self.data.name, recipe.folder_name(arguments), self.seed)
        if not trained.finished:
            return self.cast.perform(recipe, arguments)
        check_identity(trained, recipe, self.data, arguments)
        return trained

    def play(self, recipe, arguments, seeds) -> Room:
        "What a run does, from its beginning to its end"
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

    def room(self, seeds):
        "What runs like it will take, and one while it is trained. Its logits are kept in half precision, the teacher's in single, on a CPU"
        n_train, n_valid = (len(labels) for _, labels in (self.whole.train, self.whole.valid))
        outputs = (
            4 * self.asked_epochs * n_train * len(self.data.classes)
            if self.upstream and self.dls.device.type == 'cpu'
            else 0
        )
        files = sum(file.stat().st_size for file in self.folder.path.iterdir() if file.is_file())
        kept = files + 2 * n_valid * len(self.data.classes) + min(outputs, teacher_cache.LIMIT)
        return Room(seeds * kept, sum(self.sizes.values()) + (KEPT + 1) * max(self.sizes.values(), default=0))


def check_loads(run, network):
    "Raise KdfastError where the network that was saved is not there, or is another one, when it is loaded"
    if 'network' not in getattr(network, 'built_by', {}):
        return  # an own module of the recipe's, or what a function in it made: nothing could build it again
    name, loaded = network.built_by['network'], load_network(run.folder)
    x = run.dls.valid.one_batch()[0].cpu()
    with torch.no_grad():
        torch.manual_seed(0)
        own = network.cpu().eval()(x)
        torch.manual_seed(0)
        again = loaded(x)
    if not isinstance(own, torch.Tensor):
        return
    if not (own.shape == again.shape and (own - again).abs().max() <= CLOSE * own.abs().max()):
        raise KdfastError(
            f'{name} gives other logits when it is saved and loaded again: what it computes with is not all in its state dict'
        )
