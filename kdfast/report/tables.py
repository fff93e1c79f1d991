"""Tables of runs for the terminal, read from run directories. Imports no torch."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from textwrap import wrap

from rich.text import Text

from kdfast.analysis.comparability import TEACHER, differing_seeds, differing_settings, old_defaults
from kdfast.analysis.measures import MEASURES
from kdfast.analysis.results import has_several_labels, main_score
from kdfast.core.errors import listed
from kdfast.core.format import duration, fits_width, percent, ranges, wrap_name
from kdfast.core.tables import Table
from kdfast.report.left_out import damage_remarks, unfinished_remarks
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir
from kdfast.runs.unfinished import reason_of, state_of, unfinished_texts

LABEL_WIDTH = 24  # characters of a line in the heading of a column
CLASS_WEIGHTS_REMARK = (
    'class weights are part of the training losses on labels only: validation losses and accuracies count all images '
    'alike'
)
COMPARED = 'recipe.py', 'confusion.csv'  # files that tables of several runs are made of, besides their results
SHOWN_CLASSES = 10  # classes in the table of several runs
STATUS_STYLES = {'finished': '', 'running': 'dim', 'interrupted': 'yellow'}  # others are red

# Runs of several recipes


def compare_table(
    rows: Sequence[dict],  # From `aggregate`
    width: int,  # Columns of the terminal
) -> list[Table]:
    "Return a table with one column per recipe; several tables if they do not fit side by side."
    parts = [[]]
    for row in rows:
        if parts[-1] and not fits_width(one_table([*parts[-1], row]), width):
            parts.append([])
        parts[-1].append(row)
    return [one_table(part) for part in parts]


def one_table(
    rows,  # From `aggregate`
):
    "Return a table of these recipes, without measures that none of them has."
    table = Table(box=None, padding=(0, 1), header_style='bold', pad_edge=False)
    table.add_column('')
    for row in rows:
        table.add_column(Text(run_label(row['recipe'])), justify='right', overflow='fold')
    for measure in MEASURES:
        cells = [table_cell(row[measure.name], measure.format) for row in rows]
        if any(cell != '–' for cell in cells):
            table.add_row(measure.label, *cells, style=emphasis(measure.name))
    by_class, which = class_table(rows)
    for name, cells in by_class:
        table.add_row(Text(f'accuracy of {name}', overflow='fold'), *cells, style='dim')
    if which:
        table.caption, table.caption_justify = f'by class: {which}', 'left'
    table.add_row('seeds', *(str(row['n']) for row in rows), style='dim')
    return table


def emphasis(
    name,  # Of the measure
):
    "Return the style of a measure."
    return 'bold green' if name in ('valid_accuracy', 'valid_map') else ''


def class_table(
    rows: Sequence[dict],  # From `aggregate`
    n: int = SHOWN_CLASSES,  # Classes to show: of more, those of the lowest mean
) -> tuple[list[tuple], str]:  # (class, texts of the recipes) of each; which classes they are if they are not all
    "Return the accuracy of each recipe by class; nothing without recipes that classify."
    known = [row['class_accuracy'] for row in rows if row['class_accuracy']]
    means = {}
    for name in dict.fromkeys(name for accuracies in known for name in accuracies):
        found = [accuracies[name]['mean'] for accuracies in known if accuracies.get(name)]
        if found:
            means[name] = sum(found) / len(found)
    shown = list(means) if len(means) <= n else sorted(means, key=means.get)[:n]
    which = f'the {n} classes of the lowest accuracy, of {len(means):,}' if len(shown) < len(means) else ''
    by_recipe = [row['class_accuracy'] or {} for row in rows]
    return [(name, [table_cell(found.get(name), percent) for found in by_recipe]) for name in shown], which


def run_label(
    recipe: str,  # Name of a run
) -> str:
    "Return the heading of a column: one line per argument, several for a long one."
    return '\n'.join(line for part in recipe.split(',') for line in wrap(part, LABEL_WIDTH))


def table_cell(
    number: dict | None,  # Mean and standard deviation, from `aggregate`
    number_format: Callable[[float], str],  # Of the measure
) -> str:
    "Return the text of a cell: the mean and, below it, the standard deviation; a dash for None."
    if number is None:
        return '–'
    if not number['sd']:
        return number_format(number['mean'])
    return f'{number_format(number["mean"])}\n± {number_format(number["sd"])}'


def run_remarks(
    folders: Sequence[RunDir],  # Runs on one data set
) -> list[str]:
    "Return remarks for below the table: missing runs, different teachers or settings, number of seeds."
    finished = [folder for folder in folders if folder.finished]
    remarks = unfinished_remarks(folders) + damage_remarks(finished, COMPARED, missing=False)
    remarks += teacher_remarks(finished)
    settings = differing_settings(finished)
    settings.pop(TEACHER, None)
    for setting, by_value in settings.items():
        found = [f'{value}: {listed(sorted(recipes, key=study_order))}' for value, recipes in by_value.items()]
        remarks.append(f'runs of the same seed differ in {setting}, which may affect the results: {"; ".join(found)}')
    remarks += seed_remarks(finished) + default_remarks(finished)
    if any('class_weights' in folder.run for folder in finished):
        remarks.append(CLASS_WEIGHTS_REMARK)
    n_seeds = {len([f for f in finished if f.recipe == recipe]) for recipe in {f.recipe for f in finished}}
    if n_seeds == {1}:
        remarks.append('one seed per recipe: differences may be due to chance')
    elif n_seeds:
        remarks.append('mean ± standard deviation over seeds')
    return remarks


def teacher_remarks(
    finished,  # Finished runs on one data set
):
    "Return a remark if students of the same seed had different teachers."
    teachers = defaultdict(set)
    for folder in finished:
        if folder.result['teacher_sha256']:
            teachers[folder.seed].add(folder.result['teacher_sha256'])
    seeds = defaultdict(list)
    for seed, hashes in sorted(teachers.items()):
        seeds[len(hashes)].append(seed)
    return [
        f'the students of seed{"s" * (len(found) > 1)} {ranges(found)} had {n} different teachers: do not '
        'compare their accuracies'
        for n, found in seeds.items()
        if n > 1
    ]


def seed_remarks(
    finished,  # Finished runs on one data set
):
    "Return a remark for recipes whose seeds differ in the same settings."
    recipes = defaultdict(list)
    for recipe, settings in differing_seeds(finished).items():
        recipes[', '.join(settings)].append(recipe)
    return [
        f'the seeds of {listed(names)} differ in {settings}, which may affect the results'
        for settings, names in recipes.items()
    ]


def default_remarks(
    folders: Sequence[RunDir],  # Runs on one data set
) -> list[str]:
    "Return a remark for recipes whose defaults were others when they were trained."
    finished = [folder for folder in folders if folder.finished]
    remarks = []
    for recipe, texts in old_defaults(finished).items():
        n = len([folder for folder in finished if folder.recipe == recipe])
        found = [
            text if len(seeds) == n else f'{text} for seed {ranges(sorted(seeds))}' for text, seeds in texts.items()
        ]
        remarks.append(f'{recipe} was trained with defaults that are others today: {listed(found)}')
    return remarks


def run_view(
    folders: Sequence[RunDir],  # Any runs
    width: int,  # Columns of the terminal
) -> list[Table | Text]:
    "Return a table of runs and, below it, the reasons of unfinished ones if they do not fit."
    reasons = {folder.path: reason for folder in folders if not folder.finished and (reason := reason_of(folder))}
    table = run_table(folders, reasons)
    if not reasons or fits_width(table, width):
        return [table]
    several = len({folder.data for folder in folders}) > 1
    below = [
        Text(f'{folder.data}: {text}' if several else text)
        for folder in folders
        if folder.path in reasons
        for text in unfinished_texts([folder])
    ]
    return [run_table(folders, {}), Text(), *below]


def run_table(
    folders: Sequence[RunDir],  # Any runs
    reasons: dict,  # Why runs are not finished, by their paths; without any, the table has no such column
) -> Table:
    "Return a table with one row per run: its status and, if it is finished, its accuracy and time."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    for name in ('data', 'run', 'seed'):
        table.add_column(name, overflow='fold')
    for name in ('status', 'accuracy', 'time'):
        table.add_column(name, justify='right', no_wrap=True)
    if reasons:
        table.add_column('reason', overflow='fold')
    for folder in folders:
        result = folder.result if folder.finished else {}
        seconds = result.get('seconds')
        table.add_row(
            folder.data,
            wrap_name(folder.recipe),
            str(folder.seed),
            Text(state_of(folder), style=STATUS_STYLES.get(folder.status, 'red')),
            score_text(result),
            '–' if seconds is None else duration(seconds),
            *([Text(reasons.get(folder.path, ''))] if reasons else []),
        )
    return table


def score_text(
    result: dict,  # Content of result.json, or nothing
) -> str:
    "Return the accuracy of a run or, of several labels, the mean average precision; a dash for None."
    score = main_score(result)
    if score is None:
        return '–'
    return f'{"mAP " if has_several_labels(result) else ""}{percent(score)}'
