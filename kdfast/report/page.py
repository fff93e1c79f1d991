"""The report as one HTML file that needs nothing else, read from run directories."""

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import kdfast
from kdfast.analysis.aggregate import aggregate
from kdfast.analysis.curves import comparisons, summarize_curves
from kdfast.analysis.differences import differences_from
from kdfast.analysis.matrix import QUESTION, questions_answered
from kdfast.analysis.measures import MEASURES
from kdfast.analysis.metrics import ACCURACY, metric_for
from kdfast.analysis.results import has_several_labels
from kdfast.core.format import interval_text, percent, signed_points
from kdfast.report.charts import interval_plot
from kdfast.report.classes import class_accuracy_rows, confident_errors, confusion_matrices
from kdfast.report.confusion import MAX_CLASSES
from kdfast.report.curves import curve_charts, curve_sentences
from kdfast.report.differences import difference_remarks
from kdfast.report.labels import HEADINGS, label_cells, label_rows, shown_labels
from kdfast.report.matrix import KINDS, answer_sentences
from kdfast.report.tables import class_table, run_label, run_remarks, table_cell
from kdfast.runs.find import resolve_run_name
from kdfast.runs.lookup import arguments_text
from kdfast.runs.run_dir import RunDir

N_COLORS = 12  # of lines: six hues in the style of the page, each solid and dashed


def render_page(
    folders: Sequence[RunDir],  # Runs on one data set
    runs_dir: Path,  # Directory of the runs
    margin: float,  # Smallest difference that matters, as a fraction
    metric: str | None = None,  # What verdicts judge; default: accuracy, or what a design declares
) -> str:  # HTML
    "Render the page: question and answer, table, curves, confusion matrices, analyses, provenance."
    finished = [folder for folder in folders if folder.finished]
    classified = [folder for folder in finished if folder.result['valid_accuracy'] is not None]
    rows = aggregate(folders)
    judged = metric_for(finished, metric) if finished else ACCURACY
    by_class, which_classes = class_table(rows, MAX_CLASSES)
    colors = {row['recipe']: at % N_COLORS for at, row in enumerate(rows)}
    return page_template().render(
        data=folders[0].data,
        version=kdfast.__version__,
        margin=margin,
        colors=colors,
        question=QUESTION,
        answers=[answer_section(found, margin) for found in questions_answered(folders, runs_dir, margin, metric)],
        judged=judged.label,
        table=measure_table(rows),
        rows=rows,
        by_class=by_class,
        which_classes=which_classes,
        remarks=run_remarks(folders),
        against=baseline_sections(folders, margin, metric),
        curves=curve_charts(finished, colors),
        analyses=analysis_sections(folders),
        labels=[label_section(folder) for folder in finished if has_several_labels(folder.result)],
        label_headings=HEADINGS,
        confusions=confusion_matrices(classified),
        classes=class_accuracy_rows(classified),
        gallery=confident_errors(classified),
        provenance=[provenance(folder) for folder in folders],
    )


def page_template():
    "Return the template of the page, page.html."
    environment = Environment(
        loader=PackageLoader('kdfast.report', '.'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(percent=percent, label=run_label, points=signed_points, interval=interval_text)
    return environment.get_template('page.html')


def answer_section(
    found,  # From `answer_question`
    margin: float,  # Smallest difference that matters, as a fraction
):
    "Return an answer to the question of the study, with its sentences and a plot of the differences."
    plotted = []
    for effect in found['effects']:
        for kind in KINDS:
            if effect[kind]['verdict']:
                plotted.append((f'{effect["experiment"]}, {kind}', *in_points(effect[kind]), effect[kind]['verdict']))
    return found | dict(
        sentences=[text.plain for text in answer_sentences(found)],
        given=arguments_text(found['arguments']),
        plot=Markup(interval_plot(plotted, 100 * margin)),
    )


def in_points(
    row: dict,  # From `differences_from`
):
    "Return difference and interval in percentage points."
    return [100 * row[name] for name in ('difference', 'low', 'high')]


def measure_table(
    rows,  # From `aggregate`
):
    "Return one row per measure that a recipe has: its label, and the cells of the recipes."
    shown = [m for m in MEASURES if any(row[m.name] for row in rows)]
    return [(m.label, [table_cell(row[m.name], m.format) for row in rows]) for m in shown]


def baseline_sections(
    folders,  # Runs on one data set
    margin,  # Smallest difference that matters, as a fraction
    metric,  # What verdicts judge
):
    "Differences from the baseline; from each of several, if none of them has the default arguments."
    default = resolve_run_name(folders, 'baseline')
    every = dict.fromkeys(f.recipe for f in folders if f.finished and f.run.get('recipe') == 'baseline')
    sections = [baseline_section(folders, name, margin, metric) for name in ([default] if default else every)]
    return [section for section in sections if section]


def baseline_section(
    folders,  # Runs on one data set
    baseline,  # Name of its runs
    margin,  # Smallest difference that matters, as a fraction
    metric,  # What verdicts judge
):
    "Plot and remarks of the differences from this baseline; None if there are none."
    rows = [row for row in differences_from(folders, baseline, margin, metric) if row['verdict']]
    if not rows:
        return None
    plot = interval_plot([(row['recipe'], *in_points(row), row['verdict']) for row in rows], 100 * margin)
    return dict(baseline=baseline, plot=Markup(plot), remarks=difference_remarks(rows))


def analysis_sections(
    folders,  # Runs on one data set
):
    "Return sentences for each comparison of the study that has all its recipes."
    means = summarize_curves(folders)
    return [dict(recipes=names, sentences=list(curve_sentences(names, means))) for names in comparisons(folders, means)]


def label_section(
    folder,  # A run
):
    "Return the counts of each label of a run."
    rows = [label_cells(row) for row in label_rows(folder.result, MAX_CLASSES)]
    return dict(recipe=folder.recipe, seed=folder.seed, rows=rows, which=shown_labels(folder.result, MAX_CLASSES))


def provenance(
    folder,  # A run
):
    "Return what is needed to repeat a run."
    recorded = {name: value for name, value in folder.run.items() if name not in ('pid', 'host')}
    return dict(
        name=folder.recipe,
        seed=folder.seed,
        status=folder.status,
        reason=recorded.get('reason', ''),
        recorded=json.dumps(recorded, indent=1, ensure_ascii=False),
    )
