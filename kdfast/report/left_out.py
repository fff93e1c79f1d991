"Which runs and files tables and pages lack, as remarks. Imports no torch."

from collections.abc import Sequence

from kdfast.core.errors import listed
from kdfast.runs.run_dir import RunDir
from kdfast.runs.unfinished import unfinished_texts

SHOWN = 'metrics.csv', 'steps.csv', 'confusion.csv', 'predictions.npz', 'confused.npz'  # files that the page is made of


def unfinished_remarks(
    folders: Sequence[RunDir],  # Runs on one data set
) -> list[str]:
    "Return a remark for every run without a result: its state and the reason."
    return [f'not in the table: {text}' for text in unfinished_texts(folders)]


def damage_remarks(
    folders: Sequence[RunDir],  # Runs on one data set
    names: Sequence[str] = SHOWN,  # Of files
    missing: bool = True,  # Also of files that are missing
) -> list[str]:
    "Return a remark for every file that finished runs have lost, or that is not as they wrote it."
    found: dict[str, list[str]] = {}
    for name in names:
        for folder in folders:
            if folder.finished and (missing or (folder / name).exists()) and (problem := folder.problem(name)):
                found.setdefault(problem, []).append(f'{folder.recipe}, seed {folder.seed}')
    return [
        f'{problem}, and what needs it is left out: {listed(runs, "; ")}; remove and repeat these runs'
        for problem, runs in found.items()
    ]
