"A study with a design as a table and sentences."

from rich.table import Table
from rich.text import Text

from kdfast.core.format import interval_text, signed_points, wrap_name
from kdfast.report.differences import STYLES


def design_table(
    rows: list[dict],  # From `kdfast.analysis.sequential.design_differences`
) -> Table:
    "A line a recipe: the difference in percentage points, its interval, the look that decided, and the verdict."
    made = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    made.add_column(wrap_name(f'against {rows[0]["against"]}'), no_wrap=True)
    for name in ('points', 'interval', 'confidence', 'seeds'):
        made.add_column(name, justify='right', no_wrap=True)
    made.add_column('verdict', min_width=max(map(len, STYLES)) + 1)
    for row in rows:
        made.add_row(wrap_name(row['recipe']), *design_row(row))
    return made


def design_row(row):
    if row['verdict'] is None:
        return '–', '–', '–', str(row['n']), Text(f'first look at {row["next_look"]} seeds', style='dim')
    following = f': next look at {row["next_look"]} seeds' if row['next_look'] else ''
    end = ': the last look' if row['verdict'] == 'undecided' and not row['next_look'] else following
    verdict = Text.assemble((row['verdict'], STYLES[row['verdict']]), end)
    return (
        signed_points(row['difference']),
        interval_text(row),
        f'{100 * row["confidence"]:.2f} %',
        str(row['n']),
        verdict,
    )


def design_remarks(
    declared,  # kdfast.study.design.Declared
) -> list[str]:
    "What the design promises."
    of = f'all {len(declared.recipes)} comparisons and' if len(declared.recipes) > 1 else ''
    notes = [
        f'declared on {declared.declared[:10]}: looks at {", ".join(map(str, declared.looks))} seeds. At most one study in '
        f'twenty has a wrong verdict, over {of} all looks'.replace('  ', ' '),
        f'better, worse: the whole interval lies beyond {100 * declared.margin:g} points; alike: within them',
        'intervals: Student\'s, for paired differences on these validation images; other images may differ by more',
    ]
    if declared.finished_before:
        notes.append(
            f'{declared.finished_before} of its runs were finished before it was declared: where they had been looked '
            'at, the promise holds for the seeds behind them alone'
        )
    return notes
