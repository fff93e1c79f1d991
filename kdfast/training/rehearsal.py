"""Rehearse recipes before training, so that errors appear before the first epoch.

A rehearsal calls the recipe's own `main` on a few images, and those of all runs that it depends on and that are not
finished. Each fit is reduced to one epoch of two steps that change no weight. The result of `main` is evaluated,
saved in a temporary directory, and loaded again.
"""

from collections.abc import Callable
from pathlib import Path

from kdfast.core.errors import Diverged, KdfastError, listed
from kdfast.data.dataset import Data
from kdfast.runs.recipes import Recipe
from kdfast.runs.run_dir import RunDir, locate_run
from kdfast.training import identity
from kdfast.training.rehearsal_run import RehearsalRun, recipe_errors
from kdfast.training.rehearsal_stage import rehearsal_stage
from kdfast.training.room import Room, check_room
from kdfast.training.run import Run


def rehearse(
    run: Run,  # The run, not begun
    recipe: Recipe,  # Its recipe
    arguments: dict,  # All arguments of the recipe
):
    """Rehearse a run and all runs that it depends on; nothing of it remains.

    Raises KdfastError for errors that training would meet later; for errors in the user's recipe or network with file
    and line.
    """
    with rehearsal_stage() as directory:
        rehearsals = Rehearsals(run, directory)
        try:
            rehearsals.rehearse(recipe, arguments, identity_of=run.identity)
        except Diverged:
            return  # with so few images, a loss can have any value
    check_room(run.runs, rehearsals.kept() + rehearsals.while_trained())


def rehearse_all(
    wanted: list[tuple[Recipe, dict, list[int]]],  # Recipe, arguments and seeds; each after what it depends on
    data_of: Callable[[int], Data],  # Returns the images to train on with a seed
    runs_dir: Path,  # Directory of the runs
    jobs: int,  # Number of parallel runs
):
    "Rehearse the recipes of a study, each once. Raises KdfastError with the names of all that fail."
    by_seed, failed = {}, {}
    with rehearsal_stage() as directory:
        for recipe, arguments, seeds in wanted:
            seed = seeds[0]
            if seed not in by_seed:
                data = data_of(seed)
                run = Run(locate_run(runs_dir, data.name, recipe.name, seed), data, seed, runs_dir)
                by_seed[seed] = Rehearsals(run, directory)
            try:
                by_seed[seed].rehearse(recipe, arguments, len(seeds))
            except Diverged:
                continue
            except KdfastError as e:
                failed.setdefault(e.message, []).append(recipe.folder_name(arguments))
    if failed:
        problems = '; '.join(f'{listed(names)}: {message}' for message, names in failed.items())
        raise KdfastError(f'nothing was trained: {problems}')
    kept = sum(rehearsals.kept() for rehearsals in by_seed.values())
    while_trained = max((rehearsals.while_trained() for rehearsals in by_seed.values()), default=0)
    check_room(runs_dir, kept + jobs * while_trained)


class Rehearsals:
    "The runs of one rehearsal, each rehearsed once."

    run_class = RehearsalRun

    def __init__(
        self,
        run: Run,  # The run whose data and seed they use
        directory: Path,  # Temporary directory of their run directories
    ):
        self.run = run
        self.directory = directory
        self.outcomes = {}  # by run directory: Room, KdfastError, or None during the rehearsal

    def rehearse(
        self,
        recipe: Recipe,  # Recipe to rehearse
        arguments: dict,  # All of its arguments
        seeds: int = 1,  # Number of runs like this that will be trained
        identity_of: dict | None = None,  # Identity of the run, if known
    ) -> RunDir:  # Temporary; like that of a finished run
        "Rehearse one recipe, unless that was done before. Raises KdfastError if the rehearsal fails."
        folder = locate_run(self.directory, self.run.data.name, recipe.folder_name(arguments), self.run.seed)
        if folder.path in self.outcomes:
            outcome = self.outcomes[folder.path]
        else:
            self.outcomes[folder.path] = None
            outcome = self.outcomes[folder.path] = self.outcome(folder, recipe, arguments, seeds, identity_of)
        if outcome is None:
            raise KdfastError(f'{recipe.name} depends on itself ({recipe.file})')
        if isinstance(outcome, KdfastError):
            raise outcome
        return folder

    def outcome(
        self,
        folder,  # Temporary run directory
        recipe,  # To rehearse
        arguments,  # All arguments of the run
        seeds,  # Number of runs with these arguments
        identity_of,  # Identity of the run; None to compute it
    ):
        "Rehearse one recipe; return the disk space that it needs, or the error."
        run = self.run_class(folder, self, recipe.settings_in(arguments))
        try:
            with recipe_errors(recipe, arguments):
                run.identity = (
                    identity.identity_of(recipe, arguments, self.run.data) if identity_of is None else identity_of
                )
                return run.rehearse(recipe, arguments, seeds)
        except KdfastError as e:
            return e

    def rooms(self):
        "Return the disk space of each run that was rehearsed successfully."
        return [outcome for outcome in self.outcomes.values() if isinstance(outcome, Room)]

    def kept(self):
        "Return the bytes that all runs keep."
        return sum(room.kept for room in self.rooms())

    def while_trained(self):
        "Return the largest number of bytes that one run needs for checkpoints."
        return max((room.while_trained for room in self.rooms()), default=0)
