"""Whether distillation is worth it, as two sentences and a screen. Imports no torch.

`found` is what `kdfast worth --json` prints: `answer`, `subject` (of the sentences), `margin`, `metric`, `looks`, `n`,
`recipes` (rows with `name`, `seconds` and the difference), `baseline` (seconds), `best`, `next`, `needed`, `left_out`
(remarks about runs without a result).
"""

from rich.console import Group
from rich.text import Text

from kdfast.analysis.metrics import ACCURACY, METRICS
from kdfast.analysis.worth import NO, YES, chosen_row
from kdfast.core.errors import listed
from kdfast.core.format import duration, interval_text, percent, ranges, signed_points, wrap_name
from kdfast.core.tables import Table
from kdfast.report.differences import STYLES
from kdfast.report.plan import margin_text

ANSWERS = dict(yes=('Yes', 'bold green'), no=('No', 'bold red'), undecided=('Not decided', 'bold yellow'))


def sentences(
    found: dict,  # Answer, rows and costs: see above
) -> list[str]:
    "Return two sentences: what is known about the effect, and what it costs or what is missing."
    if not found['n']:
        first = f'no verdict before {found["looks"][0]} seeds are finished, the first look of the design.'
        second = 'Repeat the command: it resumes the runs.'
    elif found['answer'] == YES:
        first, second = gain_sentence(found), price_sentence(found)
    elif found['answer'] == NO:
        first, second = no_gain_sentence(found), baseline_sentence(found)
    else:
        first, second = open_sentence(found), missing_sentence(found)
    return [f'{ANSWERS[found["answer"]][0]}: {first}', second]


def gain_sentence(
    found,  # A recipe is better
):
    "Say by how much the chosen recipe helps."
    row = chosen_row(found['recipes'])
    return (
        f'{row["name"]} raises the {label(found)} of {found["subject"]} by {positive(row)} points over training on '
        f'labels alone ({row["n"]} seeds).'
    )


def price_sentence(
    found,  # A recipe is better
):
    "Say what the chosen recipe costs, and how its best model is reproduced."
    row, baseline = chosen_row(found['recipes']), found['baseline']
    total = sum(row['seconds'].values())
    parts = ', '.join(f'{name} {duration(seconds)}' for name, seconds in row['seconds'].items())
    return (
        f'Its training takes {times(total, baseline)} the time of the baseline ({duration(total)} a seed: {parts}; '
        f'baseline {duration(baseline)}); {best_text(found)}'
    )


def no_gain_sentence(
    found,  # Every recipe is alike or worse
):
    "Say that no recipe helps, with all intervals."
    return (
        f'no recipe raises the {label(found)} of {found["subject"]} by {points(found["margin"])} points: against '
        f'training on labels alone, {changes(found["recipes"])} ({found["n"]} seeds).'
    )


def baseline_sentence(
    found,  # Every recipe is alike or worse
):
    "Say what distillation would cost, and how the baseline's best model is reproduced."
    factors = [sum(row['seconds'].values()) for row in found['recipes']]
    low, high = (times(end(factors), found['baseline']) for end in (min, max))
    span = low if low == high else f'{low.removesuffix(" times")} to {high}'
    return f'Distillation takes {span} the time of the baseline; {best_text(found)}'


def open_sentence(
    found,  # A recipe is undecided
):
    "Say what is known."
    return (
        f'whether a recipe changes the {label(found)} of {found["subject"]} by {points(found["margin"])} points is '
        f'open after {found["n"]} seeds: against training on labels alone, {changes(found["recipes"])}.'
    )


def missing_sentence(
    found,  # A recipe is undecided
):
    "Say what would decide it."
    if found['next']:
        return (
            f'The next look is at {found["next"]["seeds"]} seeds, about {duration(found["next"]["seconds"])} of '
            f'training from now: repeat the command; {best_text(found)}'
        )
    needed = found['needed']
    ways = []
    if needed['images']:
        ways.append(f'about {needed["images"]:,} validation images')
    if needed['margin']:
        ways.append(f'a margin of {margin_text(needed["margin"])} points')
    wanted = f'such a study needs {" or ".join(ways)}' if ways else 'no number of images or margin nearby would do'
    return f'That was the last look; to be decided, {wanted}, and a --runs directory of its own; {best_text(found)}'


def best_text(
    found,  # Any answer
):
    "Say which command reproduces the best model."
    best, so_far = found['best'], ' so far' if found['next'] else ''
    value = f'{"" if METRICS[found["metric"]] is ACCURACY else label(found) + " "}{percent(best["value"])}'
    return (
        f'the best model{so_far}, {best["name"]} with seed {best["seed"]} ({value} on the validation '
        f'images that it is chosen by), is reproduced by: {best["command"]}'
    )


def changes(
    rows,  # From `differences_from`
):
    "Return the interval of every recipe."
    return listed([f'{row["name"]} changes it by {interval_text(row).replace("…", "to")} points' for row in rows])


def label(
    found,  # Any answer
):
    "Return what verdicts judge."
    return METRICS[found['metric']].label


def positive(
    row,  # A better recipe
):
    "Format an interval above 0 without signs: 0.90 to 3.10."
    return f'{100 * row["low"]:.2f} to {100 * row["high"]:.2f}'


def points(
    fraction,  # Of accuracy
):
    "Format a margin in points: 0.8."
    return f'{100 * fraction:.3g}'


def times(
    seconds,  # Of a recipe
    baseline,  # Of the baseline
):
    "Format how many times as long a training takes: 3.1 times."
    return f'{seconds / max(baseline, 0.1):.1f} times'


def worth_view(
    found: dict,  # Answer, sentences, rows and costs
) -> Group:
    "Return the answer, its two sentences, the table and what the intervals mean, for a terminal."
    word, style = ANSWERS[found['answer']]
    first, second = found['sentences']
    parts = [Text.assemble('\n', (word, style), first.removeprefix(word), '\n'), Text(second), Text()]
    if found['n']:
        parts += [cost_table(found), Text(), *(Text(remark, style='dim') for remark in remarks(found))]
    return Group(*parts, *(Text(remark) for remark in found.get('left_out', [])))


def cost_table(
    found,  # With rows
):
    "Return one row per recipe: difference, interval, verdict, training time of a seed."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    table.add_column('against baseline', no_wrap=True)
    for name in ('points', 'interval', 'n'):
        table.add_column(name, justify='right', no_wrap=True)
    table.add_column('verdict', no_wrap=True)
    table.add_column('time a seed', justify='right', no_wrap=True)
    for row in found['recipes']:
        total = sum(row['seconds'].values())
        table.add_row(
            wrap_name(row['name']),
            signed_points(row['difference']),
            interval_text(row),
            str(row['n']),
            Text(row['verdict'], STYLES[row['verdict']]),
            f'{duration(total)} ({times(total, found["baseline"]).removesuffix(" times")}×)',
        )
    return table


def remarks(
    found,  # With rows
):
    "Return what the intervals are about."
    confidences = sorted({row['confidence'] for row in found['recipes']})
    said = [
        f'intervals of a declared design (looks at {ranges(found["looks"])} seeds, '
        f'{len(found["recipes"])} recipes; confidence {", ".join(f"{100 * c:.2f} %" for c in confidences)}): they hold '
        'together, so that at most 5 % of such answers are wrong, however the best recipe is chosen',
        'about these validation images, this teacher and these epochs; points are means, which are too high on '
        'average for the best of several recipes',
    ]
    differing = {row['differ_in'] for row in found['recipes'] if row.get('differ_in')}
    return said + [f'some of the compared runs also differ in {names}' for names in sorted(differing)]
