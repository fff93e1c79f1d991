"What people see of runs: read from their folders, never recomputed. Imports no torch."

from collections import defaultdict
from textwrap import wrap

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdfast.analysis.aggregate import differing_settings
from kdfast.analysis.measures import MEASURES
from kdfast.core.errors import listed
from kdfast.core.format import duration, fits_width, percent, wrap_name
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream import teachers_of

BESIDE = ('valid_accuracy', 'params', 'macs', 'bytes', 'latency')  # of a student and of its teacher


# One run


def run_summary(
    folder: RunDir,  # A finished run
) -> Group:
    "A run's numbers, its teacher's beside those that both have, its most confused pairs, and where they are kept."
    result, teachers = folder.result, [teacher.result for teacher in teachers_of(folder)]
    numbers = Table.grid(padding=(0, 2))
    for name, (label, written) in MEASURES.items():
        if result.get(name) is None:
            continue
        theirs = [written(teacher[name]) for teacher in teachers if name in BESIDE and teacher.get(name) is not None]
        beside = f'teacher{"s" * (len(theirs) > 1)} {", ".join(theirs)}' if theirs else ''
        numbers.add_row(
            Text(label, style='dim'),
            Text.assemble((f'{written(result[name]):<9}', emphasis(name)), (f' {beside}', 'dim')),
        )
    if result['best_epoch']:
        numbers.add_row(
            Text('best epoch', style='dim'),
            f'{result["best_epoch"]}, with {percent(result["best_valid_accuracy"])}; the numbers above are the last one\'s',
        )
    pairs = [f'{a} taken for {b} {n}×' for a, b, n in (result['worst_pairs'] or [])[:5]]
    if pairs:
        numbers.add_row(Text('most confused', style='dim'), Text('\n'.join(pairs)))
    for note in folder.run.get('notes', []):
        numbers.add_row(Text('note', style='dim'), Text(note, overflow='fold'))
    numbers.add_row(Text('kept in', style='dim'), Text(str(folder), overflow='fold'))
    title = Text.assemble('\n', (result['recipe'], 'bold'), f' on {result["data"]}, seed {result["seed"]}\n')
    return Group(title, numbers)


def emphasis(name):
    return 'bold green' if name == 'valid_accuracy' else ''


def compare_table(
    rows: list[dict],  # From `aggregate`
    width: int,  # Columns of the terminal
) -> list[Table]:
    "The report's table: a column a recipe; where they do not fit side by side, several tables."
    parts = [[]]
    for row in rows:
        if parts[-1] and not fits_width(one_table([*parts[-1], row]), width):
            parts.append([])
        parts[-1].append(row)
    return [one_table(part) for part in parts]


def one_table(rows):
    table = Table(box=None, padding=(0, 1), header_style='bold', pad_edge=False)
    table.add_column('')
    for row in rows:
        table.add_column(Text(run_label(row['recipe'])), justify='right', overflow='fold')
    for name, (label, written) in MEASURES.items():
        cells = [table_cell(row[name], written) for row in rows]
        if any(c != '–' for c in cells):
            table.add_row(label, *cells, style=emphasis(name))
    table.add_row('seeds', *(str(row['n']) for row in rows), style='dim')
    return table


def run_label(recipe):
    "Of a column: a line an argument, or several of a long one"
    return '\n'.join(line for part in recipe.split(',') for line in wrap(part, 24))


def table_cell(number, written):
    if number is None:
        return '–'
    if not number['sd']:
        return written(number['mean'])
    return f'{written(number["mean"])}\n± {written(number["sd"])}'


def run_remarks(
    folders: list[RunDir],  # Runs of one data set
) -> list[str]:
    "What a reader of the table must know besides: runs that are not in it, and students of different teachers."
    notes = []
    for folder in folders:
        if not folder.finished:
            notes.append(
                f'not in the table: {folder.recipe}, seed {folder.seed}: {folder.status}{status_reason(folder)}'
            )
    finished = [f for f in folders if f.finished]
    teachers = defaultdict(set)
    for f in finished:
        if f.result['teacher_sha256']:
            teachers[f.seed].add(f.result['teacher_sha256'])
    for seed, hashes in teachers.items():
        if len(hashes) > 1:
            notes.append(f'the students of seed {seed} had {len(hashes)} different teachers: their rows do not compare')
    for what, runs_with in differing_settings(finished).items():
        said = '; '.join(f'{value}: {listed(sorted(recipes, key=study_order))}' for value, recipes in runs_with.items())
        notes.append(f'runs of one seed differ in {what}, which alone may make a difference: {said}')
    counts = {len([f for f in finished if f.recipe == r]) for r in {f.recipe for f in finished}}
    if counts == {1}:
        notes.append('one seed each: a difference may be chance')
    elif counts:
        notes.append('mean ± standard deviation over seeds')
    return notes


def status_reason(folder):
    said = folder.run.get('reason')
    return f' ({said})' if said else ''


def run_table(
    folders: list[RunDir],  # Any runs
) -> Table:
    "A line a run: how it stands."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    for name in ('data', 'run', 'seed'):
        table.add_column(name, overflow='fold')
    for name in ('state', 'validation', 'time'):
        table.add_column(name, justify='right', no_wrap=True)
    reasons = {
        folder.path: folder.run['reason'] for folder in folders if not folder.finished and folder.run.get('reason')
    }
    if reasons:
        table.add_column('reason', overflow='fold')
    for folder in folders:
        result = folder.result if folder.finished else {}
        accuracy, seconds = result.get('valid_accuracy'), result.get('seconds')
        style = {'finished': '', 'running': 'dim', 'interrupted': 'yellow'}.get(folder.status, 'red')
        table.add_row(
            folder.data,
            wrap_name(folder.recipe),
            str(folder.seed),
            Text(folder.status, style=style),
            '–' if accuracy is None else percent(accuracy),
            '–' if seconds is None else duration(seconds),
            *([Text(reasons.get(folder.path, ''))] if reasons else []),
        )
    return table
