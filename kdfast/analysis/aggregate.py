"""Summarize the runs of each recipe: means and standard deviations. Imports no torch."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, stdev

from kdfast.analysis.comparability import check_same_images
from kdfast.analysis.measures import MEASURES
from kdfast.analysis.results import completed_result, several_labels
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir


def aggregate(
    folders: Sequence[RunDir],  # Runs on one data set
) -> list[dict]:
    """Return one row per recipe, in the order of the study.

    Each measure is a dictionary of mean, standard deviation and the values by seed; None if a run has no such number.
    `class_accuracy` has such a dictionary for each class; None for a class without validation images. Raises
    KdfastError for runs on different images, and for runs on images with one label beside runs on images with several.
    """
    check_same_images([folder for folder in folders if folder.finished])
    several_labels(folders)
    by_recipe = defaultdict(list)
    for folder in folders:
        if folder.finished:
            by_recipe[folder.recipe].append(completed_result(folder))
    rows = []
    for recipe in sorted(by_recipe, key=study_order):
        results = by_recipe[recipe]
        row = dict(recipe=recipe, data=results[0]['data'], n=len(results), seeds=[r['seed'] for r in results])
        for measure in MEASURES:
            row[measure.name] = mean_and_sd([measure.value(r) for r in results])
        row['class_accuracy'] = mean_by_class([r.get('class_accuracy') for r in results])
        row['teachers'] = sorted({r['teacher_sha256'] for r in results if r['teacher_sha256']})
        rows.append(row)
    return rows


def mean_and_sd(
    values: Sequence[float | None],  # A measure of each run, None where it is missing
):
    "Return mean, standard deviation (of two or more values) and the values; None if one is missing."
    if any(v is None for v in values):
        return None
    return dict(mean=mean(values), sd=stdev(values) if len(values) > 1 else None, values=values)


def mean_by_class(
    by_run,  # By run: classes and their numbers
):
    "Mean, standard deviation and values of the accuracy of each class; None if a run has no classes."
    if None in by_run:
        return None
    names = dict.fromkeys(name for accuracies in by_run for name in accuracies)
    return {name: mean_and_sd([accuracies.get(name) for accuracies in by_run]) for name in names}


def flat_table(
    rows: Sequence[dict],  # From `aggregate`
) -> list[list]:
    "Return the rows as a table for CSV, with a header: mean and standard deviation of each measure."
    header = ['data', 'recipe', 'n']
    for measure in MEASURES:
        header += [measure.name, f'{measure.name}_sd']
    table = [header]
    for row in rows:
        cells = [row['data'], row['recipe'], row['n']]
        for measure in MEASURES:
            found = row[measure.name] or dict(mean=None, sd=None)
            cells += [found['mean'], found['sd']]
        table.append(cells)
    return table
