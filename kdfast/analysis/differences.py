"Recipes against each other: paired differences in accuracy, their intervals and verdicts."

from collections import defaultdict

from kdfast.analysis.aggregate import differing_settings
from kdfast.core.errors import KdfastError
from kdfast.runs.find import resolve_run_name
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir
from kdfast.stats.intervals import Difference, mcnemar, over_images, over_seeds


def differences_from(
    folders: list[RunDir],  # Runs on one data set
    recipe: str,  # The recipe to compare with
    margin: float,  # Smallest difference that matters, as a fraction
) -> list[dict]:
    "A row a recipe: its difference from the given one, over the seeds that both have. Raises KdfastError where that has no result."
    runs = defaultdict(dict)
    for folder in folders:
        if folder.finished and folder.result['valid_accuracy'] is not None:
            runs[folder.recipe][folder.seed] = folder
    other = resolve_run_name(folders, recipe)
    if other not in runs:
        raise KdfastError(
            f'no finished run {recipe} on {folders[0].data} to compare with; there are {", ".join(runs) or "none"}'
        )
    return [
        dict(recipe=name, against=other) | paired_difference(runs[name], runs[other], margin)
        for name in sorted(runs.keys() - {other}, key=study_order)
    ]


def paired_difference(
    runs: dict[int, RunDir],  # Finished runs by seed
    others: dict[int, RunDir],  # Those of another recipe on the same data
    margin: float,  # Smallest difference that matters, as a fraction
) -> dict:
    "Runs of one seed are pairs: from two seeds on, Student's interval; with one, that of its validation images."
    seeds = sorted(runs.keys() & others.keys())
    if not seeds:
        return dict(seeds=seeds, verdict=None)
    found = dict(
        seeds=seeds, differ_in=', '.join(differing_settings([found[s] for found in (runs, others) for s in seeds]))
    )
    if len(seeds) > 1:
        values = [runs[s].result['valid_accuracy'] - others[s].result['valid_accuracy'] for s in seeds]
        return found | with_verdict(over_seeds(values, accuracy_step(runs[seeds[0]])), margin)
    right, other_right = runs[seeds[0]].correct(), others[seeds[0]].correct()
    return found | with_verdict(over_images(right, other_right), margin) | dict(p_value=mcnemar(right, other_right))


def accuracy_step(
    folder: RunDir,  # A finished run that classifies
) -> float:
    "By how much one validation image moves its accuracy."
    return 1 / (folder.result.get('valid_images') or sum(map(sum, folder.confusion()[1])))


def with_verdict(
    difference: Difference,  # Of accuracies
    margin: float,  # Smallest difference that matters
) -> dict:
    "A difference as plain numbers, with its verdict and, where it is undecided, how many seeds would settle it."
    verdict = difference.verdict(margin)
    settle = difference.seeds_to_settle(margin) if (verdict, difference.of) == ('undecided', 'seeds') else None
    return dict(
        of=difference.of,
        n=difference.n,
        difference=difference.mean,
        sd=difference.sd,
        low=difference.low,
        high=difference.high,
        margin=margin,
        verdict=verdict,
        seeds_to_settle=settle,
    )
