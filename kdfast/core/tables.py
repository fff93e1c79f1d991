"Tables that a narrow terminal shows without cutting a word or a number. Imports no torch."

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import rich.table
from rich.console import Group
from rich.measure import Measurement
from rich.text import Text

from kdfast.core.format import UNLIMITED

FOLDED = 16  # characters of a name of a run or a path, which has no spaces, before it may be broken


class Table(rich.table.Table):
    """A table that becomes a list, a line for each cell, where its words are wider than the terminal.

    Columns with overflow 'crop', such as bars, may be cut anywhere, and a list has none; those with 'fold' may be
    broken after FOLDED characters.
    """

    key = 0  # Column whose cells name the rows: a list has them first

    def __rich_console__(self, console, options):
        "Yield the table with columns that break no word, or the list."
        narrowest = [narrowest_width(column) for column in self.columns]
        widest = [widest_width(column) for column in self.columns]
        frame = measured(with_widths(self, [1] * len(widest))).maximum - len(widest)  # padding and borders
        room = options.max_width - frame
        if sum(narrowest) > room:
            yield as_list(self)
            return
        while sum(widest) > room:
            slack = [wide - narrow for wide, narrow in zip(widest, narrowest)]
            widest[slack.index(max(slack))] -= 1
        yield from super(Table, with_widths(self, widest)).__rich_console__(console, options)


def with_widths(
    table: Table,  # Any
    widths: Sequence[int],  # Of its columns, in characters
) -> Table:
    "Return the table with columns of these widths."
    shown = copy(table)
    shown.columns = [replace(column, width=width) for column, width in zip(table.columns, widths)]
    return shown


def widest_width(
    column,  # Of a table
) -> int:
    "Return the width that breaks no line."
    return max(measured(cell).maximum for cell in (column.header, *column.cells))


def narrowest_width(
    column,  # Of a table
) -> int:
    "Return the width that breaks no word; of numbers, which are on the right, that breaks no cell."
    if column.overflow == 'crop':
        return 1
    if column.no_wrap:
        return widest_width(column)
    words = [shortest_width(cell, column) for cell in (column.header, *column.cells)]
    numbers = [measured(cell).maximum for cell in column.cells if column.justify == 'right']
    return max(words + numbers)


def shortest_width(
    cell,  # Of the column
    column,  # Of a table
) -> int:
    "Return the width that breaks no word of a cell; a name that may be folded counts up to FOLDED."
    longest_word = measured(cell).minimum
    folded = 'fold' in (column.overflow, getattr(cell, 'overflow', None))
    return min(longest_word, FOLDED) if folded else longest_word


def measured(
    cell,  # Of a table
) -> Measurement:
    "Return the widths of a cell's longest word and of its longest line."
    return Measurement.get(UNLIMITED, UNLIMITED.options, cell)


def as_list(
    table: Table,  # That does not fit
) -> Group:
    "Return a table as a list: for each row its name and, below it, a line for each other cell."
    named = table.columns[table.key]
    others = [column for column in table.columns if column is not named and column.overflow != 'crop']
    lines = [Text(plain(named.header), style='bold')] if plain(named.header) else []
    for name, *cells in zip(*(list(column.cells) for column in (named, *others))):
        lines.append(Text(plain(name), style='bold'))
        lines += [
            Text(f'  {" ".join(f"{plain(column.header)} {plain(cell)}".split())}')
            for column, cell in zip(others, cells)
            if plain(cell)
        ]
    return Group(*lines, *([Text(plain(table.caption))] if table.caption else []))


def plain(
    cell,  # Text of rich or str
):
    "Return the text of a cell."
    return (cell if isinstance(cell, Text) else Text.from_markup(str(cell))).plain
