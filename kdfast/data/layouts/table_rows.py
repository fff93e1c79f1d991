"Read the rows of tables that name images, and check each of them."

from pathlib import PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import KdfastError, listed
from kdfast.core.notes import Notes
from kdfast.data.labels import INDICATORS_NOTE
from kdfast.data.layouts.base import Item, Source
from kdfast.data.layouts.columns import LABEL_COLUMNS, SPLIT_COLUMNS, Columns, choose_columns
from kdfast.data.layouts.image_index import ImageIndex
from kdfast.data.layouts.name_column import NAME_COLUMNS, normalize_name
from kdfast.data.layouts.rows import Table, problems_by_kind, read_table
from kdfast.data.layouts.splits import find_folder_splits, note_joined


class Row(NamedTuple):
    "One row of a table, or what is wrong with it."

    image: str | None  # Name of the image in the source
    label: str | tuple[str, ...]
    split: str | None
    problem: str  # Empty if the row is right
    line: int  # In its table


class TableReader:
    "The images that one or several tables of a source name."

    def __init__(
        self,
        source: Source,  # Files of the data set
    ):
        self.source = source
        self.index = ImageIndex(source)
        self.rows = {}  # Row by image

    def add(
        self,
        name: str,  # Of a table
        split: str | None,  # Split of its rows, unless a column says otherwise
    ):
        "Read a table. Raises KdfastError, with the lines, for rows that are wrong."
        table = read_table(f'{self.source.path}/{name}', name, self.source.files[name])
        table = add_header(table, self.index, name)
        try:
            columns = choose_columns(
                table, self.source.columns, lambda cell: self.index.find(cell, name, split), self.source.labels
            )
        except KdfastError:
            if split != 'test':
                raise
            self.source.notes.add('skipped, test images without labels', name)
            return
        note_columns(columns, self.source.notes)
        problems, completed = [], []
        names = [''.join(cells[columns.name : columns.name + 1]) for _, cells in table.rows]
        for (line, cells), cell, image in zip(table.rows, names, self.index.find_all(names, name, split)):
            row = self._check_duplicate(_read_row(line, cells, image, columns, split))
            if row.problem and self.source.skip_broken:
                self.source.notes.add('skipped, rows that cannot be read', f'{table.row} {line}: {row.problem}')
            elif row.problem:
                problems.append((f'{table.row} {line}', row.problem, cell))
            elif row.label == '':
                self.source.notes.add('skipped, test images without labels', row.image)
            else:
                self.rows[row.image] = row
                if not self.index.is_complete(cell, name, row.image):
                    completed.append((self.index.is_outside(cell), row.image))
        if problems:
            raise KdfastError(f'{table.where}: {listed(problems_by_kind(problems), "; ")}')
        for outside, image in completed:
            how = 'by a path elsewhere, and found by its last parts' if outside else 'without their folder or suffix'
            self.source.notes.add(f'named in the table {how}', image)

    def _check_duplicate(self, row):
        "The row, with a problem if its image is in an earlier row"
        known = self.rows.get(row.image)
        if not known or row.problem:
            return row
        other_label = ', with another label' if row.label != known.label else ''
        return row._replace(problem=f'{row.image} appears twice, first in line {known.line}{other_label}')

    def items(
        self,
        tables: dict,  # Names of the tables
    ) -> list[Item]:
        "Return the images that the tables name, in the order of the source; add a note on all others."
        rows = self._with_splits_of_folders()
        items = []
        for name in self.source.images:
            if name in rows:
                items.append(Item(name, rows[name].split, rows[name].label, self.source.files[name]))
            else:
                self.source.notes.add(f'skipped, not in {listed([PurePosixPath(t).name for t in tables])}', name)
        if not items:
            raise KdfastError(f'{self.source.path}/{next(iter(tables))} lists no image')
        return items

    def _with_splits_of_folders(self):
        "The rows, with splits by folder (train/1.jpg) if the tables define none"
        if any(row.split for row in self.rows.values()):
            return self.rows
        paths = {name: PurePosixPath(name).parts for name in self.rows}
        splits = find_folder_splits(paths.values())
        folders = {name: splits.get(parts[:1]) for name, parts in paths.items() if len(parts) > 1}
        if 'train' in folders.values() and len(folders) == len(self.rows) and all(folders.values()):
            note_joined({paths[name][0]: split for name, split in folders.items()}, self.source.notes)
            return {name: row._replace(split=folders[name]) for name, row in self.rows.items()}
        return self.rows


def _read_row(line, cells, image, columns, split):
    "A row, given the (image, problem) of its name"
    if len(cells) != len(columns.header):
        return Row(None, '', '', f'{len(cells)} columns, but the header has {len(columns.header)}', line)
    label, label_problem = columns.label_of(cells)
    row_split, split_problem = columns.split_of(cells)
    row_split = row_split or split
    name, problem = image[0], image[1] or label_problem
    if not problem and label == '' and row_split != 'test':
        problem = f'{cells[columns.name]} has no label'
    return Row(name, label, row_split, problem or split_problem, line)


def note_columns(
    columns: Columns,  # Of a table
    notes: Notes,  # Receives the notes
):
    "Add notes on lists of 0 and 1, and on columns whose names promise splits or labels in vain."
    if columns.indicators:
        notes.add(INDICATORS_NOTE, '')
    labels = [columns.label] if isinstance(columns.label, int) else columns.label
    is_usual = any(normalize_name(columns.header[i]) in LABEL_COLUMNS for i in labels)
    for i, name in enumerate(columns.header):
        if i in (columns.name, columns.split, *labels):
            continue
        if normalize_name(name) in SPLIT_COLUMNS:
            notes.add('columns that are not used, because they do not say train, valid or test', name)
        if normalize_name(name) == 'id' and not is_usual:
            notes.add(f'columns that are not used beside {listed([columns.header[n] for n in labels])}', name)


def add_header(
    table: Table,  # As read from a file
    index: ImageIndex,  # Of its source
    name: str,  # Of the file of the table
) -> Table:
    "Return the table with names of columns, if its first line already names an image."
    # beside a name of a column, a number is the name of a class rather than that of an image
    has_names = any(normalize_name(cell) in NAME_COLUMNS for cell in table.header)
    if not any(index.find(cell, name) for cell in table.header if not (has_names and cell.isdigit())):
        return table
    n = len(table.header)
    header = ['name', 'label', 'split', *(f'column {i}' for i in range(4, n + 1))][:n]
    return table._replace(header=header, rows=[(1, table.header), *table.rows])
