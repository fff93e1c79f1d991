"""The plan of a study for the terminal. Imports no torch.

`found` is what `kdfast plan --json` prints: `data`, `images` (validation), `recipes`, `margin`, `looks`, `spreads`
(standard deviations, each with outlooks and remedies), `costs`, `jobs`, `seconds`, `bytes`, `free`.
"""

from collections.abc import Iterator
from math import ceil, floor, log10

from rich.console import Group
from rich.text import Text

from kdfast.core.errors import listed
from kdfast.core.format import duration, ranges, size_text
from kdfast.core.tables import Table
from kdfast.stats.planning import SHARE


def plan_view(
    found: dict,  # See above
) -> Group:
    "Return the seeds, the minutes and the disk space that a study is expected to need."
    looks = ranges(found['looks'])
    known = f', declared on {found["declared"]}' if found['declared'] else ''
    title = f'\n{listed(found["recipes"])} on {found["data"]}: looks at {looks} seeds{known}\n'
    meaning = (
        f'decided: every recipe is better, worse or alike with a margin of {100 * found["margin"]:g} points, in '
        f'{SHARE:.0%} of simulated studies; sd: spread of a difference over seeds, in points, with '
        f'{found["images"]:,} validation images, from {found["spreads"][0]["source"]}'
    )
    lines = [Text(line) for line in remedy_lines(found)]
    return Group(
        Text(title, style='bold'),
        outlook_table(found),
        Text(),
        *lines,
        *([Text()] if lines else []),
        cost_table(found),
        Text(),
        Text(meaning, style='dim'),
    )


def outlook_table(
    found,  # See above
):
    "Return two rows per spread: what is expected for no difference and for a large one."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
    for name in ('error', 'sd', 'true difference', 'decided at', 'on average', 'time left'):
        table.add_column(name, justify='left' if name == 'true difference' else 'right', no_wrap=True)
    for spread in found['spreads']:
        known = ('–' if spread['error'] is None else percent_text(spread['error'])), f'{100 * spread["sd"]:.2f}'
        for name, outlook in zip(('none', 'twice the margin'), spread['outlooks']):
            if outlook['look']:
                cells = f'{outlook["look"]} seeds', f'{outlook["seeds"]:.1f}'
            else:
                cells = Text(f'not by {found["looks"][-1]} ({outlook["decided"]:.0%})', 'yellow'), '–'
            table.add_row(*known, name, *cells, duration(outlook['seconds']))
            known = '', ''
    return table


def remedy_lines(
    found,  # See above
) -> Iterator[str]:
    "Yield what would help if the last look is not enough, and what to do if no error is known."
    for spread in found['spreads']:
        if remedies := spread['remedies']:
            error = f'error {percent_text(spread["error"])}: ' if len(found['spreads']) > 1 else ''
            last = found['looks'][-1]
            yield f'{error}{last} seeds are too few; enough: {remedy_text(remedies)}'
    if len(found['spreads']) > 1:
        yield 'No error is known yet: give --error PERCENT, or train a first run (last line) and plan again.'


def remedy_text(
    remedies: dict,  # From `kdfast.stats.planning.remedies_of`
) -> str:
    "Return what would be enough to decide."
    ways = [f'about {remedies["images"]:,} validation images'] if remedies['images'] else []
    ways += [f'--margin {margin_text(remedies["margin"])}'] if remedies['margin'] else []
    return ' or '.join(ways) or 'nothing that was tried'


def cost_table(
    found,  # See above
):
    "Return what a seed and the whole study take."
    table = Table.grid(padding=(0, 2))
    costs = [f'{label} {duration(cost["seconds"])}' for label, cost in labelled(found['costs']).items()]
    seconds, jobs = sum(cost['seconds'] for cost in found['costs'].values()), found['jobs']
    table.add_row('a seed', Text(f'{duration(seconds)} of training: {", ".join(costs)}'))
    beside = f', {jobs} runs at a time' if jobs > 1 else ''
    n_bytes = f'{size_text(found["bytes"])} on the disk ({size_text(found["free"])} free)'
    style = '' if found['bytes'] <= found['free'] else 'bold red'
    last = f'{found["looks"][-1]} seeds'
    table.add_row(last, Text.assemble(f'{duration(found["seconds"])} left{beside}; ', (n_bytes, style)))
    return table


def labelled(
    costs,  # By the name of the recipe's directory
):
    "Return the costs by the name of the recipe alone, where that is unique."
    short = [name.split(',')[0] for name in costs]
    return {(s if short.count(s) == 1 else name): cost for s, (name, cost) in zip(short, costs.items())}


def percent_text(
    fraction: float,  # 0 to 1
) -> str:
    "Format a rough percentage: 20 %, 7.5 %."
    return f'{100 * fraction:.3g} %'


def margin_text(
    margin: float,  # As a fraction
) -> str:
    "Format a margin in points with two digits, rounded up: 1.3."
    return f'{round_up(100 * margin):g}'


def round_up(
    number: float,  # Above 0
) -> float:
    "Round up to two significant digits."
    unit = 10.0 ** (floor(log10(number)) - 1)
    return round(ceil(round(number / unit, 6)) * unit, 6)
