"""Compare recipes: paired differences in validation accuracy, their intervals and verdicts. Imports no torch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from kdfast.analysis.aggregate import differing_settings
from kdfast.core.errors import KdfastError
from kdfast.runs.find import resolve_run_name
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir
from kdfast.stats.intervals import Difference, mcnemar, over_images, over_seeds


def differences_from(
    folders: Sequence[RunDir],  # Runs on one data set
    recipe: str,  # The recipe to compare with
    margin: float,  # Smallest difference that matters, as a fraction
) -> list[dict]:
    """Return one row per other recipe: its difference from `recipe`, over the seeds that both have.

    Raises KdfastError if `recipe` has no result.
    """
    runs = defaultdict(dict)
    for folder in folders:
        if folder.finished and folder.result['valid_accuracy'] is not None:
            runs[folder.recipe][folder.seed] = folder
    reference = resolve_run_name(folders, recipe)
    if reference not in runs:
        known = ', '.join(runs) or 'none'
        raise KdfastError(f'no finished run {recipe} on {folders[0].data} to compare with; there are {known}')
    rows = []
    for name in sorted(runs.keys() - {reference}, key=study_order):
        rows.append(dict(recipe=name, against=reference) | paired_difference(runs[name], runs[reference], margin))
    return rows


def paired_difference(
    runs: Mapping[int, RunDir],  # Finished runs by seed
    others: Mapping[int, RunDir],  # Those of another recipe on the same data
    margin: float,  # Smallest difference that matters, as a fraction
) -> dict:
    """Compare the runs of the same seed, and return the row of one difference.

    The verdict is None without common seeds.
    With two or more seeds, the interval is Student's over seeds; with one, it is over its validation images.
    """
    seeds = sorted(runs.keys() & others.keys())
    if not seeds:
        return dict(seeds=seeds, verdict=None)
    differing = differing_settings([found[seed] for found in (runs, others) for seed in seeds])
    row = dict(seeds=seeds, differ_in=', '.join(differing))
    if len(seeds) > 1:
        values = [runs[seed].result['valid_accuracy'] - others[seed].result['valid_accuracy'] for seed in seeds]
        return row | with_verdict(over_seeds(values, accuracy_step(runs[seeds[0]])), margin)
    correct, other_correct = runs[seeds[0]].correct(), others[seeds[0]].correct()
    p_value = mcnemar(correct, other_correct)
    return row | with_verdict(over_images(correct, other_correct), margin) | dict(p_value=p_value)


def accuracy_step(
    folder: RunDir,  # A finished run that classifies
) -> float:
    "Return how much one validation image changes the accuracy."
    return 1 / (folder.result.get('valid_images') or sum(map(sum, folder.confusion()[1])))


def with_verdict(
    difference: Difference,  # Of accuracies
    margin: float,  # Smallest difference that matters, as a fraction
) -> dict:
    "Return the difference as plain numbers, with its verdict and the number of seeds that would decide."
    verdict = difference.verdict(margin)
    undecided = verdict == 'undecided' and difference.of == 'seeds'
    return dict(
        of=difference.of,
        n=difference.n,
        difference=difference.mean,
        sd=difference.sd,
        low=difference.low,
        high=difference.high,
        margin=margin,
        verdict=verdict,
        seeds_to_settle=difference.seeds_to_settle(margin) if undecided else None,
    )
