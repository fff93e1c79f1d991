"""Tables and figures of runs for notebooks: each displays itself. Imports no torch.

from kdfast.report import figures
figures.differences('runs')
"""

from pathlib import Path

from markupsafe import Markup

from kdfast.analysis.aggregate import aggregate
from kdfast.analysis.differences import differences_from
from kdfast.analysis.measures import GROUPS
from kdfast.core.errors import KdfastError
from kdfast.report.classes import confusion_matrices
from kdfast.report.curves import curve_charts
from kdfast.report.differences import difference_remarks
from kdfast.report.forest import forest_plot
from kdfast.report.left_out import damage_remarks, unfinished_remarks
from kdfast.report.page import N_COLORS, has_measures, macro, measure_table, page_style
from kdfast.runs.find import find_runs, no_finished_run

SCOPE = 'kdfast-figure'  # CSS class that keeps the style of a figure from the rest of the notebook


class Figure:
    "A table or figure that Jupyter displays; `html` is its content, `data` are its numbers."

    def __init__(
        self,
        html: str,  # Content, escaped
        data: list,  # Numbers, as the functions of kdfast.analysis return them
    ):
        self.html = html
        self.data = data

    def _repr_html_(self) -> str:
        "Return the content with its style, for Jupyter."
        style = page_style().replace(':root', '&')  # nested in the class of the figure, where all rules then hold
        frame = 'background: var(--page); color: var(--text); padding: .5rem'
        return f'<style>.{SCOPE} {{ {style} {frame} }}</style><div class="{SCOPE}">{self.html}</div>'


def table(
    runs: str | Path = 'runs',  # Directory of the runs
    data: str | None = None,  # Name of the data set; needed if there are runs on several
) -> Figure:
    "Return the measures of each recipe, means over seeds. Raises KdfastError without finished runs."
    rows = aggregate(runs_on_one(runs, data))
    cards = macro('cards')
    parts = []
    for group in GROUPS:
        if has_measures(rows, group):
            found = measure_table(rows, group)
            parts.append(cards(f'table-{len(parts)}', found['title'], found['columns'], found['lines']))
    return Figure(Markup().join(parts), rows)


def differences(
    runs: str | Path = 'runs',  # Directory of the runs
    against: str = 'baseline',  # The recipe to compare with
    margin: float | None = None,  # Smallest difference that matters, in percentage points; default: as declared
    data: str | None = None,  # Name of the data set; needed if there are runs on several
    metric: str | None = None,  # What verdicts judge; default: accuracy, or what a design declares
) -> Figure:
    "Return the differences of all recipes from one, with intervals and verdicts, as a forest plot."
    folders = runs_on_one(runs, data)
    rows = differences_from(folders, against, None if margin is None else margin / 100, metric)
    drawn = [(row['recipe'], row) for row in rows if row['verdict']]
    plot = forest_plot(drawn, f'against {drawn[0][1]["against"]}') if drawn else 'nothing to compare yet'
    remarks = difference_remarks(rows) + unfinished_remarks(find_runs(Path(runs), folders[0].data))
    return Figure(Markup('{}{}').format(plot, remark_lines(remarks)), rows)


def curves(
    runs: str | Path = 'runs',  # Directory of the runs
    data: str | None = None,  # Name of the data set; needed if there are runs on several
) -> Figure:
    "Return the learning curves of all recipes: means over seeds, and each seed as a thin line."
    folders = runs_on_one(runs, data)
    colors = {name: at % N_COLORS for at, name in enumerate(dict.fromkeys(folder.recipe for folder in folders))}
    charts = curve_charts(folders, colors)
    key = Markup('<span><i class="key c{}"></i>{}</span>')
    keys = Markup().join(key.format(color, name) for name, color in colors.items())
    figure = Markup('<figure><figcaption>{}</figcaption>{}</figure>')
    figures = Markup().join(figure.format(chart['title'], chart['svg']) for chart in charts)
    html = Markup('<div class="keys">{}</div><div class="charts">{}</div>').format(keys, figures)
    html += remark_lines(damage_remarks(folders, ('metrics.csv', 'steps.csv')))
    return Figure(html, [dict(title=chart['title']) | chart['lines'] for chart in charts])


def confusion(
    runs: str | Path = 'runs',  # Directory of the runs
    recipe: str | None = None,  # Only this one; default: all
    data: str | None = None,  # Name of the data set; needed if there are runs on several
) -> Figure:
    "Return confusion matrices, each summed over the seeds of a recipe. Raises KdfastError without one."
    folders = [f for f in runs_on_one(runs, data) if f.result['valid_accuracy'] is not None]
    wanted = [f for f in folders if recipe in (None, f.recipe)]
    matrices = confusion_matrices([f for f in wanted if f.has('confusion.csv')])
    if not matrices:
        known = ', '.join(dict.fromkeys(f.recipe for f in folders)) or 'none'
        raise KdfastError(f'no confusion matrix of {recipe or "any recipe"} in {runs}; there are {known}')
    heat_map = macro('heat_map')
    remarks = remark_lines(damage_remarks(wanted, ('confusion.csv',)))
    return Figure(Markup().join([*map(heat_map, matrices), remarks]), matrices)


def remark_lines(
    remarks,  # For below a figure
):
    "Return remarks as HTML, a line each."
    return Markup().join(Markup('<p class="dim">{}</p>').format(remark) for remark in remarks)


def runs_on_one(
    runs,  # Directory of the runs
    data,  # Name of the data set, or None
):
    "Return finished runs on one data set. Raises KdfastError if there are none, or several data sets."
    found = [folder for folder in find_runs(Path(runs), data) if folder.finished]
    names = sorted({folder.data for folder in found})
    if not found:
        raise no_finished_run(Path(runs), data)
    if len(names) > 1:
        raise KdfastError(f'there are runs on {", ".join(names)}: choose one with data=…')
    return found
