"How much differences between recipes vary over seeds: from finished runs, or from an expected error. Imports no torch."

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, variance

from kdfast.analysis.design import Declared
from kdfast.analysis.differences import runs_with
from kdfast.analysis.metrics import ACCURACY, BALANCED, METRICS
from kdfast.core.errors import KdfastError
from kdfast.runs.run_dir import RunDir
from kdfast.stats.planning import balanced_images, expected_sd

ASSUMED = 0.05, 0.2, 0.4  # errors to plan for if nothing is known


@dataclass(frozen=True)
class Spread:
    "Standard deviation of a paired difference, and where it is known from."

    sd: float
    source: str  # For readers
    error: float | None = None  # Share of wrong images that it was computed from


def spreads(
    folders: Sequence[RunDir],  # Runs on the data set
    declared: Declared,  # What will be compared
    class_sizes: Sequence[int],  # Validation images of each class; of several labels the number of all images
    error: float | None,  # Expected share of wrong images, if the user gives it
) -> list[Spread]:
    """Return what is known best: finished pairs, else a given error, else that of finished runs.

    If none is known, one spread for each of ASSUMED. Raises KdfastError for F1, whose spread follows from runs only.
    """
    metric = METRICS[declared.metric]
    runs = runs_with(folders, metric)
    if found := of_pairs(runs, declared, metric):
        return [found]
    if metric not in (ACCURACY, BALANCED):
        raise KdfastError(
            f'how much the {metric.label} varies is known from finished runs only: train the first ones with '
            'kdfast study … --seeds 3, then plan again'
        )
    n_images = balanced_images(class_sizes) if metric is BALANCED else sum(class_sizes)
    if error is None:
        known = {name: runs[name] for name in (declared.against, *declared.recipes) if name in runs}
        values = [metric.value(run) for of_recipe in known.values() for run in of_recipe.values()]
        errors = {1 - mean(values): f'the error of {len(values)} finished runs'} if values else {}
        errors = errors or dict.fromkeys(ASSUMED, 'assumed')
    else:
        errors = {error: '--error'}
    return [Spread(expected_sd(e, e, n_images), source, e) for e, source in errors.items()]


def of_pairs(
    runs,  # From `runs_with`
    declared,  # What is compared
    metric,  # What verdicts judge
):
    "Return the pooled spread of finished pairs; None for fewer than two degrees of freedom."
    baseline, squares, df = runs.get(declared.against, {}), 0.0, 0
    for name in declared.recipes:
        seeds = sorted(baseline.keys() & runs.get(name, {}).keys())
        if len(seeds) > 1:
            values = [metric.value(runs[name][seed]) - metric.value(baseline[seed]) for seed in seeds]
            squares += (len(seeds) - 1) * variance(values)
            df += len(seeds) - 1
    if df < 2:
        return None
    return Spread(sqrt(squares / df), f'paired differences of finished runs, {df} degrees of freedom')


def largest_step(
    class_sizes: Sequence[int],  # As of `spreads`
    metric: str,  # What verdicts judge, by its name
) -> float:
    "Return how much one validation image can change the number of a run."
    present = [n for n in class_sizes if n]
    return 1 / (len(present) * min(present)) if metric == BALANCED.name else 1 / sum(present)
