"""Compare recipes with a baseline: differences and verdicts, corrected for their number. Imports no torch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from kdfast.analysis.contrasts import Runs, common_seeds, contrast_of
from kdfast.analysis.design import Declared, find_designs
from kdfast.analysis.metrics import Metric, NeedsSeeds, metric_for
from kdfast.core.errors import KdfastError
from kdfast.runs.find import resolve_run_name
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir
from kdfast.runs.run_files import DamagedFile
from kdfast.runs.unfinished import unfinished_hint
from kdfast.stats.intervals import CONFIDENCE, MARGIN, simultaneous_confidence


class NoReference(KdfastError):
    "The recipe to compare with has no result on a data set."


def differences_from(
    folders: Sequence[RunDir],  # Runs on one data set
    recipe: str,  # The recipe to compare with
    margin: float | None = None,  # Smallest difference that matters, as a fraction; default: as declared, else MARGIN
    metric: str | None = None,  # What verdicts judge; default: what the first design against `recipe` declares
    uncorrected: bool = False,  # Give every interval a confidence of 95 %, whatever the number of recipes
) -> list[dict]:
    """Return one row per other recipe: its difference from `recipe`, over the seeds that both have.

    A recipe that a design of this metric covers (`kdfast.analysis.design`) has the interval and the verdict of that
    design, judged by its margin unless another is given. The intervals of the others hold together: their rows have the
    number of these recipes, `comparisons`.
    Without a design, the default metric is the accuracy or, of several labels, the F1 per image. A row whose runs have
    lost a file, or need more seeds for this metric, has no verdict, but the reason, `left_out`. Raises NoReference if
    `recipe` has no result.
    """
    reference = resolve_run_name(folders, recipe)
    declared = [d for d in find_designs(folders[0].path.parents[2], folders[0].data) if d.against == reference]
    judged = metric_for(folders, metric, next((d.metric for d in declared), None))
    runs = runs_with(folders, judged)
    if reference not in runs:
        known = ', '.join(runs) or 'none'
        raise NoReference(
            f'no finished run {recipe} on {folders[0].data} to compare with; there are {known}'
            + unfinished_hint(folders)
        )
    names = sorted(runs.keys() - {reference}, key=study_order)
    arms = {name: (runs[name], runs[reference]) for name in names}
    rows = contrasts(arms, designs_of(declared, judged), margin, judged, uncorrected)
    return [dict(recipe=name, against=reference) | rows[name] for name in names]


def contrasts(
    arms: Mapping[str, Sequence[Runs]],  # Runs of each recipe and of the reference
    designs: Mapping[str, Declared],  # Of the recipes that have one
    margin: float | None,  # Smallest difference that matters, as a fraction; default: as of `differences_from`
    metric: Metric,  # What verdicts judge
    uncorrected: bool,  # Whether every interval has a confidence of 95 %
) -> dict[str, dict]:  # Rows by recipe
    "Return the row of each recipe; one that lacks a file or seeds does not affect the others."
    comparisons = sum(name not in designs and bool(common_seeds(pair)) for name, pair in arms.items())
    confidence = CONFIDENCE if uncorrected else simultaneous_confidence(max(1, comparisons))
    rows = {}
    for name, pair in arms.items():
        try:
            rows[name] = judged_row(pair, designs.get(name), margin, metric, confidence)
        except (DamagedFile, NeedsSeeds) as e:
            others = {other: of_other for other, of_other in arms.items() if other != name}
            seeds, why = common_seeds(pair), dict(reason=e.reason, left_out=e.message)
            row = dict(metric=metric.name, seeds=seeds, verdict=None) | why
            return contrasts(others, designs, margin, metric, uncorrected) | {name: row}
        if name not in designs:
            rows[name]['comparisons'] = comparisons
    return rows


def judged_row(
    pair,  # Runs of a recipe and of the reference
    declared,  # The design of the recipe, if it has one
    margin,  # Smallest difference that matters, as a fraction; default: as of `differences_from`
    metric,  # What the verdict judges
    confidence,  # Of the interval without a design
):
    "Return the row of a recipe; with a design, also the margin for which its error rate holds."
    if not declared:
        return contrast_of(pair, MARGIN if margin is None else margin, metric, confidence)
    limit = declared.margin if margin is None else margin
    return contrast_of(pair, limit, metric, confidence, declared.design) | dict(declared_margin=declared.margin)


def refuse_left_out(
    rows: Sequence[dict],  # From `differences_from`
):
    "Raise KdfastError if a row has no verdict because of a damaged file: more seeds would not help."
    for row in rows:
        if 'left_out' in row:
            raise KdfastError(row['left_out'])


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
) -> dict[str, Declared]:
    "Return the design of each recipe; of several designs of this metric the first that was declared."
    designs: dict[str, Declared] = {}
    for found in declared:
        if found.metric == metric.name:
            designs = dict.fromkeys(found.recipes, found) | designs
    return designs
