"""Describe learning curves in numbers: over-fitting, convergence, stability. Imports no torch."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, stdev

from kdfast.analysis.results import main_score
from kdfast.runs.find import resolve_run_name
from kdfast.runs.run_dir import RunDir

COMPARISONS = [('teacher', 'baseline'), ('exp1', 'exp2'), ('baseline', 'kd', 'exp2')]  # those of the study
TOLERANCE = 0.01  # of accuracy: closer to the final value counts as converged
LAST_EPOCHS = 5  # over which stability is measured
LOSSES = ('train_loss', 'soft_loss', 'hard_loss', 'fit_loss')


def curve_summary(
    folder: RunDir,  # A finished run that classifies
) -> dict:
    """Describe the learning curve of a run. Accuracies are fractions.

    Of images with several labels, the mean average precision (map) takes the place of the accuracy.
    generalization_gap: accuracy on training minus validation images, without augmentation, with the final weights.
    convergence_epoch: first epoch from which validation accuracy stays within one point of its final value.
    last_epochs_sd: standard deviation of validation accuracy over the last five epochs.
    """
    result = folder.result
    score = score_name(result)
    curve = [float(row[f'valid_{score}']) for row in folder.metrics() if row[f'valid_{score}']]
    scores = f'valid_{score}', f'best_valid_{score}'
    return {name: result.get(name) for name in (*scores, *LOSSES)} | dict(
        generalization_gap=result[f'train_{score}'] - result[f'valid_{score}'],
        convergence_epoch=convergence_epoch(curve),
        last_epochs_sd=stdev(curve[-LAST_EPOCHS:]) if len(curve) >= 2 else None,
        epochs=len(curve),
    )


def score_name(
    result: dict,  # Content of result.json, or a curve summary
) -> str:
    "Return what a learning curve shows: accuracy, or map for images with several labels."
    return 'map' if result.get('valid_map') is not None else 'accuracy'


def convergence_epoch(
    curve: Sequence[float],  # Validation accuracy by epoch
) -> int:
    "Return the first epoch, counted from 1, from which all values lie within one point of the last."
    far = [epoch for epoch, accuracy in enumerate(curve, 1) if abs(accuracy - curve[-1]) > TOLERANCE + 1e-9]
    return far[-1] + 1 if far else 1


def summarize_curves(
    folders: Sequence[RunDir],  # Runs on one data set
) -> dict[str, dict]:
    "Return the mean curve summary of each recipe that classifies, and its number of runs as `n`."
    by_recipe = defaultdict(list)
    for folder in folders:
        if folder.finished and main_score(folder.result) is not None and not folder.problem('metrics.csv'):
            by_recipe[folder.recipe].append(curve_summary(folder))
    means = {}
    for recipe, summaries in by_recipe.items():
        means[recipe] = {name: known_mean([s[name] for s in summaries]) for name in summaries[0]}
        means[recipe]['n'] = len(summaries)
    return means


def known_mean(
    values: Sequence[float | None],  # A number of each run, None where it is missing
):
    "Return the mean of the values that are not None; None if there are none."
    known = [v for v in values if v is not None]
    return mean(known) if known else None


def comparisons(
    folders: Sequence[RunDir],  # Runs on one data set
    means: dict[str, dict],  # From `summarize_curves`
) -> list[list[str]]:
    "Return the comparisons of the study whose recipes all have results, by the names of their runs."
    found = [[resolve_run_name(folders, name) for name in names] for names in COMPARISONS]
    return [names for names in found if all(name in means for name in names)]
