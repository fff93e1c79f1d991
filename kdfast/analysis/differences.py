"""Compare recipes with a baseline: differences and verdicts, corrected for their number. Imports no torch."""

from collections import defaultdict
from collections.abc import Sequence

from kdfast.analysis.contrasts import common_seeds, contrast_of
from kdfast.analysis.design import Declared, find_designs
from kdfast.analysis.metrics import Metric, metric_for
from kdfast.core.errors import KdfastError
from kdfast.runs.find import resolve_run_name
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir
from kdfast.stats.intervals import CONFIDENCE, simultaneous_confidence
from kdfast.stats.sequential import Design


def differences_from(
    folders: Sequence[RunDir],  # Runs on one data set
    recipe: str,  # The recipe to compare with
    margin: float,  # Smallest difference that matters, as a fraction
    metric: str | None = None,  # What verdicts judge; default: what the first design against `recipe` declares
    uncorrected: bool = False,  # Give every interval a confidence of 95 %, whatever the number of recipes
) -> list[dict]:
    """Return one row per other recipe: its difference from `recipe`, over the seeds that both have.

    A recipe that a design of this metric covers (`kdfast.analysis.design`) has the interval and the verdict of that
    design. The intervals of the others hold together: their rows have the number of these recipes, `comparisons`.
    Without a design, the default metric is the accuracy or, of several labels, the F1 per image. Raises KdfastError if
    `recipe` has no result.
    """
    reference = resolve_run_name(folders, recipe)
    declared = [d for d in find_designs(folders[0].path.parents[2], folders[0].data) if d.against == reference]
    judged = metric_for(folders, metric, next((d.metric for d in declared), None))
    runs = runs_with(folders, judged)
    if reference not in runs:
        known = ', '.join(runs) or 'none'
        raise KdfastError(f'no finished run {recipe} on {folders[0].data} to compare with; there are {known}')
    designs = designs_of(declared, judged)
    names = sorted(runs.keys() - {reference}, key=study_order)
    arms = {name: (runs[name], runs[reference]) for name in names}
    comparisons = sum(name not in designs and bool(common_seeds(arms[name])) for name in names)
    confidence = CONFIDENCE if uncorrected else simultaneous_confidence(max(1, comparisons))
    rows = []
    for name in names:
        row = contrast_of(arms[name], margin, judged, confidence, designs.get(name))
        more = {} if name in designs else dict(comparisons=comparisons)
        rows.append(dict(recipe=name, against=reference) | row | more)
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
