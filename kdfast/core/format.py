"""Numbers and names as a reader takes them in. Imports no torch."""

from textwrap import wrap

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

# Numbers as a reader takes them in


def percent(x):
    return f'{100 * x:.2f} %'


def loss_text(x):
    return f'{x:.3f}'


def thousands(x):
    if x is None:
        return '–'
    return f'{x / 1e6:.2f} M' if x >= 1e6 else f'{x / 1e3:.0f} k' if x >= 1e3 else f'{x:.0f}'


def count_text(x):
    return f'{x:.0f}' if float(x).is_integer() else f'{x:.1f}'


def megabytes(x):
    return f'{x / 1e6:.2f} MB'


def milliseconds(x):
    return f'{1e3 * x:.2f} ms'


def duration(x):
    return f'{x:.0f} s' if x < 100 else f'{x / 60:.1f} min'


ROOMY = Console(width=1000)  # to measure what would like more room than there is


def fits_width(
    table: Table,  # Anything that rich can measure
    width: int,  # Columns of the terminal
) -> bool:
    "Whether the table can be shown with no cell broken."
    return Measurement.get(ROOMY, ROOMY.options, table).maximum <= width


def wrap_name(
    name: str,  # A recipe's name, with the arguments that are not its defaults
    width: int = 30,  # That a line should not be longer than
) -> Text:
    "The name, broken behind its commas, and elsewhere where it must be."
    lines = ['']
    for part in (part for argument in name.split(',') for part in wrap(f'{argument},', width)):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append('')
        lines[-1] += part
    return Text('\n'.join(lines)[:-1])


def signed_points(x):
    return f'{100 * x:+.2f}'.replace('-', '−')


def interval_text(row):
    return f'{signed_points(row["low"])} … {signed_points(row["high"])}'
