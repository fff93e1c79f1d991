"""The analyses of learning curves as sentences, and the curves as charts."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from statistics import mean

from markupsafe import Markup

from kdfast.analysis.curves import LAST_EPOCHS, TOLERANCE, score_name
from kdfast.core.format import loss_text, percent
from kdfast.report.charts import drawable, line_chart, points_per_line, reach, thin_out, widened
from kdfast.runs.run_dir import RunDir

CURVES = {  # columns of metrics.csv and steps.csv, with their titles
    'accuracy': 'accuracy',
    'map': 'mean average precision',
    'total': 'training objective',
    'hard': 'hard loss',
    'soft': 'soft loss',
    'fit': 'fit loss',
}
SPLITS = dict(valid='validation', train='training')
LOSSES = dict(soft_loss='Soft loss', hard_loss='Hard loss', fit_loss='Fit loss')


# Sentences


def curve_sentences(
    names: Sequence[str],  # Recipes
    means: Mapping[str, dict],  # From `summarize_curves`
) -> Iterator[str]:
    "Yield sentences on accuracy, over-fitting, convergence, stability and losses of these recipes."

    def ranking(key, number_format):
        return ', '.join(f'{name} {number_format(means[name][key])}' for name in ranked(names, key, means))

    def score(fraction):
        return percent(fraction, 1)

    final = f'valid_{score_name(means[names[0]])}'
    label = CURVES[final.removeprefix('valid_')]
    first, *_, last = ranked(names, final, means)
    lead = points(means[first][final] - means[last][final])
    yield f'Final validation {label}: {ranking(final, score)}; {first} is {lead} ahead of {last}.'
    yield (
        f'Best epoch: {ranking(f"best_{final}", score)}. Best epochs are selected on the validation images, '
        'so these numbers are too high.'
    )
    most, *_, least = ranked(names, 'generalization_gap', means)
    gaps = ranking('generalization_gap', points)
    yield f'Over-fitting (training minus validation {label}): {gaps}; most in {most}, least in {least}.'
    epochs = [
        f'{name} epoch {means[name]["convergence_epoch"]:.0f} of {means[name]["epochs"]:.0f}'
        for name in reversed(ranked(names, 'convergence_epoch', means))
    ]
    within = f'{100 * TOLERANCE:.1f} point'
    yield (
        f'Convergence (first epoch from which validation {label} stays within {within} of its final value): '
        f'{", ".join(epochs)}.'
    )
    if all(means[name]['last_epochs_sd'] is not None for name in names):
        spreads = ranking('last_epochs_sd', lambda x: f'{100 * x:.2f} points')
        yield f'Stability (standard deviation of validation {label} over the last {LAST_EPOCHS} epochs): {spreads}.'
    yield from loss_sentences(names, means)


def loss_sentences(
    names,  # Of the recipes
    means,  # From `summarize_curves`
):
    "Yield a sentence for each loss that two or more of the recipes have."
    for key, label in LOSSES.items():
        known = [f'{name} {loss_text(means[name][key])}' for name in names if means[name][key] is not None]
        if len(known) > 1:
            yield f'{label}: {", ".join(known)}.'


def ranked(
    names,  # Of the recipes
    key: str,  # Name of the value
    means,  # From `summarize_curves`
):
    "Return the recipes, highest value first."
    return sorted(names, key=lambda name: means[name][key], reverse=True)


def points(
    fraction: float,  # From −1 to 1
):
    "Format a difference of accuracies with one decimal."
    return f'{100 * fraction:.1f} points'


# Charts


def curve_charts(
    folders: Sequence[RunDir],  # Finished runs
    colors: Mapping[str, int],  # By recipe: the number of its color in the style of the page
) -> list[dict]:  # title, svg and lines (for the interactive chart) of each
    "Return charts of each metric, by epoch for both splits and by step: means and seeds."
    by_epoch = defaultdict(lambda: defaultdict(list))
    by_step = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        if not folder.problem('metrics.csv'):
            epochs = folder.metrics()
            for metric, split in product(CURVES, SPLITS):
                by_epoch[metric, split][folder.recipe].append(column(epochs, f'{split}_{metric}'))
        if not folder.problem('steps.csv'):
            steps = folder.metrics('steps.csv')
            for metric in CURVES:
                by_step[metric, 'train'][folder.recipe].append(column(steps, metric))
    charts = []
    for unit, found in (('epoch', by_epoch), ('step', by_step)):
        for (metric, split), runs in found.items():
            series = chart_series(runs)
            svg = line_chart(series, colors, f'{CURVES[metric]}, {SPLITS[split]}', unit)
            if svg:
                title = f'{CURVES[metric]}, {SPLITS[split]} images, by {unit}'
                charts.append(dict(title=title, svg=Markup(svg), lines=chart_lines(series, colors, unit)))
    return charts


def column(
    rows,  # Of metrics.csv, as dictionaries
    name: str,  # Of the column
):
    "Return the numbers of a column; None for an empty cell."
    return [float(row[name]) if row.get(name) else None for row in rows]


def chart_series(
    runs: Mapping[str, Sequence],  # By recipe: values by x of each seed, from 1; None where there is no value
) -> dict[str, tuple]:  # By recipe that has values: points (x, y) of the mean, and of each seed if there are several
    "Return the lines of a chart, of at most as many points as a chart may have."
    n_mean, n_seed = points_per_line(len(runs)), points_per_line(sum(map(len, runs.values())))
    series = {}
    for recipe, curves in runs.items():
        line = thin_out(drawable_points(mean_by_x(curves)), n_mean)
        if line:
            seeds = (
                [thin_out(drawable_points(enumerate(curve, 1)), n_seed) for curve in curves] if len(curves) > 1 else []
            )
            series[recipe] = line, [seed for seed in seeds if seed]
    return series


def mean_by_x(
    curves,  # Values by x, from 1; None where there is no value
):
    "Return (x, mean) of each x that all curves reach and at least one has a value for."
    found = [(x, [v for v in values if v is not None]) for x, values in enumerate(zip(*curves), 1)]
    return [(x, mean(known)) for x, known in found if known]


def drawable_points(
    points,  # (x, y) of each; y may be None
):
    "Return the points that have a finite number."
    return [point for point in points if point[1] is not None and drawable(point)]


def chart_lines(
    series: Mapping[str, tuple],  # From `chart_series`
    colors: Mapping[str, int],  # By recipe
    unit: str,  # Of x
) -> dict:  # For JSON
    "Return the data of an interactive chart: axis range, and the lines of each recipe with four digits."
    ys = [point[1] for mean_points, seeds in series.values() for line in (mean_points, *seeds) for point in line]
    recipes = []
    for recipe, (mean_points, seeds) in series.items():
        lines = [line_data(line) for line in (*seeds, mean_points)]
        for line, before in reversed(list(zip(lines[1:], lines))):
            if line['x'] == before['x']:
                del line['x']  # the page takes that of the line before
        recipes.append(dict(recipe=recipe, color=colors[recipe], seeds=lines[:-1], mean=lines[-1]))
    return dict(unit=unit, range=widened(*reach(ys)), recipes=recipes)


def line_data(
    points,  # (x, y) of each
):
    "Return x and y of a line as short numbers."
    x, y = zip(*points)
    return dict(x=[short(v, 6) for v in x], y=[short(v, 4) for v in y])


def short(
    number: float,  # Finite
    digits: int,  # To keep
):
    "Round to a number of digits; an integer where it is one."
    rounded = float(f'{number:.{digits}g}')
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e9 else rounded
