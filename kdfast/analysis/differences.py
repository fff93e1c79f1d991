"""Compare recipes: paired differences in validation accuracy, their intervals and verdicts. Imports no torch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count, takewhile

from kdfast.analysis.aggregate import differing_settings
from kdfast.analysis.design import find_designs
from kdfast.core.errors import KdfastError
from kdfast.runs.find import resolve_run_name
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir
from kdfast.stats.intervals import Difference, mcnemar, over_images, over_seeds
from kdfast.stats.sequential import Design, decide


def differences_from(
    folders: Sequence[RunDir],  # Runs on one data set
    recipe: str,  # The recipe to compare with
    margin: float,  # Smallest difference that matters, as a fraction
) -> list[dict]:
    """Return one row per other recipe: its difference from `recipe`, over the seeds that both have.

    A recipe that a design covers (`kdfast.analysis.design`) has the interval and the verdict of that design.
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
    designs = designs_against(folders[0], reference)
    rows = []
    for name in sorted(runs.keys() - {reference}, key=study_order):
        if name in designs:
            row = design_difference(runs[name], runs[reference], designs[name], margin)
        else:
            row = paired_difference(runs[name], runs[reference], margin)
        rows.append(dict(recipe=name, against=reference) | row)
    return rows


def designs_against(
    folder: RunDir,  # Any run on the data set
    reference: str,  # The baseline, as its directory is called
) -> dict[str, Design]:
    "Return the design of each recipe that one covers; the first one that was declared counts."
    designs: dict[str, Design] = {}
    for declared in find_designs(folder.path.parents[2], folder.data):
        if declared.against == reference:
            designs = dict.fromkeys(declared.recipes, declared.design) | designs
    return designs


def design_difference(
    runs: Mapping[int, RunDir],  # Finished runs by seed
    others: Mapping[int, RunDir],  # Those of the baseline
    design: Design,  # Looks of the study, and their confidence
    margin: float,  # Smallest difference that matters, as a fraction
) -> dict:
    """Return the row of the look that decides, or of the last one reached.

    Seeds count from 0, without gaps. The row has `look`, `confidence` and, as long as it is undecided, `next_look`;
    the verdict is None before the first look.
    """
    seeds = list(takewhile(lambda seed: seed in runs and seed in others, count()))
    values = [runs[seed].result['valid_accuracy'] - others[seed].result['valid_accuracy'] for seed in seeds]
    found = decide(design, values, accuracy_step(runs[0]) if seeds else 0.0, margin)
    if found is None:
        return dict(seeds=seeds, verdict=None, next_look=design.following(len(seeds)))
    used = [folders[seed] for folders in (runs, others) for seed in range(found.n)]
    row = dict(seeds=seeds[: found.n], differ_in=', '.join(differing_settings(used))) | with_verdict(found, margin)
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
