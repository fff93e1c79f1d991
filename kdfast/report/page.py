"""The report as one HTML file that needs nothing else, read from run directories."""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import kdfast
from kdfast.analysis.aggregate import aggregate
from kdfast.analysis.curves import comparisons, summarize_curves
from kdfast.analysis.differences import differences_from
from kdfast.analysis.matrix import QUESTION, questions_answered
from kdfast.analysis.measures import GROUPS, MEASURES
from kdfast.analysis.metrics import METRICS
from kdfast.analysis.results import has_several_labels
from kdfast.core.errors import KdfastError
from kdfast.core.format import percent, signed_points
from kdfast.report.classes import class_accuracy_rows, confident_errors, confusion_matrices
from kdfast.report.confusion import MAX_CLASSES
from kdfast.report.curves import curve_charts, curve_sentences
from kdfast.report.differences import difference_remarks, margin_remarks, margins_text, verdict_texts
from kdfast.report.forest import breakable, forest_plot
from kdfast.report.labels import HEADINGS, label_cells, label_rows, shown_labels
from kdfast.report.left_out import damage_remarks
from kdfast.report.matrix import KINDS, answer_sentences
from kdfast.report.provenance import provenance
from kdfast.report.tables import class_table, run_remarks, table_cell
from kdfast.runs.find import resolve_run_name
from kdfast.runs.lookup import arguments_text
from kdfast.runs.run_dir import RunDir

FOLDER = Path(__file__).parent
N_COLORS = 18  # of lines in page.css: six hues, each solid, dashed and dotted
SECTIONS = dict(  # of the page, with their titles in the navigation
    answer='Answer',
    figures='Key figures',
    curves='Curves',
    analyses='Analyses',
    labels='Labels',
    classes='Classes',
    errors='Errors',
    provenance='Reproduce',
)


def render_page(
    folders: Sequence[RunDir],  # Runs on one data set
    runs_dir: Path,  # Directory of the runs
    margin: float | None = None,  # Smallest difference that matters, as a fraction; default: as declared, else MARGIN
    metric: str | None = None,  # What verdicts judge; default: accuracy, or what a design declares
) -> str:  # HTML
    "Render the page: answer, key figures, curves, analyses, classes, errors, provenance."
    finished = [folder for folder in folders if folder.finished]
    classified = [f for f in finished if f.result['valid_accuracy'] is not None and f.has('confusion.csv')]
    rows = aggregate(folders)
    answers, unanswered = answer_sections(folders, runs_dir, margin, metric)
    by_class, which_classes = class_table(rows, MAX_CLASSES)
    recipes = [row['recipe'] for row in rows]
    colors = {recipe: at % N_COLORS for at, recipe in enumerate(recipes)}
    content = dict(
        colors=colors,
        question=QUESTION,
        answers=answers,
        unanswered=unanswered,
        tables=[measure_table(rows, group) for group in GROUPS if has_measures(rows, group)],
        by_class=[(name, named_cells(recipes, cells)) for name, cells in by_class],
        by_class_columns=recipes,
        which_classes=which_classes,
        remarks=list(dict.fromkeys(run_remarks(folders) + damage_remarks(folders))),
        against=baseline_sections(folders, margin, metric),
        curves=curve_charts(finished, colors),
        analyses=analysis_sections(folders),
        labels=[label_section(folder) for folder in finished if has_several_labels(folder.result)],
        confusions=confusion_matrices(classified),
        classes=class_accuracy_rows(classified),
        errors=confident_errors(classified),
        provenance=provenance(folders),
    )
    return fill_template(content, folders[0].data)


def fill_template(
    content: dict,  # Of the sections
    data: str,  # Name of the data set
) -> str:  # HTML
    """Fill in page.html, with its style and its script.

    The policy of the page names the hash of the script: the browser runs nothing else and loads nothing.
    """
    style, script = page_style(), page_script()
    optional = ('analyses', 'labels', 'classes', 'errors')
    shown = content | dict(classes=content['classes'] or content['confusions'] or content['by_class'])
    return (
        environment()
        .get_template('page.html')
        .render(
            content,
            data=data,
            version=kdfast.__version__,
            style=Markup(style),
            script=Markup(script),
            script_hash='sha256-' + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            sections=[(name, title) for name, title in SECTIONS.items() if name not in optional or shown[name]],
            gallery=content['errors'],
            label_headings=HEADINGS,
        )
    )


def macro(
    name: str,  # Of macros.html
) -> Callable:
    "Return a macro of the templates, which returns HTML."
    return getattr(environment().get_template('macros.html').module, name)


def environment() -> Environment:
    "Return the environment of the templates: everything is escaped."
    made = Environment(
        loader=PackageLoader('kdfast.report', '.'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies['json.dumps_kwargs'] = dict(separators=(',', ':'))
    made.filters |= dict(percent=percent, points=signed_points, breakable=breakable)
    return made


def page_style() -> str:
    "Return the style of the page and of its interactive charts."
    return (FOLDER / 'uplot' / 'uPlot.min.css').read_text('utf-8') + (FOLDER / 'page.css').read_text('utf-8')


def page_script() -> str:
    "Return the library of interactive charts and what the page does with it."
    return (FOLDER / 'uplot' / 'uPlot.iife.min.js').read_text('utf-8') + (FOLDER / 'page.js').read_text('utf-8')


def answer_sections(
    folders,  # Runs on one data set
    runs_dir,  # Directory of the runs
    margin,  # Smallest difference that matters, as a fraction; default: as declared
    metric,  # What verdicts judge
):
    "Return the answers to the question of the study, and a sentence if finished runs give none."
    try:
        return [answer_section(f) for f in questions_answered(folders, runs_dir, margin, metric)], ''
    except KdfastError as e:
        return [], f'No answer: {e.message}.'


def answer_section(
    found,  # From `answer_question`
):
    "Return an answer to the question of the study, with its sentences and a plot of the differences."
    plotted = []
    for effect in found['effects']:
        for kind in KINDS:
            if effect[kind]['verdict']:
                plotted.append((f'{effect["experiment"]}, {kind}', effect[kind]))
    return found | dict(
        sentences=[text.plain for text in answer_sentences(found)],
        given=arguments_text(found['arguments']),
        judged=METRICS[found['metric']].label,
        margins=f'±{100 * found["margin"]:g} points',
        remarks=margin_remarks([(found['margin'], found['design']['margin'])] if found['design'] else []),
        plot=forest_plot(plotted, 'with regressor − without') if plotted else '',
    )


def measure_table(
    rows,  # From `aggregate`
    group: str,  # Of measures
):
    "Return a table of the measures of a group that any recipe has: one line per recipe, seeds last."
    shown = [m for m in MEASURES if m.group == group and any(row[m.name] for row in rows)]
    columns = [*(m.label for m in shown), 'seeds']
    lines = []
    for row in rows:
        cells = [*(table_cell(row[m.name], m.format) for m in shown), str(row['n'])]
        lines.append((row['recipe'], named_cells(columns, cells)))
    return dict(title=group, columns=columns, lines=lines)


def has_measures(
    rows,  # From `aggregate`
    group: str,  # Of measures
):
    "Return whether any recipe has a measure of the group."
    return any(row[m.name] for row in rows for m in MEASURES if m.group == group)


def named_cells(
    columns: Sequence[str],  # Their headings
    cells: Sequence[str],  # Texts: a mean and, below it, its standard deviation
):
    "Return (heading, (mean, standard deviation)) of each cell."
    return [(column, tuple((*cell.split('\n'), '')[:2])) for column, cell in zip(columns, cells)]


def baseline_sections(
    folders,  # Runs on one data set
    margin,  # Smallest difference that matters, as a fraction; default: as declared
    metric,  # What verdicts judge
):
    "Differences from the baseline; from each if none has the default arguments, most seeds first."
    default = resolve_run_name(folders, 'baseline')
    every = dict.fromkeys(f.recipe for f in folders if f.finished and f.run.get('recipe') == 'baseline')
    sections = [baseline_section(folders, name, margin, metric) for name in ([default] if default else every)]
    return sorted(filter(None, sections), key=lambda section: section['size'], reverse=True)


def baseline_section(
    folders,  # Runs on one data set
    baseline,  # Name of its runs
    margin,  # Smallest difference that matters, as a fraction; default: as declared
    metric,  # What verdicts judge
):
    "Plot and remarks of the differences from this baseline; None if there are none."
    rows = differences_from(folders, baseline, margin, metric)
    drawn = [(row['recipe'], row) for row in rows if row['verdict']]
    left_out = [f'Nothing to compare: {row["left_out"]}.' for row in rows if 'left_out' in row]
    if not drawn and not left_out:
        return None
    return dict(
        baseline=baseline,
        plot=forest_plot(drawn, f'against {baseline}') if drawn else '',
        size=(max((row['n'] for _, row in drawn if row['of'] == 'seeds'), default=0), len(drawn)),
        sentences=[text.plain for text in verdict_texts(rows, short=True)] or left_out[:1],
        counts=', '.join(f'{n} {verdict}' for verdict, n in Counter(row['verdict'] for _, row in drawn).items()),
        metric=METRICS[rows[0]['metric']].label,
        margins=margins_text([row for _, row in drawn]) if drawn else '',
        remarks=difference_remarks(rows),
    )


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
    lines = [(name, named_cells(HEADINGS, cells)) for name, *cells in rows]
    return dict(recipe=folder.recipe, seed=folder.seed, lines=lines, which=shown_labels(folder.result, MAX_CLASSES))
