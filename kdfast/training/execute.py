"""Train a recipe, and the runs that it builds on."""

from pathlib import Path

from kdfast.core import distributed
from kdfast.data.dataset import Data
from kdfast.runs.recipes import Recipe
from kdfast.runs.run_dir import RunDir, locate_run
from kdfast.training import evaluation, identity
from kdfast.training.devices import repeatable
from kdfast.training.lifecycle import begin_run, call_main, check_identity, outcome_recorded
from kdfast.training.run import Run


def train(
    recipe: Recipe,  # What to do
    data: Data,  # On which images
    seed: int,  # With which random numbers
    given: dict,  # Arguments that are not the recipe's defaults
    kept_in: Path,  # Where runs are kept
    watch: tuple = (),  # Functions of a run's folder, each giving a callback that watches its fits
    rehearsed: bool = False,  # Whether this has been tried in small: as part of what needs it, or of a study
) -> RunDir:
    """Run `recipe`, and whatever it needs, unless that is finished already; the folder of its results.

    Before anything is trained or written, all of it is tried in small (`kdfast.rehearsal`), unless there is a checkpoint to go on from.
    Raises KdfastError, then, for whatever could not be trained, kept or loaded; Locked where another process trains the same; Diverged
    where a loss did. A run that fails keeps its folder and its checkpoints, which say so and are never taken for a result; the next
    start goes on from them.
    """
    arguments = recipe.resolve(given)
    folder = locate_run(kept_in, data.name, recipe.folder_name(arguments), seed)

    def finished():
        return distributed.broadcast_from_first(lambda: folder.finished)

    if not finished():
        run = Run(folder, data, seed, kept_in, watch, train)
        run.dls  # too few images, or to be shared unevenly, are said here, before a folder is made
        run.identity = identity.of(recipe, arguments, data)  # and a network that is none, or cannot be kept
        if not rehearsed:
            distributed.broadcast_from_first(lambda: try_first(run, recipe, arguments))
        with folder.locked():
            if not finished():
                return train_alone(run, recipe, arguments)
    check_identity(folder, recipe, data, arguments)  # finished before, or by another process just now
    return folder


def try_first(run, recipe, arguments):
    "In small; not again where the run has begun, and where another process trains it"
    from kdfast.training.rehearsal import rehearse

    if not (run.folder.has_checkpoints or run.folder.is_locked):
        rehearse(run, recipe, arguments)


def train_alone(run, recipe, arguments):
    "Train in a folder that no other process writes; how it went is put on record in any case"
    begin_run(run, recipe, arguments)
    with outcome_recorded(run), repeatable(run.dls.device):
        outcome = call_main(run, recipe, arguments)
        distributed.broadcast_from_first(
            lambda: run.folder.finish(
                evaluation.evaluate(run, arguments, outcome) | dict(skipped_images=run.data.skipped)
            )
        )
    return run.folder
