"""Differences between recipes as tables and sentences."""

from rich.table import Table
from rich.text import Text

from kdfast.core.format import interval_text, signed_points, wrap_name

STYLES = dict(better='bold green', worse='bold red', alike='bold cyan', undecided='yellow')


# In words


def difference_table(
    rows: list[dict],  # From `against`
) -> Table:
    "A line a recipe: the difference in percentage points, its interval and the verdict."
    made = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    made.add_column(wrap_name(f'against {rows[0]["against"]}'), no_wrap=True)
    for name in ('points', '95 % interval', 'n'):
        made.add_column(name, justify='right', no_wrap=True)
    made.add_column('verdict', min_width=max(map(len, STYLES)) + 1)
    for row in rows:
        made.add_row(wrap_name(row['recipe']), *difference_row(row))
    return made


def difference_row(row):
    "The cells of a difference"
    if row['verdict'] is None:
        return '–', '–', '0', Text('no seed in common', style='dim')
    n = str(row['n']) if row['of'] == 'seeds' else '1 seed'
    return (
        signed_points(row['difference']),
        interval_text(row),
        n,
        Text.assemble((row['verdict'], STYLES[row['verdict']]), seeds_note(row)),
    )


def seeds_note(row):
    if row['verdict'] != 'undecided':
        return ''
    if row['of'] == 'images':
        return ': run more seeds'
    if row['seeds_to_settle'] is None:
        return ': too near the margin for any number of seeds to settle it'
    return f': about {row["seeds_to_settle"]} seeds would settle it'


def difference_remarks(
    rows: list[dict],  # From `against`
) -> list[str]:
    "What the intervals cover, and what a verdict means."
    decided = [row for row in rows if row['verdict']]
    if not decided:
        return []
    notes = [
        f'better, worse: the whole interval lies beyond {100 * decided[0]["margin"]:g} points; alike: within them; undecided: neither'
    ]
    if any(row['of'] == 'images' for row in decided):
        notes.append(
            'with one seed, the interval covers the noise of the validation images, not that of training: another seed may differ by more'
        )
    if any(row['of'] == 'seeds' for row in decided):
        notes.append(
            'intervals over seeds: Student\'s, for paired differences on these validation images; '
            'other images may differ by more'
        )
    if len(decided) > 1:
        notes.append(
            f'each interval stands alone: of {len(decided)} comparisons, the chance that one or another '
            'verdict is wrong is larger, for they are not corrected for their number'
        )
    differ = sorted({what for row in decided for what in row['differ_in'].split(', ') if what})
    if differ:
        notes.append(
            f'some of the runs that are compared differ in {", ".join(differ)}, too, which alone may make a difference'
        )
    return notes
