"""Answer whether distillation helps a student: from the verdicts of a declared design. Imports no torch.

The intervals of a design hold together, over all its looks and recipes: at most 5 % of studies have one that misses its
true difference. What is said here follows from these intervals alone, so that choosing the best recipe and the moment
to stop does not add errors. The mean difference of the best of several recipes is too high on average; it is not said.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import mean

from kdfast.analysis.design import Declared
from kdfast.analysis.differences import differences_from, refuse_left_out
from kdfast.analysis.metrics import METRICS
from kdfast.analysis.spread import largest_step
from kdfast.core.names import is_run
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream import find_upstream
from kdfast.runs.upstream_paths import upstream_entries
from kdfast.stats.planning import remedies_of

YES, NO, UNDECIDED = 'yes', 'no', 'undecided'


def answer_of(
    rows: Sequence[dict],  # From `differences_from`, of all recipes of the design
) -> str:
    """Return yes if a recipe is better, no if each is alike or worse, else undecided.

    A study may stop as soon as this is not undecided: the intervals hold at every look.
    """
    verdicts = [row['verdict'] for row in rows]
    if 'better' in verdicts:
        return YES
    return NO if verdicts and set(verdicts) <= {'alike', 'worse'} else UNDECIDED


def chosen_row(
    rows: Sequence[dict],  # From `differences_from`, one of them better
) -> dict:
    "Return the better recipe with the highest lower end of its interval."
    return max((row for row in rows if row['verdict'] == 'better'), key=lambda row: row['low'])


def training_seconds(
    folders: Sequence[RunDir],  # Finished runs of one recipe
) -> dict[str, float]:  # By recipe, the own one last; means over the runs
    "Return what training a model took: the run and those that it needs, but no given teacher."
    found: dict[str, list[float]] = {}
    for folder in folders:
        given = is_run(str(folder.run.get('arguments', {}).get('teacher', '')))
        for run in [*needed_runs(folder), folder]:
            name = run.run.get('recipe')
            if not (given and name == 'teacher'):
                found.setdefault(name, []).append(run.result['seconds'])
    return {name: mean(seconds) for name, seconds in found.items()}


def needed_runs(
    folder: RunDir,  # A finished run
) -> list[RunDir]:
    "Return the runs that a run needed, each once and after its own needs."
    found: dict = {}
    for entry in upstream_entries(folder):
        if other := find_upstream(folder, entry):
            found |= {run.path.resolve(): run for run in (*needed_runs(other), other)}
    return list(found.values())


def best_run(
    folders: Sequence[RunDir],  # Finished runs
    metric: str,  # By its name
) -> RunDir:
    "Return the run with the highest value; of several the lowest seed."
    return max(sorted(folders, key=lambda run: run.seed), key=METRICS[metric].value)


def answer(
    folders: Sequence[RunDir],  # Runs on the data set
    design: Declared,  # Of the study
    class_sizes: Sequence[int],  # Validation images, as of `kdfast.analysis.spread.spreads`
) -> dict:
    """Return the answer with rows, costs, the best model, and the next look or what a decision would need.

    Before the first look there are no rows, and `n` is 0.
    """
    finished = [folder for folder in folders if folder.finished]
    names = design.against, *design.recipes
    by_name = {name: [run for run in finished if run.recipe == name] for name in names}
    rows = design_rows(folders, design) if by_name[design.against] else []
    found = dict(answer=UNDECIDED, margin=design.margin, metric=design.metric, looks=design.looks, n=0)
    found |= dict(recipes=[], baseline=None, best=None, next=None, needed=None)
    if not rows or any(row['verdict'] is None for row in rows):
        return found
    found |= dict(answer=answer_of(rows), n=max(row['n'] for row in rows), recipes=rows)
    for row in rows:
        row |= dict(name=short_name(row['recipe']), seconds=training_seconds(by_name[row['recipe']]))
    found['baseline'] = sum(training_seconds(by_name[design.against]).values())
    best = best_run(candidates(found['answer'], rows, by_name, design.against), design.metric)
    value = METRICS[design.metric].value(best)
    found['best'] = dict(name=short_name(best.recipe), recipe=best.recipe, seed=best.seed, value=value)
    if found['answer'] == UNDECIDED:
        following = max((row['next_look'] or 0 for row in rows), default=0)
        found['next'] = dict(seeds=following) if following else None
        found['needed'] = None if following else needed_to_decide(rows, design, class_sizes)
    return found


def design_rows(
    folders,  # Runs on the data set
    design,  # Of the study
):
    "Return the differences of the recipes of the design, in its order; none if a recipe has no results."
    found = {row['recipe']: row for row in differences_from(folders, design.against, design.margin, design.metric)}
    refuse_left_out([found[name] for name in design.recipes if name in found])
    return [found[name] for name in design.recipes] if set(design.recipes) <= found.keys() else []


def candidates(
    answer,  # yes, no or undecided
    rows,  # Of the recipes
    by_name,  # Finished runs
    against,  # The baseline
):
    "Return the runs of the chosen recipe, of the baseline if none helps, of all if it is undecided."
    if answer == YES:
        return by_name[chosen_row(rows)['recipe']]
    return by_name[against] if answer == NO else [run for of_recipe in by_name.values() for run in of_recipe]


def needed_to_decide(
    rows,  # Of the last look
    design,  # Of the study
    class_sizes,  # Validation images of each class
):
    "Return the images and the margin with which the same looks would be expected to decide."
    sd = sqrt(mean(row['sd'] ** 2 for row in rows))
    step = largest_step(class_sizes, design.metric)
    return remedies_of(design.design, sd, step, design.margin, sum(class_sizes))


def short_name(
    recipe,  # Name of a run
):
    "Return the name of its recipe."
    return recipe.split(',')[0]
