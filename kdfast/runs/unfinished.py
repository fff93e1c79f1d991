"Name the runs that have no result, with their states and the reasons. Imports no torch."

from collections.abc import Sequence

from kdfast.core.errors import listed
from kdfast.runs.run_dir import RunDir

UNKNOWN = 'unknown state'  # of a run whose record has none
DAMAGED = 'damaged'  # of a finished run that has lost its result


def unfinished_runs(
    folders: Sequence[RunDir],  # Runs on one data set
) -> list[dict]:
    "Return recipe, seed, status and reason of every run without a result; a missing reason is None."
    return [
        dict(recipe=folder.recipe, seed=folder.seed, status=folder.status, reason=reason_of(folder))
        for folder in folders
        if not folder.finished
    ]


def reason_of(
    folder: RunDir,  # Any run
) -> str | None:
    "Return why a run is not finished, or what is wrong with its files; None if unknown."
    return folder.flaw or folder.run.get('reason') or None


def diverged_advice(
    folder: RunDir,  # A run that diverged
) -> str:
    "Return what helps: its checkpoint is that of the steps before, which lead to the same step."
    return (
        'the same command diverges again, while other options, such as a lower --lr, make another run; after a change '
        f'of the code, move {folder} away'
    )


def state_of(
    folder: RunDir,  # Any run
) -> str:
    "Return the state of a run for readers."
    return folder.status or (UNKNOWN if folder.problem('run.json') else DAMAGED)


def unfinished_texts(
    folders: Sequence[RunDir],  # Runs on one data set
) -> list[str]:
    "Return what `unfinished_runs` says of each run, such as: kd, seed 0: failed (no luck)."
    return [
        f'{folder.recipe}, seed {folder.seed}: {state_of(folder)}' + (f' ({reason})' if reason else '')
        for folder, reason in ((folder, reason_of(folder)) for folder in folders if not folder.finished)
    ]


def unfinished_hint(
    folders: Sequence[RunDir],  # Any runs
    recipe: str | None = None,  # Name of runs: only those of its recipe count; all by default
) -> str:
    "Return which of them are unfinished, for the end of a message; nothing if none is."
    by_data = {name: [f for f in folders if f.data == name] for name in dict.fromkeys(f.data for f in folders)}
    if recipe is not None:
        base = recipe.split(',')[0]
        by_data = {name: [f for f in found if f.recipe.split(',')[0] == base] for name, found in by_data.items()}
    texts = {name: unfinished_texts(of_data) for name, of_data in by_data.items()}
    named = [f'{text} on {name}' if len(texts) > 1 else text for name, found in texts.items() for text in found]
    return f'; unfinished: {listed(named, "; ")}' if named else ''


def none_finished(
    folders: Sequence[RunDir],  # Unfinished runs on one data set
) -> str:
    "Return the sentence that says so."
    return f'no run on {folders[0].data} is finished: {listed(unfinished_texts(folders), "; ")}'
