"Train seeds until every verdict is decided, look by look. Imports no torch."

from collections.abc import Callable

from kdfast.analysis.sequential import design_differences
from kdfast.runs.find import find_runs
from kdfast.study.design import Declared


def run_until_decided(
    declared: Declared,
    runs_dir,  # Where runs are kept
    data: str,  # Name of the data set
    train: Callable,  # Trains the first so many seeds of the study; gives the tasks without a result
    tell: Callable,  # Is given a line at every look
) -> tuple[list[dict], list]:  # The rows, and the tasks that failed
    "Train up to each look in turn, and stop at the first at which no recipe is undecided, or where a run fails."
    rows, failed = [], []
    for look in declared.design.looks:
        failed = train(look)
        rows = design_differences(
            find_runs(runs_dir, data), declared.against, declared.recipes, declared.design, declared.margin
        )
        tell(f'look at {look} seeds: {"; ".join(described(row) for row in rows)}')
        if failed or not any(row['verdict'] in (None, 'undecided') for row in rows):
            break
    return rows, failed


def described(row):
    return f'{row["recipe"]} {row["verdict"] or "without result"}'
