"Train seeds until every verdict is decided, look by look. Imports no torch."

from collections.abc import Callable, Sequence
from pathlib import Path

from kdfast.analysis.design import Declared
from kdfast.analysis.differences import differences_from
from kdfast.core.errors import KdfastError, listed
from kdfast.runs.find import find_runs


def run_until_decided(
    declared: Declared,  # The design, which is written already
    runs_dir: Path,  # Directory of the runs
    data: str,  # Name of the data set
    train: Callable,  # Trains the first seeds of the study, given their number; returns the tasks without a result
    tell: Callable,  # Prints a line
    enough: Callable | None = None,  # Whether rows of differences end the study; default: no recipe is undecided
) -> list:  # Tasks without a result
    """Train up to each look in turn, until the verdicts are enough or a run fails.

    Raises KdfastError for a recipe whose runs have no accuracy.
    """
    for look in declared.looks:
        failed = train(look)
        if failed:
            return failed
        found = differences_from(find_runs(runs_dir, data), declared.against, declared.margin, declared.metric)
        rows = [row for row in found if row['recipe'] in declared.recipes]
        if missing := set(declared.recipes) - {row['recipe'] for row in rows}:
            raise KdfastError(f'no accuracy to compare: {listed(sorted(missing))} trains no classifier; leave it out')
        tell(f'look at {look} seeds: ' + ', '.join(f'{row["recipe"]} {row["verdict"]}' for row in rows))
        if (enough or all_decided)(rows):
            break
    return []


def all_decided(
    rows: Sequence[dict],  # From `differences_from`
) -> bool:
    "Return whether every recipe is better, worse or alike."
    return all(row['verdict'] not in (None, 'undecided') for row in rows)
