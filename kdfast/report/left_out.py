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


def missing_remarks(
    folders: Sequence[RunDir],  # Runs on one data set
) -> list[str]:
    "Return a remark for every file of the page that finished runs have lost."
    remarks = []
    for name in SHOWN:
        lost = [f for f in folders if f.finished and not (f / name).is_file() and f.had(name)]
        if lost:
            names = listed([f'{folder.recipe}, seed {folder.seed}' for folder in lost], '; ')
            remarks.append(f'{name} is missing, and what needs it is left out: {names}; remove and repeat these runs')
    return remarks
