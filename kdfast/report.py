"What people see of runs: read from their folders, never recomputed. Imports no torch."
from collections import defaultdict
from statistics import mean, stdev
from textwrap import wrap

from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kdfast.errors import listed
from kdfast.recipe import study_order
from kdfast.runs import Folder

# Numbers as a reader takes them in

def percent(x): return f'{100*x:.2f} %'
def loss(x): return f'{x:.3f}'
def thousands(x):
    if x is None: return '–'
    return f'{x/1e6:.2f} M' if x >= 1e6 else f'{x/1e3:.0f} k' if x >= 1e3 else f'{x:.0f}'
def count(x): return f'{x:.0f}' if float(x).is_integer() else f'{x:.1f}'
def megabytes(x): return f'{x/1e6:.2f} MB'
def milliseconds(x): return f'{1e3*x:.2f} ms'
def clock(x): return f'{x:.0f} s' if x < 100 else f'{x/60:.1f} min'


ROOMY = Console(width=1000) # to measure what would like more room than there is
ROWS = { # of the report's table: what result.json calls it, what the table calls it, and how it is written
    'train_loss':     ('loss', loss),
    'train_accuracy': ('training accuracy', percent),
    'valid_accuracy': ('validation accuracy', percent),
    'fit_loss':       ('fit loss', loss),
    'soft_loss':      ('soft loss', loss),
    'hard_loss':      ('hard loss', loss),
    'params':         ('parameters', thousands),
    'macs':           ('multiply-adds', thousands),
    'bytes':          ('weights', megabytes),
    'latency':        ('one image takes', milliseconds),
    'epochs':         ('epochs', count),
    'seconds':        ('time', clock),
}
COMPUTED = { # how a run was: what run.json calls it, and what remarks call it
    'precision': 'precision', 'device': 'device', 'threads': 'threads', 'processes': 'processes',
    'batch_size': 'batch size', 'data_sha256': 'images'}
BESIDE = ('valid_accuracy', 'params', 'macs', 'bytes', 'latency') # of a student and of its teacher


# One run

def summary(
    folder:Folder, # A finished run
) -> Group:
    "A run's numbers, its teacher's beside those that both have, its most confused pairs, and where they are kept."
    result,teachers = folder.result,[teacher.result for teacher in folder.teachers]
    numbers = Table.grid(padding=(0, 2))
    for name,(label,written) in ROWS.items():
        if result.get(name) is None: continue
        theirs = [written(teacher[name]) for teacher in teachers if name in BESIDE and teacher.get(name) is not None]
        beside = f'teacher{"s"*(len(theirs) > 1)} {", ".join(theirs)}' if theirs else ''
        numbers.add_row(Text(label, style='dim'), Text.assemble((f'{written(result[name]):<9}', emphasis(name)), (f' {beside}', 'dim')))
    if result['best_epoch']:
        numbers.add_row(Text('best epoch', style='dim'), f'{result["best_epoch"]}, with {percent(result["best_valid_accuracy"])}; the numbers above are the last one\'s')
    pairs = [f'{a} taken for {b} {n}×' for a,b,n in (result['worst_pairs'] or [])[:5]]
    if pairs: numbers.add_row(Text('most confused', style='dim'), Text('\n'.join(pairs)))
    for note in folder.run.get('notes', []): numbers.add_row(Text('note', style='dim'), Text(note, overflow='fold'))
    numbers.add_row(Text('kept in', style='dim'), Text(str(folder), overflow='fold'))
    title = Text.assemble('\n', (result['recipe'], 'bold'), f' on {result["data"]}, seed {result["seed"]}\n')
    return Group(title, numbers)


def emphasis(name): return 'bold green' if name == 'valid_accuracy' else ''


# Many runs

def aggregate(
    folders:list[Folder], # Runs of one data set
) -> list[dict]:
    "A row a recipe, in the report's order: for every number its mean, standard deviation, n, and the values by seed."
    by_recipe = defaultdict(list)
    for folder in folders:
        if folder.finished: by_recipe[folder.recipe].append(folder.result)
    rows = []
    for recipe in sorted(by_recipe, key=study_order):
        results = by_recipe[recipe]
        row = dict(recipe=recipe, data=results[0]['data'], n=len(results), seeds=[r['seed'] for r in results])
        for name in ROWS: row[name] = spread([r.get(name) for r in results])
        rows.append(row | dict(teachers=sorted({r['teacher_sha256'] for r in results if r['teacher_sha256']})))
    return rows


def spread(values):
    "Mean, standard deviation (from two values on) and the values; None where a recipe has no such number"
    if any(v is None for v in values): return None
    return dict(mean=mean(values), sd=stdev(values) if len(values) > 1 else None, values=values)


def compare_table(
    rows:list[dict], # From `aggregate`
    width:int, # Columns of the terminal
) -> list[Table]:
    "The report's table: a column a recipe; where they do not fit side by side, several tables."
    parts = [[]]
    for row in rows:
        if parts[-1] and not fits(one_table([*parts[-1], row]), width): parts.append([])
        parts[-1].append(row)
    return [one_table(part) for part in parts]


def fits(
    table:Table, # Anything that rich can measure
    width:int, # Columns of the terminal
) -> bool:
    "Whether the table can be shown with no cell broken."
    return Measurement.get(ROOMY, ROOMY.options, table).maximum <= width


def one_table(rows):
    table = Table(box=None, padding=(0, 1), header_style='bold', pad_edge=False)
    table.add_column('')
    for row in rows: table.add_column(Text(head(row['recipe'])), justify='right', overflow='fold')
    for name,(label,written) in ROWS.items():
        cells = [cell(row[name], written) for row in rows]
        if any(c != '–' for c in cells): table.add_row(label, *cells, style=emphasis(name))
    table.add_row('seeds', *(str(row['n']) for row in rows), style='dim')
    return table


def head(recipe):
    "Of a column: a line an argument, or several of a long one"
    return '\n'.join(line for part in recipe.split(',') for line in wrap(part, 24))


def cell(number, written):
    if number is None: return '–'
    if not number['sd']: return written(number['mean'])
    return f'{written(number["mean"])}\n± {written(number["sd"])}'


def remarks(
    folders:list[Folder], # Runs of one data set
) -> list[str]:
    "What a reader of the table must know besides: runs that are not in it, and students of different teachers."
    notes = []
    for folder in folders:
        if not folder.finished: notes.append(f'not in the table: {folder.recipe}, seed {folder.seed}: {folder.status}{reason(folder)}')
    finished = [f for f in folders if f.finished]
    teachers = defaultdict(set)
    for f in finished:
        if f.result['teacher_sha256']: teachers[f.seed].add(f.result['teacher_sha256'])
    for seed,hashes in teachers.items():
        if len(hashes) > 1: notes.append(f'the students of seed {seed} had {len(hashes)} different teachers: their rows do not compare')
    for what,runs_with in differing(finished).items():
        said = '; '.join(f'{value}: {listed(sorted(recipes, key=study_order))}' for value,recipes in runs_with.items())
        notes.append(f'runs of one seed differ in {what}, which alone may make a difference: {said}')
    counts = {len([f for f in finished if f.recipe == r]) for r in {f.recipe for f in finished}}
    if counts == {1}: notes.append('one seed each: a difference may be chance')
    elif counts: notes.append('mean ± standard deviation over seeds')
    return notes


def differing(
    folders:list[Folder], # Finished runs
) -> dict: # By what they differ in: value, and the recipes that have it
    "In what runs of one seed were computed otherwise: precision, device, threads, versions of packages …"
    found,differ = defaultdict(lambda: defaultdict(set)),set()
    for seed in {f.seed for f in folders}:
        of_seed = [(f.recipe, computed(f)) for f in folders if f.seed == seed]
        for what in {what for _,how in of_seed for what in how}:
            values = {how[what] for _,how in of_seed if what in how}
            if len(values) > 1: differ.add(what)
            for recipe,how in of_seed:
                if what in how: found[what][how[what]].add(recipe)
    return {what: dict(found[what]) for what in sorted(differ)}


def computed(folder):
    "How a run was computed, as far as that is on record"
    run = folder.run
    known = {says: run.get(name) for name,says in COMPUTED.items()} | run.get('versions', {})
    return {what: str(value)[:40] for what,value in known.items() if value is not None}


def reason(folder):
    said = folder.run.get('reason')
    return f' ({said})' if said else ''


def flat(
    rows:list[dict], # From `aggregate`
) -> list[list]:
    "The same as a flat table, header first, for CSV."
    header = ['data', 'recipe', 'n', *(f'{name}{part}' for name in ROWS for part in ('', '_sd'))]
    def numbers(row): return (row[name] and row[name][key] for name in ROWS for key in ('mean', 'sd'))
    return [header, *([row['data'], row['recipe'], row['n'], *numbers(row)] for row in rows)]


def in_lines(
    name:str, # A recipe's name, with the arguments that are not its defaults
    width:int=30, # That a line should not be longer than
) -> Text:
    "The name, broken behind its commas, and elsewhere where it must be."
    lines = ['']
    for part in (part for argument in name.split(',') for part in wrap(f'{argument},', width)):
        if lines[-1] and len(lines[-1]) + len(part) > width: lines.append('')
        lines[-1] += part
    return Text('\n'.join(lines)[:-1])


def run_table(
    folders:list[Folder], # Any runs
) -> Table:
    "A line a run: how it stands."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    for name in ('data', 'run', 'seed'): table.add_column(name, overflow='fold')
    for name in ('state', 'validation', 'time'): table.add_column(name, justify='right', no_wrap=True)
    reasons = {folder.path: folder.run['reason'] for folder in folders if not folder.finished and folder.run.get('reason')}
    if reasons: table.add_column('reason', overflow='fold')
    for folder in folders:
        result = folder.result if folder.finished else {}
        accuracy,seconds = result.get('valid_accuracy'),result.get('seconds')
        style = {'finished': '', 'running': 'dim', 'interrupted': 'yellow'}.get(folder.status, 'red')
        table.add_row(folder.data, in_lines(folder.recipe), str(folder.seed), Text(folder.status, style=style),
                      '–' if accuracy is None else percent(accuracy), '–' if seconds is None else clock(seconds), *([Text(reasons.get(folder.path, ''))] if reasons else []))
    return table
