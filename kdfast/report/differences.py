"""Differences between recipes as tables and remarks."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from kdfast.analysis.metrics import ACCURACY, METRICS
from kdfast.core.format import interval_text, signed_points, wrap_name

STYLES = dict(better='bold green', worse='bold red', alike='bold cyan', undecided='yellow')  # of verdicts


def difference_table(
    rows: Sequence[dict],  # From `differences_from`
) -> Table:
    "Return a table with one row per recipe: difference in points, interval, seeds and verdict."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column(wrap_name(f'against {rows[0]["against"]}'), no_wrap=True)
    interval = 'interval' if any('look' in row for row in rows) else '95 % interval'
    for name in ('points', interval, 'n'):
        table.add_column(name, justify='right', no_wrap=True)
    table.add_column('verdict', min_width=max(map(len, STYLES)) + 1)
    for row in rows:
        table.add_row(wrap_name(row['recipe']), *difference_cells(row))
    return table


def difference_cells(
    row: dict,  # From `paired_difference`
) -> tuple:  # points, interval, n, verdict
    "Return the cells of a difference."
    if row['verdict'] is None:
        missing = f'first look at {row["next_look"]} seeds' if row.get('next_look') else 'no common seed'
        return '–', '–', str(len(row['seeds'])), Text(missing, style='dim')
    n = str(row['n']) if row['of'] == 'seeds' else '1 seed'
    verdict = Text.assemble((row['verdict'], STYLES[row['verdict']]), seeds_note(row))
    return signed_points(row['difference']), interval_text(row), n, verdict


def seeds_note(
    row: dict,  # From `differences_from`
):
    "Return what would decide an undecided difference; nothing for a decided one."
    if row['verdict'] != 'undecided':
        return ''
    if 'look' in row:
        return f': next look at {row["next_look"]} seeds' if row['next_look'] else ': that was the last look'
    if row['of'] == 'images':
        return ': run more seeds'
    if row['seeds_to_settle'] is None:
        return ': too close to the margin for any number of seeds'
    return f': needs about {row["seeds_to_settle"]} seeds'


def verdict_texts(
    rows: Sequence[dict],  # From `differences_from`
) -> list[Text]:
    "Return the main result, a sentence per verdict: which recipes are better, worse, alike, undecided."
    against = rows[0]['against']
    labels = dict(
        better=f'Better than {against}',
        worse=f'Worse than {against}',
        alike=f'Alike (any difference from {against} is smaller than the margin)',
        undecided='Undecided',
    )
    sentences = []
    for verdict, label in labels.items():
        found = [f'{r["recipe"]} ({signed_points(r["difference"])} points)' for r in rows if r['verdict'] == verdict]
        if found:
            sentences.append(Text.assemble((label, STYLES[verdict]), f': {", ".join(found)}.'))
    return sentences


def difference_remarks(
    rows: Sequence[dict],  # From `differences_from` or `paired_difference`
) -> list[str]:
    "Return what the verdicts and intervals mean, and what to be careful about."
    decided = [row for row in rows if row['verdict']]
    if not decided:
        return []
    margin = f'{100 * decided[0]["margin"]:g} points'
    remarks = [f'better, worse: the whole interval is beyond ±{margin}; alike: it is within; undecided: neither']
    metric = METRICS[decided[0]['metric']]
    if metric is not ACCURACY:
        remarks.insert(0, f'differences of {metric.label}: {metric.meaning}')
    if any(row['of'] == 'images' for row in decided):
        remarks.append(
            'with one seed, the interval covers the choice of validation images, not the randomness of training: '
            'another seed may differ by more'
        )
    if any(row['of'] == 'seeds' for row in decided):
        remarks.append(
            "intervals over seeds: Student's t, for paired differences on these validation images; "
            'other images may differ by more'
        )
    alone = [row for row in decided if 'look' not in row]
    if len(alone) < len(decided):
        confidences = sorted({row['confidence'] for row in decided if 'look' in row})
        remarks.append(
            'verdicts of a declared design: over all its looks and recipes, at most 5 % of studies have a wrong one; '
            f'their intervals have a confidence of {", ".join(f"{100 * c:.2f} %" for c in confidences)}'
        )
    if len(alone) > 1:
        remarks.append(
            f'the intervals are not corrected for multiple comparisons: that one of {len(alone)} verdicts is wrong '
            'is more likely than that a given one is'
        )
    differing = sorted({setting for row in decided for setting in row['differ_in'].split(', ') if setting})
    if differing:
        remarks.append(f'some of the compared runs also differ in {", ".join(differing)}, which may affect the results')
    return remarks
