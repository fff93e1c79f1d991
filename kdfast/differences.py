"Recipes against each other: paired differences in accuracy, their intervals and verdicts."
from collections import defaultdict

from rich.table import Table
from rich.text import Text

from kdfast.errors import KdfastError
from kdfast.recipe import study_order
from kdfast.report import differing, in_lines
from kdfast.runs import Folder, as_run
from kdfast.stats import Difference, mcnemar, over_images, over_seeds

STYLES = dict(better='bold green', worse='bold red', alike='bold cyan', undecided='yellow')


def against(
    folders:list[Folder], # Runs on one data set
    recipe:str, # The recipe to compare with
    margin:float, # Smallest difference that matters, as a fraction
) -> list[dict]:
    "A row a recipe: its difference from the given one, over the seeds that both have. Raises KdfastError where that has no result."
    runs = defaultdict(dict)
    for folder in folders:
        if folder.finished and folder.result['valid_accuracy'] is not None: runs[folder.recipe][folder.seed] = folder
    other = as_run(folders, recipe)
    if other not in runs: raise KdfastError(f'no finished run {recipe} on {folders[0].data} to compare with; there are {", ".join(runs) or "none"}')
    return [dict(recipe=name, against=other) | paired(runs[name], runs[other], margin)
            for name in sorted(runs.keys() - {other}, key=study_order)]


def paired(
    runs:dict[int,Folder], # Finished runs by seed
    others:dict[int,Folder], # Those of another recipe on the same data
    margin:float, # Smallest difference that matters, as a fraction
) -> dict:
    "Runs of one seed are pairs: from two seeds on, Student's interval; with one, that of its validation images."
    seeds = sorted(runs.keys() & others.keys())
    if not seeds: return dict(seeds=seeds, verdict=None)
    found = dict(seeds=seeds, differ_in=', '.join(differing([found[s] for found in (runs, others) for s in seeds])))
    if len(seeds) > 1:
        values = [runs[s].result['valid_accuracy'] - others[s].result['valid_accuracy'] for s in seeds]
        return found | judged(over_seeds(values, step(runs[seeds[0]])), margin)
    right,other_right = runs[seeds[0]].right(),others[seeds[0]].right()
    return found | judged(over_images(right, other_right), margin) | dict(p_value=mcnemar(right, other_right))


def step(
    folder:Folder, # A finished run that classifies
) -> float:
    "By how much one validation image moves its accuracy."
    return 1/(folder.result.get('valid_images') or sum(map(sum, folder.confusion()[1])))


def judged(
    difference:Difference, # Of accuracies
    margin:float, # Smallest difference that matters
) -> dict:
    "A difference as plain numbers, with its verdict and, where it is undecided, how many seeds would settle it."
    verdict = difference.verdict(margin)
    settle = difference.seeds_to_settle(margin) if (verdict, difference.of) == ('undecided', 'seeds') else None
    return dict(of=difference.of, n=difference.n, difference=difference.mean, sd=difference.sd, low=difference.low, high=difference.high,
                margin=margin, verdict=verdict, seeds_to_settle=settle)


# In words

def table(
    rows:list[dict], # From `against`
) -> Table:
    "A line a recipe: the difference in percentage points, its interval and the verdict."
    made = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    made.add_column(in_lines(f'against {rows[0]["against"]}'), no_wrap=True)
    for name in ('points', '95 % interval', 'n'): made.add_column(name, justify='right', no_wrap=True)
    made.add_column('verdict', min_width=max(map(len, STYLES)) + 1)
    for row in rows: made.add_row(in_lines(row['recipe']), *line(row))
    return made


def line(row):
    "The cells of a difference"
    if row['verdict'] is None: return '–','–','0',Text('no seed in common', style='dim')
    n = str(row['n']) if row['of'] == 'seeds' else '1 seed'
    return points(row['difference']),interval(row),n,Text.assemble((row['verdict'], STYLES[row['verdict']]), settle(row))


def points(x): return f'{100*x:+.2f}'.replace('-', '−')


def interval(row): return f'{points(row["low"])} … {points(row["high"])}'


def settle(row):
    if row['verdict'] != 'undecided': return ''
    if row['of'] == 'images': return ': run more seeds'
    if row['seeds_to_settle'] is None: return ': too near the margin for any number of seeds to settle it'
    return f': about {row["seeds_to_settle"]} seeds would settle it'


def remarks(
    rows:list[dict], # From `against`
) -> list[str]:
    "What the intervals cover, and what a verdict means."
    decided = [row for row in rows if row['verdict']]
    if not decided: return []
    notes = [f'better, worse: the whole interval lies beyond {100*decided[0]["margin"]:g} points; alike: within them; undecided: neither']
    if any(row['of'] == 'images' for row in decided):
        notes.append('with one seed, the interval covers the noise of the validation images, not that of training: another seed may differ by more')
    if any(row['of'] == 'seeds' for row in decided):
        notes.append('intervals over seeds: Student\'s, for paired differences on these validation images; '
                     'other images may differ by more')
    if len(decided) > 1:
        notes.append(f'each interval stands alone: of {len(decided)} comparisons, the chance that one or another '
                     'verdict is wrong is larger, for they are not corrected for their number')
    differ = sorted({what for row in decided for what in row['differ_in'].split(', ') if what})
    if differ:
        notes.append(f'some of the runs that are compared differ in {", ".join(differ)}, too, '
                     'which alone may make a difference')
    return notes
