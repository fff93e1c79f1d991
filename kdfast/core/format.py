"""Format numbers and names for readers. Imports no torch."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from textwrap import wrap

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

LONG = 6000  # seconds from which hours are shown
UNLIMITED = Console(width=1000)  # to measure the width that a table would take

# Numbers


def percent(
    fraction: float,  # 0 to 1
    digits: int = 2,  # Decimals
) -> str:
    "Format a fraction as a percentage: 85.32 %."
    return f'{100 * fraction:.{digits}f} %'


def signed_points(
    difference: float,  # Of two fractions
) -> str:
    "Format a difference in percentage points, with its sign: +0.41, −1.20."
    return f'{100 * difference:+.2f}'.replace('-', '−')


def interval_text(
    row: Mapping[str, float],  # With the ends of the interval, `low` and `high`, as fractions
) -> str:
    "Format an interval in percentage points: −0.20 … +1.02."
    return f'{signed_points(row["low"])} … {signed_points(row["high"])}'


def confidence_text(
    confidence: float,  # Of an interval
) -> str:
    "Format a confidence: 95 %, 98.75 %, 99.67 %; never 100 %."
    return f'{min(100 * confidence, 99.99):.4g} %'


def loss_text(
    loss: float,  # Of any kind
) -> str:
    "Format a loss: 0.312."
    return f'{loss:.3f}'


def count_text(
    count: float,  # A count, or the mean of several
) -> str:
    "Format a count: 32, or 31.5."
    return f'{count:.0f}' if float(count).is_integer() else f'{count:.1f}'


def thousands(
    count: float | None,  # Parameters, multiply-adds, …
) -> str:
    "Format a large count: 2.10 G, 1.33 M, 306 k, 84; a dash for None."
    if count is None:
        return '–'
    if count >= 1e9:
        return f'{count / 1e9:.2f} G'
    if count >= 1e6:
        return f'{count / 1e6:.2f} M'
    return f'{count / 1e3:.0f} k' if count >= 1e3 else f'{count:.0f}'


def size_text(
    n_bytes: float,  # In memory or on the disk
    digits: int = 1,  # Decimals
) -> str:
    "Format a number of bytes, by factors of 1000: 3.2 MB, 1.5 GB."
    return f'{n_bytes / 1e9:.{digits}f} GB' if n_bytes >= 1e9 else f'{n_bytes / 1e6:.{digits}f} MB'


def milliseconds(
    seconds: float,  # Below a second or so
) -> str:
    "Format a short time: 0.52 ms."
    return f'{1e3 * seconds:.2f} ms'


def duration(
    seconds: float,  # From a second to days
) -> str:
    "Format a long time: 42 s, 3.5 min, 2.1 h."
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.1f} min' if seconds < LONG else f'{seconds / 3600:.1f} h'


def shape_text(
    shape: Sequence[int],  # Of a tensor or an array
) -> str:
    "Format a shape: 84×8×8."
    return '×'.join(map(str, shape))


# Tables and names


def fits_width(
    table: Table,  # Anything that rich can measure
    width: int,  # Columns of the terminal
) -> bool:
    "Return whether the table can be shown without breaking a cell."
    return Measurement.get(UNLIMITED, UNLIMITED.options, table).maximum <= width


def wrap_name(
    name: str,  # Of a run: its recipe, followed by the arguments that are not at their defaults
    width: int = 30,  # Longest line
) -> Text:
    "Break the name into lines after its commas, and inside of arguments that are longer than a line."
    lines = ['']
    for argument in name.split(','):
        for part in wrap(f'{argument},', width):
            if lines[-1] and len(lines[-1]) + len(part) > width:
                lines.append('')
            lines[-1] += part
    return Text('\n'.join(lines)[:-1])


def short_names(
    names: Sequence[str],  # Of runs: their recipes, followed by the arguments that are not at their defaults
) -> dict[str, str]:
    "Return names without the arguments that all runs of a recipe share; no two are equal."
    by_recipe: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_recipe.setdefault(name.split(',')[0], []).append(name)
    found = {}
    for of_recipe in by_recipe.values():
        arguments = [name.split(',') for name in of_recipe]
        shared = set.intersection(*map(set, arguments))
        for name, (recipe, *own) in zip(of_recipe, arguments):
            found[name] = ','.join([recipe, *(argument for argument in own if argument not in shared)])
    return found


def ranges(
    numbers: Sequence[int],  # At least one, ascending
) -> str:
    "Format whole numbers for a sentence, for example: 3, 5 and 8; or 4 to 10, 12, 14 and 16."
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    parts = [part for run in runs for part in ([f'{run[0]} to {run[-1]}'] if len(run) > 2 else map(str, run))]
    return f'{", ".join(parts[:-1])} and {parts[-1]}' if len(parts) > 1 else parts[0]
