"Tables that a narrow terminal shows without cutting a word or a number. Imports no torch."

from dataclasses import dataclass

from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kdfast.core.format import UNLIMITED

FOLDED = 24  # characters of a name of a run or a path, which has no spaces, before it may be broken


@dataclass
class Fitted:
    "A table that, where its words are wider than the terminal, becomes a list with a line for each cell."

    table: Table

    def __rich_console__(self, console, options):
        "Yield the table with columns that break no word, or the list."
        narrowest = [narrowest_width(column) for column in self.table.columns]
        widest = [measured(list(column.cells), column.header).maximum for column in self.table.columns]
        room = options.max_width - (self.__rich_measure__(UNLIMITED, UNLIMITED.options).maximum - sum(widest))
        if sum(narrowest) > room:
            yield as_list(self.table)
            return
        while sum(widest) > room:
            slack = [wide - narrow for wide, narrow in zip(widest, narrowest)]
            widest[slack.index(max(slack))] -= 1
        for column, width in zip(self.table.columns, widest):
            column.width = width
        yield self.table

    def __rich_measure__(self, console: Console, options):
        "Return the widths of the table."
        return Measurement.get(console, options, self.table)


def measured(
    cells,  # Of a column
    header,  # Of the column
):
    "Return the width of the longest word of a column, and of its longest line."
    found = [Measurement.get(UNLIMITED, UNLIMITED.options, cell) for cell in (header, *cells)]
    return Measurement(max(width.minimum for width in found), max(width.maximum for width in found))


def narrowest_width(
    column,  # Of a table
):
    "Return the width that breaks no word; of numbers, which are on the right, that breaks no cell."
    cells = list(column.cells)
    if column.no_wrap:
        return measured(cells, column.header).maximum
    if column.justify == 'right':
        return max(measured(cells, '').maximum, measured([], column.header).minimum)
    narrowest = measured(cells, column.header).minimum
    return min(narrowest, FOLDED) if column.overflow == 'fold' else narrowest


def as_list(
    table: Table,  # That does not fit
) -> Group:
    "Return a table as a list: for each row its first cell and, below it, a line for each other cell."
    first, *others = table.columns
    lines = [Text(plain(first.header), style='bold')] if plain(first.header) else []
    for cells in zip(*(list(column.cells) for column in table.columns)):
        lines.append(Text(plain(cells[0]), style='bold'))
        lines += [
            Text(f'  {" ".join(f"{plain(column.header)} {plain(cell)}".split())}', overflow='fold')
            for column, cell in zip(others, cells[1:])
            if plain(cell)
        ]
    return Group(*lines, *([Text(plain(table.caption))] if table.caption else []))


def plain(
    cell,  # Text of rich or str
):
    "Return the text of a cell."
    return cell.plain if isinstance(cell, Text) else str(cell)
