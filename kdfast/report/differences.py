"""Differences between recipes as tables and remarks."""

from collections.abc import Iterable, Sequence

from rich.text import Text

from kdfast.analysis.metrics import ACCURACY, METRICS
from kdfast.core.errors import listed
from kdfast.core.format import confidence_text, interval_text, short_names, signed_points, wrap_name
from kdfast.core.tables import Table
from kdfast.stats.intervals import CONFIDENCE

STYLES = dict(better='bold green', worse='bold red', alike='bold cyan', undecided='yellow')  # of verdicts

FEW = 5  # recipes of a verdict that a headline names


def difference_table(
    rows: Sequence[dict],  # From `differences_from`
) -> Table:
    "Return a table with one row per recipe: difference in points, interval, seeds and verdict."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column(wrap_name(f'against {rows[0]["against"]}'), no_wrap=True)
    for name in ('points', interval_heading(rows), 'n'):
        table.add_column(name, justify='right', no_wrap=True)
    table.add_column('verdict', min_width=max(map(len, STYLES)) + 1)
    for row in rows:
        table.add_row(wrap_name(row['recipe']), *difference_cells(row))
    return table


def interval_heading(
    rows: Sequence[dict],  # From `differences_from` or `answer_question`
) -> str:
    "Return the heading of the intervals, with their confidence if all have the same."
    confidences = confidences_of(rows)
    return f'{confidences[0]} interval' if len(confidences) == 1 else 'interval'


def confidences_of(
    rows,  # From `differences_from` or `answer_question`
):
    "Return the different confidences of the intervals as text, the lowest first."
    return [confidence_text(c) for c in sorted({row['confidence'] for row in rows if row['verdict']})]


def difference_cells(
    row: dict,  # From `contrast_of`
) -> tuple:  # points, interval, n, verdict
    "Return the cells of a difference."
    if row['verdict'] is None:
        return '–', '–', str(len(row['seeds'])), Text(no_verdict_reason(row), style='dim')
    n = str(row['n']) if row['of'] == 'seeds' else '1 seed'
    verdict = Text.assemble((row['verdict'], STYLES[row['verdict']]), seeds_note(row))
    return signed_points(row['difference']), interval_text(row), n, verdict


def no_verdict_reason(
    row,  # Without a verdict
):
    "Return why a difference has no verdict, in a few words."
    if 'left_out' in row:
        return row['reason']
    return f'first look at {row["next_look"]} seeds' if row.get('next_look') else 'no common seed'


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
    short: bool = False,  # Whether to shorten the names, and to name a few recipes of each verdict only
) -> list[Text]:
    "Return the main result, a sentence per verdict: which recipes are better, worse, alike, undecided."
    names = [rows[0]['against'], *(row['recipe'] for row in rows)]
    shown = short_names(names) if short else dict(zip(names, names))
    against = shown[names[0]]
    labels = dict(
        better=f'Better than {against}',
        worse=f'Worse than {against}',
        alike=f'Alike (any difference from {against} is smaller than the margin)',
        undecided='Undecided',
    )
    sentences = []
    for verdict, label in labels.items():
        found = [
            f'{shown[r["recipe"]]} ({signed_points(r["difference"])} points)' for r in rows if r['verdict'] == verdict
        ]
        if found:
            left = len(found) - FEW if short and len(found) > FEW else 0
            text = ', '.join(found[: len(found) - left]) + (f' and {left} more' if left else '')
            sentences.append(Text.assemble((label, STYLES[verdict]), f': {text}.'))
    return sentences


def difference_remarks(
    rows: Sequence[dict],  # From `differences_from`
) -> list[str]:
    "Return what the verdicts and intervals mean, how often they are wrong, and what to be careful about."
    return [
        *interval_remarks(rows),
        *error_rate_remarks(rows),
        *next_step_remarks(rows, 'study'),
        *settings_remarks(rows),
        *dict.fromkeys(row['left_out'] for row in rows if 'left_out' in row),
    ]


def interval_remarks(
    rows: Sequence[dict],  # From `differences_from` or `answer_question`
) -> list[str]:
    "Return what the verdicts and intervals mean."
    decided = [row for row in rows if row['verdict']]
    if not decided:
        return []
    margin = margins_text(decided)
    remarks = [f'better, worse: the whole interval is beyond {margin}; alike: it is within; undecided: neither']
    metric = METRICS[decided[0]['metric']]
    if metric is not ACCURACY:
        remarks.insert(0, f'differences of {metric.label}: {metric.meaning}')
    return [*remarks, *subject_remarks(decided)]


def margins_text(
    rows: Sequence[dict],  # With a verdict
) -> str:
    "Return the margin that verdicts were judged by: ±0.8 points; of several also whose each is."
    names: dict[float, list[str]] = {}
    for row in rows:
        names.setdefault(row['margin'], []).append(row.get('recipe', ''))
    if len(names) == 1:
        return f'±{100 * rows[0]["margin"]:g} points'
    return ', '.join(f'±{100 * margin:g} points ({listed(of)})' for margin, of in names.items())


def margin_remarks(
    margins: Iterable[tuple[float, float]],  # By which a verdict was judged, and of its design
) -> list[str]:
    "Return a remark for each declared margin that another one was given for."
    return [
        f'judged by ±{100 * margin:g} points as asked: the design declares {100 * declared:g} points, and its error '
        'rate holds for that alone'
        for margin, declared in dict.fromkeys(margins)
        if margin != declared
    ]


def subject_remarks(
    rows,  # With a verdict
):
    "Return what the verdicts over seeds are about, and those of one seed."
    remarks = []
    over_seeds = [row for row in rows if row['of'] == 'seeds']
    if len(over_seeds) < len(rows):
        remarks.append(
            'with one seed, a verdict is about these weights on such images: the interval covers the choice of '
            'validation images, not the randomness of training; another seed may differ by more'
        )
    if over_seeds:
        about = 'verdicts are about these validation images, this split and this many epochs: others may differ by more'
        if any(row['resplit'] for row in over_seeds):
            about = (
                'a new split per seed: verdicts are about such splits of these images and this many epochs; '
                'others may differ by more'
            )
        remarks.append(f'{"with several seeds, " if remarks else ""}{about}')
    return remarks


def error_rate_remarks(
    rows: Sequence[dict],  # From `differences_from`
) -> list[str]:
    "Return how often a verdict of several recipes is wrong, and the confidence of the intervals."
    decided = [row for row in rows if row['verdict']]
    looks, alone = [row for row in decided if 'look' in row], [row for row in decided if 'look' not in row]
    remarks = []
    if looks:
        remarks.append(
            'verdicts of a declared design: over all its looks and recipes, at most 5 % of studies have a wrong one; '
            f'their intervals have a confidence of {", ".join(confidences_of(looks))}'
        )
        remarks += margin_remarks((row['margin'], row['declared_margin']) for row in looks)
    return remarks + correction_remarks(alone)


def correction_remarks(
    rows,  # With a verdict, and without a design
):
    "Return how the intervals of several recipes are corrected; one seed says nothing about studies."
    n = rows[0]['comparisons'] if rows else 0
    if n < 2:
        return []
    corrected = f'has a confidence of {confidences_of(rows)[0]} (Bonferroni; --uncorrected: 95 %)'
    over_seeds = sum(row['of'] == 'seeds' for row in rows)
    which = f'these {n}' if over_seeds == n else 'those with several seeds'
    if rows[0]['confidence'] > CONFIDENCE:
        promise = f'at most 5 % of studies have a wrong verdict among {which}, as each interval'
        return [f'simultaneous intervals: {promise if over_seeds else f"each of these {n}"} {corrected}']
    if not over_seeds:
        return [f'uncorrected: each of these {n} intervals has a confidence of 95 %, all of them together less']
    every = f'each of {which} verdicts' if over_seeds == n else f'each verdict of {which}'
    together = ', one of them in more' if over_seeds > 1 else ''
    return [f'uncorrected: {every} is wrong in at most 5 % of studies{together}']


def next_step_remarks(
    rows: Sequence[dict],  # From `differences_from` or `answer_question`
    command: str,  # That adds seeds: study or matrix
) -> list[str]:
    "Return how to add seeds to what is undecided without a design."
    if not any(row['verdict'] == 'undecided' and 'look' not in row for row in rows):
        return []
    return [
        'adding seeds until a verdict appears is wrong in more than 5 % of studies: use '
        f'kdfast {command} … --until-decided, whose declared looks share the 5 %'
    ]


def settings_remarks(
    rows: Sequence[dict],  # From `differences_from` or `answer_question`
) -> list[str]:
    "Return the settings in which compared runs differ."
    decided = [row for row in rows if row['verdict']]
    differing = sorted({setting for row in decided for setting in row['differ_in'].split(', ') if setting})
    if not differing:
        return []
    return [f'some of the compared runs also differ in {", ".join(differing)}, which may affect the results']
