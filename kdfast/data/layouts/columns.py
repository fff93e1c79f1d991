"Choose the columns of a table that hold names of images, labels and splits."

from collections.abc import Callable
from dataclasses import dataclass, field

from kdfast.core.errors import KdfastError, listed
from kdfast.data.labels import ONES, QUESTION, SEVERAL, SPACES, ZEROS, are_indicators, positions_of_ones
from kdfast.data.layouts.name_column import choose_name_column, has_row_numbers, normalize_name
from kdfast.data.layouts.rows import LIST_SEPARATOR, Table
from kdfast.data.layouts.split_column import CERTAIN_SPLIT_COLUMNS, SPLIT_COLUMNS, split_in_cell, splits_of_cells

# Usual names of columns, the likeliest first
LABEL_COLUMNS = tuple(
    'label labels class classes category categories cat cats target targets y tag tags diagnosis dx species breed '
    'class_name classname label_name class_id classid label_id category_id id'.split()
)
SEPARATORS = ';|,'  # between the labels of a cell, the likeliest first
N_TESTED = 50  # rows that are tested for names of images


@dataclass
class Columns:
    "The columns of a table by what they hold, as indices."

    name: int
    label: int | list[int]  # One column; or one per class, of which one holds a 1
    split: int | None
    header: list[str]
    separator: str | None = None  # Between the labels of an image; None: an image has one
    splits: dict[str, str] = field(default_factory=dict)  # By the cells of the column of splits
    indicators: bool = False  # Whether what is separated is a 0 or 1 for each class

    def label_of(
        self,
        cells: list[str],  # Of a row
    ) -> tuple[str | tuple[str, ...], str]:  # (label or labels, problem)
        "Return the label of a row, or all of its labels."
        if self.separator:
            return self.labels_of(cells)
        if isinstance(self.label, int):
            labels = cells[self.label].split(LIST_SEPARATOR)
            if len(labels) == 1:
                return labels[0], ''
            return '', f'{len(labels)} labels ({", ".join(labels)}): {QUESTION}'
        if not any(cells[i] for i in self.label):
            return '', ''
        ones = self.ones(cells)
        if len(ones) == 1:
            return ones[0], ''
        return '', f'{" and ".join(ones) or "no class"} set to 1: {QUESTION}'

    def labels_of(
        self,
        cells,  # Of the row
    ):
        "Return all labels of a row, and what is wrong with them"
        if isinstance(self.label, int):
            parts = separate(cells[self.label], self.separator)
            if self.indicators:
                return tuple(map(str, positions_of_ones(parts))), ''
            return tuple(dict.fromkeys(filter(None, parts))), ''
        if not any(cells[i] for i in self.label):
            return (), ''
        unclear = [self.header[i] for i in self.label if cells[i].lower() not in (*ONES, *ZEROS)]
        return tuple(self.ones(cells)), f'{unclear[0]} is neither 0 nor 1' if unclear else ''

    def ones(
        self,
        cells,  # Of the row
    ):
        "Return the columns of a row that hold a 1"
        return [self.header[i] for i in self.label if cells[i].lower() in ONES]

    def split_of(
        self,
        cells: list[str],  # Of a row
    ) -> tuple[str | None, str]:  # (split, problem)
        "Return the split of a row, None if the table has no column of splits."
        if self.split is None:
            return None, ''
        return split_in_cell(cells[self.split], self.header[self.split], self.splits)

    def hint(
        self,
        problems: list[str],  # Of rows
    ) -> str:
        "Return what to do about cells that are no splits, for the end of a message; empty if none is."
        if self.split is None or not any(f'in column {self.header[self.split]}: expected' in one for one in problems):
            return ''
        column = self.header[self.split]
        return f'; splits are read from column {column}: choose another with --columns split=…, or rename {column}'


def usual_labels(
    columns: list[str],  # Names of the columns that may hold labels
    usual: tuple[str, ...] = LABEL_COLUMNS,  # Usual names, the likeliest first
) -> list[str]:  # The likeliest first
    "Return the columns that are called like labels; id, perhaps of patients, only if it is alone."
    names = {column: normalize_name(column) for column in columns}
    known = [column for column in columns if names[column] in usual and (names[column] != 'id' or len(columns) == 1)]
    return sorted(known, key=lambda column: usual.index(names[column]))


def choose_columns(
    table: Table,  # As text
    requested: dict[str, str],  # Names of columns by role (name, label, split), from the user
    find: Callable,  # Return the image that a cell names, or nothing
    labels: str | None = None,  # Kind of labels, as --labels has it
) -> Columns:
    """Choose the columns of a table: the requested ones, else by their names and contents.

    Several labels of an image are a list, text with one of the separators ; | and , or a column of 0 and 1 for each.
    Raises KdfastError if the choice is not clear.
    """
    chooser = _ColumnChooser(table, find)
    columns = chooser.choose(requested)
    if labels in (SEVERAL, SPACES):
        cells = [] if isinstance(columns.label, list) else list(filter(None, chooser.cells(columns.label)))
        columns.separator = _separator(cells, labels)
        if cells and all(cell[0] + cell[-1] == '[]' for cell in cells):
            raise KdfastError(
                f'{table.where}: the labels {cells[0]:.60} are a list written as text: separate labels by ;, without '
                'brackets and quotes'
            )
        columns.indicators = are_indicators([separate(cell, columns.separator) for cell in cells], table.where)
    return columns


def separate(
    cell: str,  # Of a column of labels
    separator: str,  # Between the labels
) -> list[str]:
    "Return the labels of a cell."
    return [part.strip() for part in cell.split(separator)]


def _separator(cells, labels):
    "What separates the labels in the cells of a column"
    if any(LIST_SEPARATOR in cell for cell in cells):
        return LIST_SEPARATOR
    if labels == SPACES:
        return ' '
    return next((mark for mark in SEPARATORS if any(mark in cell for cell in cells)), SEPARATORS[0])


class _ColumnChooser:
    "Choose columns, one role after the other, each among the columns that are left."

    def __init__(self, table, find):
        self.table = table
        self.header = table.header
        self.names = [normalize_name(name) for name in table.header]
        self.find = find
        self.taken = {}  # index of the column by role

    def choose(self, requested):
        "The columns by role. Raises KdfastError if the choice is not clear"
        duplicates = [name for i, name in enumerate(self.header) if name and name in self.header[:i]]
        if duplicates:
            raise self.error(f'the column {duplicates[0]} appears twice')
        self.taken = {role: self.find_requested(role, column) for role, column in requested.items()}
        if 'name' not in self.taken:
            self.taken['name'] = self.name_column()
        if 'split' not in self.taken:
            self.taken['split'] = self.split_column()
        if 'label' not in self.taken:
            self.taken['label'] = self.label_columns()
        split = self.taken['split']
        splits = {} if split is None else splits_of_cells(self.cells(split))
        return Columns(self.taken['name'], self.taken['label'], split, self.header, splits=splits)

    def error(self, problem, choice='name=…,label=…'):
        return KdfastError(
            f'{self.table.where}, line 1: {problem}; the columns are {listed(self.header) or "missing"}: '
            f'choose with --columns {choice}'
        )

    def free(self):
        "Indices of the columns that have no role yet"
        taken = {i for found in self.taken.values() for i in (found if isinstance(found, list) else [found])}
        return [i for i in range(len(self.header)) if i not in taken]

    def cells(self, i, n_rows=None):
        "The cells of column i in the first rows"
        return [cells[i] for _, cells in self.table.rows[:n_rows] if i < len(cells)]

    def find_requested(self, role, column):
        "A column; of a label a+b+c, one column for each class, unless a column has that name"
        if role == 'label' and '+' in column and column not in self.header:
            return [self.find_column(name) for name in column.split('+')]
        return self.find_column(column)

    def find_column(self, column):
        exact = [i for i, name in enumerate(self.header) if name == column]
        similar = [i for i, name in enumerate(self.names) if name == normalize_name(column)]
        if not (exact or similar):
            raise self.error(f'no column {column}')
        return (exact or similar)[0]

    def name_column(self):
        "The column whose cells name images, else the one that is called so. Raises KdfastError if it is not clear"
        columns = {i: self.header[i] for i in self.free()}
        found = choose_name_column(columns, {i: self.cells(i, N_TESTED) for i in columns}, self.find)
        if len(found) > 1:
            raise self.error(f'found {self.listed(found)}: expected one column with names of images')
        if not found:
            raise self.error('found no column with names of images')
        return found[0]

    def split_column(self):
        "The only column with a known name whose cells are splits; None if there is none"
        known = [i for i in self.free() if self.names[i] in SPLIT_COLUMNS and self.holds_splits(i)]
        if len(known) > 1:
            raise self.error(f'found {self.listed(known)}: expected one column of splits', 'split=…')
        return known[0] if known else None

    def holds_splits(self, i):
        return self.names[i] in CERTAIN_SPLIT_COLUMNS or bool(splits_of_cells(self.cells(i)))

    def label_columns(self):
        "A known name; else the only column that is left; else one column per class. Numbers of rows are none of these"
        free = [i for i in self.free() if not has_row_numbers(self.header[i])] or self.free()
        free = [i for i in free if self.names[i] != 'id'] or free
        binary = [
            i for i in free if set(filled := list(filter(None, self.cells(i)))) <= {'0', '1', '0.0', '1.0'} and filled
        ]
        one_per_class = len(binary) > 1 and binary == [i for i in free if self.header[i]]
        known = [i for i in free if self.names[i] in LABEL_COLUMNS and not (one_per_class and self.names[i] == 'cat')]
        if len(known) == 1:
            return known[0]
        if known:
            return self.named_classes(sorted(known, key=lambda i: LABEL_COLUMNS.index(self.names[i])))
        if len(free) == 1:
            return free[0]
        if one_per_class:
            return binary
        raise self.error('found no column of labels')

    def named_classes(self, columns):
        "Of columns with numbers and names of the same classes, the one of names"
        values = [self.cells(i) for i in columns]
        n_combinations = len(set(zip(*values)))
        same_classes = all(len(set(column)) == n_combinations for column in values)
        named = [i for i, column in zip(columns, values) if not all(cell.isdigit() for cell in column)]
        if same_classes and len(named) == 1:
            return named[0]
        raise self.error(f'found {self.listed(columns)}: expected one column of labels')

    def listed(self, columns):
        return ' and '.join(self.header[i] or 'a column without a name' for i in columns)
