"""Train a recipe and the runs that it depends on."""

from pathlib import Path

from kdfast.core import distributed
from kdfast.core.signals import is_study_child
from kdfast.data.dataset import Data
from kdfast.runs.recipes import Recipe
from kdfast.runs.run_dir import RunDir, locate_run
from kdfast.training import evaluation, identity
from kdfast.training.devices import repeatable, threads_used
from kdfast.training.lifecycle import begin_run, call_main, check_identity, outcome_recorded
from kdfast.training.run import Run


def train(
    recipe: Recipe,  # Recipe to train
    data: Data,  # Images to train on
    seed: int,  # Seed of the run
    given: dict,  # Arguments of the recipe, and settings of every training, that differ from the defaults
    runs_dir: Path,  # Directory of the runs
    watch: tuple = (),  # Functions of a RunDir that return a callback for its fits, such as progress output
    rehearsed: bool = False,  # Whether the rehearsal was done, as part of another run's or of a study's
    threads: int | None = None,  # Threads on a CPU, which decide the last bits of the weights; default: torch's
) -> RunDir:
    """Train a recipe and the runs that it depends on, unless they are finished; return the run directory.

    Without a checkpoint to resume from, everything is rehearsed first (kdfast.training.rehearsal), before anything is
    written.

    Raises KdfastError for whatever cannot be trained, saved or loaded; Locked if another process trains the same run,
    for which the runs of a study wait; Diverged if a loss is not finite. The run directory and checkpoints of a failed
    run remain, marked as such; the next start resumes.
    """
    arguments = recipe.resolve(given)
    folder = locate_run(runs_dir, data.name, recipe.folder_name(arguments), seed)

    def finished():
        return distributed.broadcast_from_first(lambda: folder.finished)

    if not finished():
        run = Run(folder, data, seed, runs_dir, watch, train, recipe.settings_in(arguments))
        run.dls  # raises an error for too few images before the run directory is created
        run.identity = identity.identity_of(recipe, arguments, data)
        with threads_used(threads):
            if not rehearsed:
                distributed.broadcast_from_first(lambda: rehearse_first(run, recipe, arguments))
            with folder.locked(wait=is_study_child()):
                if not finished():
                    return train_alone(run, recipe, arguments)
    check_identity(folder, recipe, data, arguments, threads)  # finished before, or by another process meanwhile
    return folder


def rehearse_first(
    run: Run,  # Not begun
    recipe: Recipe,  # Recipe of the run
    arguments: dict,  # All of its arguments
):
    "Rehearse a run, unless it has a checkpoint or another process trains it."
    from kdfast.training.rehearsal import rehearse

    if not (run.folder.has_checkpoints or run.folder.is_locked):
        rehearse(run, recipe, arguments)


def train_alone(
    run: Run,  # Its directory is locked by this process
    recipe: Recipe,  # Recipe of the run
    arguments: dict,  # All of its arguments
) -> RunDir:
    "Train a run and record how it ended; return the run directory."
    begin_run(run, recipe, arguments)
    with outcome_recorded(run), repeatable(run.dls.device):
        outcome = call_main(run, recipe, arguments)

        def finish():
            result = evaluation.evaluate(run, arguments, outcome)
            run.folder.finish(result | dict(skipped_images=run.data.skipped))

        distributed.broadcast_from_first(finish)
    return run.folder
