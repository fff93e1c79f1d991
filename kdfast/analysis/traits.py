"The report's own analyses, computed from run folders: over-fitting, convergence, stability, losses, in numbers and in sentences."

from collections import defaultdict
from statistics import mean, stdev

from kdfast.runs.find import resolve_run_name
from kdfast.runs.run_dir import RunDir

COMPARISONS = [('teacher', 'baseline'), ('exp1', 'exp2'), ('baseline', 'kd', 'exp2')]
NEAR = 0.01  # of accuracy: what counts as having arrived
LAST = 5  # epochs over which stability is measured


TRAITS = {  # what a run is described by, and what the report calls it
    'valid_accuracy': 'final validation accuracy',
    'best_valid_accuracy': 'best validation accuracy',
    'gap': 'training − validation accuracy',
    'converged': 'epoch of convergence',
    'wobble': f'spread over the last {LAST} epochs',
    'train_loss': 'loss',
    'soft_loss': 'soft loss',
    'hard_loss': 'hard loss',
    'fit_loss': 'fit loss',
}


def traits(
    folder: RunDir,  # A finished run
) -> dict:
    """What one run is described by.

    gap: accuracy on training minus validation images, both as they are, with the final weights (over-fitting).
    converged: the first epoch from which validation accuracy stays within one point of the final epoch's.
    wobble: standard deviation of validation accuracy over the last five epochs. All accuracies are fractions.
    """
    result = folder.result
    curve = [float(row['valid_accuracy']) for row in folder.metrics() if row['valid_accuracy']]
    return {name: result.get(name) for name in TRAITS} | dict(
        gap=result['train_accuracy'] - result['valid_accuracy'],
        converged=converged(curve),
        wobble=stdev(curve[-LAST:]) if len(curve) >= 2 else None,
        epochs=len(curve),
    )


def converged(
    curve: list[float],  # Validation accuracy by epoch
) -> int:
    "The first epoch, counted from 1, from which all lie within one point of the last."
    far = [epoch for epoch, accuracy in enumerate(curve, 1) if abs(accuracy - curve[-1]) > NEAR + 1e-9]
    return (far or [0])[-1] + 1


def facts(
    folders: list[RunDir],  # Runs on one data set
) -> dict:  # The mean traits of each recipe, and the report's comparisons
    "What the report says of its curves, as far as its recipes have been run."
    by_recipe = defaultdict(list)
    for folder in folders:
        if folder.finished and folder.result['valid_accuracy'] is not None:
            by_recipe[folder.recipe].append(traits(folder))
    means = {
        recipe: dict(n=len(found)) | {name: average([t[name] for t in found]) for name in (*TRAITS, 'epochs')}
        for recipe, found in by_recipe.items()
    }
    found = [[resolve_run_name(folders, name) for name in names] for names in COMPARISONS]
    comparisons = [names for names in found if all(name in means for name in names)]
    return dict(
        recipes=means,
        comparisons=[dict(recipes=names, sentences=list(sentences(names, means))) for names in comparisons],
    )


def average(values):
    known = [v for v in values if v is not None]
    return mean(known) if known else None


# In words


def points(x):
    return f'{100 * x:.1f}'


def ranked(names, of, means):
    return sorted(names, key=lambda name: -means[name][of])


def sentences(names, means):
    "What follows from the numbers, in the report's order"

    def each(of, written):
        return ', '.join(f'{name} {written(means[name][of])}' for name in ranked(names, of, means))

    first, *_, last = ranked(names, 'valid_accuracy', means)
    lead = means[first]['valid_accuracy'] - means[last]['valid_accuracy']
    yield f'Final validation accuracy: {each("valid_accuracy", lambda x: f"{points(x)} %")}; {first} is {points(lead)} points ahead of {last}.'
    yield f'Best epoch: {each("best_valid_accuracy", lambda x: f"{points(x)} %")}; the best of many epochs is chosen on the validation images, and flatters.'
    most, *_, least = ranked(names, 'gap', means)
    yield f'Over-fitting, training minus validation accuracy: {each("gap", lambda x: f"{points(x)} points")}; {most} over-fits most, {least} least.'
    epochs = ', '.join(
        f'{name} epoch {means[name]["converged"]:.0f} of {means[name]["epochs"]:.0f}'
        for name in reversed(ranked(names, 'converged', means))
    )
    yield f'Convergence, the first epoch from which validation accuracy stays within {points(NEAR)} point of the last: {epochs}.'
    if all(means[name]['wobble'] is not None for name in names):
        yield f'Stability, the standard deviation of validation accuracy over the last {LAST} epochs: {each("wobble", lambda x: f"{100 * x:.2f} points")}.'
    for loss, says in (('soft_loss', 'Soft loss'), ('hard_loss', 'Hard loss'), ('fit_loss', 'Fit loss')):
        have = [name for name in names if means[name][loss] is not None]
        if len(have) > 1:
            yield f'{says}: ' + ', '.join(f'{name} {means[name][loss]:.3f}' for name in have) + '.'
