"""Compare recipes: paired differences, their intervals and verdicts. Imports no torch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count, takewhile

from kdfast.analysis.aggregate import differing_settings
from kdfast.analysis.design import Declared, find_designs
from kdfast.analysis.metrics import ACCURACY, Metric, metric_for, paired_image_values
from kdfast.core.errors import KdfastError
from kdfast.runs.find import resolve_run_name
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir
from kdfast.stats.intervals import Difference, mcnemar, over_image_values, over_seeds
from kdfast.stats.sequential import Design, decide


def differences_from(
    folders: Sequence[RunDir],  # Runs on one data set
    recipe: str,  # The recipe to compare with
    margin: float,  # Smallest difference that matters, as a fraction
    metric: str | None = None,  # What verdicts judge; default: what the first design against `recipe` declares
) -> list[dict]:
    """Return one row per other recipe: its difference from `recipe`, over the seeds that both have.

    A recipe that a design of this metric covers (`kdfast.analysis.design`) has the interval and the verdict of that
    design. Without a design, the default metric is the accuracy or, of several labels, the F1 per image. Raises
    KdfastError if `recipe` has no result.
    """
    reference = resolve_run_name(folders, recipe)
    declared = [d for d in find_designs(folders[0].path.parents[2], folders[0].data) if d.against == reference]
    judged = metric_for(folders, metric, next((d.metric for d in declared), None))
    runs = runs_with(folders, judged)
    if reference not in runs:
        known = ', '.join(runs) or 'none'
        raise KdfastError(f'no finished run {recipe} on {folders[0].data} to compare with; there are {known}')
    designs = designs_of(declared, judged)
    rows = []
    for name in sorted(runs.keys() - {reference}, key=study_order):
        if name in designs:
            row = design_difference(runs[name], runs[reference], designs[name], margin, judged)
        else:
            row = paired_difference(runs[name], runs[reference], margin, judged)
        rows.append(dict(recipe=name, against=reference) | row)
    return rows


def runs_with(
    folders: Sequence[RunDir],  # Runs on one data set
    metric: Metric,  # Whose number is wanted
) -> dict[str, dict[int, RunDir]]:  # By recipe and seed
    "Return the finished runs that have the number of a metric."
    runs: dict[str, dict[int, RunDir]] = defaultdict(dict)
    for folder in folders:
        if folder.finished and metric.value(folder) is not None:
            runs[folder.recipe][folder.seed] = folder
    return runs


def designs_of(
    declared: Sequence[Declared],  # Against one baseline, the oldest first
    metric: Metric,  # What verdicts judge
) -> dict[str, Design]:
    "Return the design of each recipe; of several designs of this metric the first that was declared."
    designs: dict[str, Design] = {}
    for found in declared:
        if found.metric == metric.name:
            designs = dict.fromkeys(found.recipes, found.design) | designs
    return designs


def design_difference(
    runs: Mapping[int, RunDir],  # Finished runs by seed
    others: Mapping[int, RunDir],  # Those of the baseline
    design: Design,  # Looks of the study, and their confidence
    margin: float,  # Smallest difference that matters, as a fraction
    metric: Metric,  # What the verdict judges
) -> dict:
    """Return the row of the look that decides, or of the last one reached.

    Seeds count from 0, without gaps. The row has `look`, `confidence` and, as long as it is undecided, `next_look`;
    the verdict is None before the first look.
    """
    seeds = list(takewhile(lambda seed: seed in runs and seed in others, count()))
    values = [metric.value(runs[seed]) - metric.value(others[seed]) for seed in seeds]
    found = decide(design, values, metric.step(runs[0]) if seeds else 0.0, margin)
    if found is None:
        return dict(metric=metric.name, seeds=seeds, verdict=None, next_look=design.following(len(seeds)))
    used = [folders[seed] for folders in (runs, others) for seed in range(found.n)]
    row = dict(metric=metric.name, seeds=seeds[: found.n], differ_in=', '.join(differing_settings(used)))
    row |= with_verdict(found, margin)
    undecided = row['verdict'] == 'undecided'
    return row | dict(
        look=found.n,
        confidence=design.confidence(found.n),
        next_look=design.following(len(seeds)) if undecided else None,
        seeds_to_settle=None,
    )


def paired_difference(
    runs: Mapping[int, RunDir],  # Finished runs by seed
    others: Mapping[int, RunDir],  # Those of another recipe on the same data
    margin: float,  # Smallest difference that matters, as a fraction
    metric: Metric = ACCURACY,  # What the verdict judges
) -> dict:
    """Compare the runs of the same seed, and return the row of one difference.

    The verdict is None without common seeds.
    With two or more seeds, the interval is Student's over seeds; with one, it is over its validation images.
    Raises KdfastError if these are not the same for both runs.
    """
    seeds = sorted(runs.keys() & others.keys())
    if not seeds:
        return dict(metric=metric.name, seeds=seeds, verdict=None)
    differing = differing_settings([found[seed] for found in (runs, others) for seed in seeds])
    row = dict(metric=metric.name, seeds=seeds, differ_in=', '.join(differing))
    if len(seeds) > 1:
        values = [metric.value(runs[seed]) - metric.value(others[seed]) for seed in seeds]
        return row | with_verdict(over_seeds(values, metric.step(runs[seeds[0]])), margin)
    pair = runs[seeds[0]], others[seeds[0]]
    of_images, of_others = (found.tolist() for found in paired_image_values(metric, pair))
    differences = [a - b for a, b in zip(of_images, of_others)]
    row |= with_verdict(over_image_values(differences, metric.largest(pair[0])), margin)
    return row | (dict(p_value=mcnemar(of_images, of_others)) if metric is ACCURACY else {})


def with_verdict(
    difference: Difference,  # Of fractions
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
