"Read the rows of tables that name images, and check each of them."

from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import PurePath, PurePosixPath
from posixpath import dirname  # many times as fast as pathlib, for a million files
from typing import NamedTuple

from kdfast.core.errors import KdfastError, listed
from kdfast.core.notes import Notes
from kdfast.data.labels import INDICATORS_NOTE
from kdfast.data.layouts.base import Item, Source
from kdfast.data.layouts.columns import LABEL_COLUMNS, Columns, choose_columns
from kdfast.data.layouts.image_index import ImageIndex
from kdfast.data.layouts.name_column import NAME_COLUMNS, choose_name_column, normalize_name
from kdfast.data.layouts.rows import Table, problems_by_kind, read_table
from kdfast.data.layouts.split_column import SPLIT_COLUMNS
from kdfast.data.layouts.splits import find_folder_splits, find_unlike, note_joined, unlike_message


class Row(NamedTuple):
    "One row of a table, or what is wrong with it."

    image: str | None  # Name of the image in the source
    label: str | tuple[str, ...]
    split: str | None
    problem: str  # Empty if the row is right
    line: int  # In its table
    table: str  # Name of the file


class TableReader:
    "The images that one or several tables of a source name."

    def __init__(
        self,
        source: Source,  # Files of the data set
    ):
        self.source = source
        self.index = ImageIndex(source)
        self.rows = {}  # Row by image
        self.table = ''  # the one that is read
        self.named = set()  # images of all rows, also of those that are skipped

    def add(
        self,
        name: str,  # Of a table
        split: str | None,  # Split of its rows, unless a column says otherwise
    ):
        "Read a table. Raises KdfastError, with the lines, for rows that are wrong."
        table = read_table(f'{self.source.path}/{name}', name, self.source.files[name])
        table = add_header(table, self.index, name)
        self.table = name
        try:
            columns = choose_columns(
                table, self.source.columns, lambda cell: self.index.find(cell, name, split), self.source.labels
            )
        except KdfastError:
            if split != 'test':
                raise
            self._skip_unlabeled(table, name)
            return
        note_columns(columns, self.source.notes)
        problems, completed = [], []
        names = [''.join(cells[columns.name : columns.name + 1]) for _, cells in table.rows]
        for (line, cells), cell, image in zip(table.rows, names, self.index.find_all(names, name, split)):
            row = self._check_duplicate(self._read_row(line, cells, image, columns, split))
            self.named.add(image[0])
            if row.problem and self.source.skip_broken:
                self.source.notes.add('skipped, rows that cannot be read', f'{table.row} {line}: {row.problem}')
            elif row.problem:
                problems.append((f'{table.row} {line}', row.problem, cell))
            else:
                self.rows[row.image] = row
                if not self.index.is_complete(cell, name, row.image):
                    completed.append((self.index.is_outside(cell), row.image))
        if problems:
            hint = columns.hint([problem for _, problem, _ in problems])
            raise KdfastError(f'{table.where}: {listed(problems_by_kind(problems), "; ")}{hint}')
        for outside, image in completed:
            how = 'by a path elsewhere, and found by its last parts' if outside else 'without their folder or suffix'
            self.source.notes.add(f'named in the table {how}', image)

    def _skip_unlabeled(self, table, name):
        "Add a note on the images of a table of test images that has no labels"
        cells = {i: [cells[i] for _, cells in table.rows if i < len(cells)] for i in range(len(table.header))}
        wanted = [i for i, column in enumerate(table.header) if column == self.source.columns.get('name')]
        columns = wanted or choose_name_column(
            dict(enumerate(table.header)), cells, lambda cell: self.index.find(cell, name, 'test')
        )
        images = [self.index.find(cell, name, 'test') for i in columns[:1] for cell in cells[i]]
        for image in dict.fromkeys(filter(None, images)) or [name]:
            self.source.notes.add('skipped, test images without labels', image)
        self.named.update(images)

    def _read_row(self, line, cells, image, columns, split):
        "A row, given the (image, problem) of its name"
        if len(cells) != len(columns.header):
            return Row(
                None, '', '', f'{len(cells)} columns, but the header has {len(columns.header)}', line, self.table
            )
        label, label_problem = columns.label_of(cells)
        row_split, split_problem = columns.split_of(cells)
        row_split = row_split or split
        name, problem = image[0], image[1] or label_problem
        if not problem and label == '' and not self._may_test(row_split, name):
            problem = f'{cells[columns.name]} has no label'
        return Row(name, label, row_split, problem or split_problem, line, self.table)

    def _may_test(self, split, image):
        "Whether an image is of the test split: by its row, else by its folder, if these tell the splits of all images"
        return (
            split == 'test' or not split and image in self.folder_splits and self.folder_splits[image].split == 'test'
        )

    @cached_property
    def folder_splits(self):
        "Splits by image, as far as their folders tell them"
        return splits_by_folder(self.source.images)

    def _check_duplicate(self, row):
        "The row, with a problem if its image is in an earlier row"
        known = self.rows.get(row.image)
        if not known or row.problem:
            return row
        other_label = ', with another label' if row.label != known.label else ''
        if known.table != row.table:
            problem = f'{row.image} is also in {known.table}{other_label}: keep one of the tables, or one of the rows'
            return row._replace(problem=problem)
        return row._replace(problem=f'{row.image} appears twice, first in line {known.line}{other_label}')

    def items(
        self,
        tables: dict,  # Names of the tables
    ) -> list[Item]:
        "Return the images that the tables name, in the order of the source; add a note on all others."
        rows = self._with_splits_of_folders()
        unlabeled = next((name for name, row in rows.items() if row.label == '' and row.split != 'test'), None)
        if unlabeled:
            raise KdfastError(f'{self.source.path}: {unlabeled} has no label in {listed(list(tables))}: add it')
        items = []
        for name in self.source.images:
            if name in rows:
                items.append(Item(name, rows[name].split, rows[name].label, self.source.files[name]))
            elif name not in self.named:
                self.source.notes.add(f'skipped, not in {listed([PurePosixPath(t).name for t in tables])}', name)
        if not items:
            raise KdfastError(f'{self.source.path}/{next(iter(tables))} lists no image')
        return items

    def _with_splits_of_folders(self):
        "The rows, with splits by folder (train/1.jpg) if the tables define none"
        if any(row.split for row in self.rows.values()):
            return self.rows
        splits = usable_splits(self.rows, self.folder_splits, self.source.notes, self.source.path)
        return {name: row._replace(split=splits.get(name)) for name, row in self.rows.items()}


class FolderSplit(NamedTuple):
    "The folder of a split that an image is in."

    split: str
    folder: str


def splits_by_folder(
    names: Iterable[str],  # Of images
) -> dict[str, FolderSplit]:
    "Return the splits of the images that are in a folder of one: train/1.jpg."
    paths = {name: PurePosixPath(name).parts for name in names}
    splits, found = find_folder_splits(paths.values()), {}
    for name, parts in paths.items():
        folder = next((parts[:n] for n in range(1, len(parts)) if parts[:n] in splits), None)
        if folder:
            found[name] = FolderSplit(splits[folder], '/'.join(folder))
    return found


def usable_splits(
    names: Collection[str],  # Of the images that a table without splits names
    splits: dict[str, FolderSplit],  # As of `splits_by_folder`
    notes: Notes,  # Receives a note on folders whose names join the split to other words
    where: PurePath | str,  # Name of the data set in errors
) -> dict[str, str]:  # Empty if folders do not tell the split of each image
    """Return the splits of the images by their folders, if these define one for each, and training images.

    Raises KdfastError if folders seem to be splits, but in different folders, or of different numbers, and if only
    some images are in folders of splits.
    """
    found = {name: splits[name] for name in names if name in splits}
    if not found:
        _check_folders(names, where)
    held_out = [of_image for of_image in found.values() if of_image.split != 'train']
    if held_out and len(found) < len(names):
        other = next(name for name in names if name not in found)
        raise KdfastError(
            f'{where}: some images are in folders of splits, such as {held_out[0].folder}, and others in none, such as '
            f'{other}: add a column split to the table, or leave out the rows of one kind'
        )
    if not found or all(of_image.split != 'train' for of_image in found.values()):
        return {}
    otherwise = 'rename them, or add a column split to the table'
    note_joined({folder: split for split, folder in found.values()}, notes, otherwise)
    return {name: of_image.split for name, of_image in found.items()}


def _check_folders(names, where):
    "Raise KdfastError for folders such as a/petstrain and b/petstest, or fold1train and fold2test"
    parents = {dirname(name) for name in names} - {''}
    folders = {path.parts for parent in parents for path in (PurePosixPath(parent), *PurePosixPath(parent).parents)}

    def are_alike(a, b):
        return a[1].rstrip('0123456789 ') == b[1].rstrip('0123456789 ')

    unlike = find_unlike(sorted(folders - {()}), are_alike)
    if unlike:
        raise KdfastError(unlike_message(where, unlike, ', or add a column split to the table'))


def note_columns(
    columns: Columns,  # Of a table
    notes: Notes,  # Receives the notes
):
    "Add notes on joined names of splits, lists of 0 and 1, and columns that are not used."
    if columns.split is not None:
        column = columns.header[columns.split]
        note_joined(columns.splits, notes, f'rename column {column}, or choose another with --columns split=…')
    if columns.indicators:
        notes.add(INDICATORS_NOTE, '')
    labels = [columns.label] if isinstance(columns.label, int) else columns.label
    is_usual = any(normalize_name(columns.header[i]) in LABEL_COLUMNS for i in labels)
    for i, name in enumerate(columns.header):
        if i in (columns.name, columns.split, *labels):
            continue
        if normalize_name(name) in SPLIT_COLUMNS:
            beside = '' if columns.split is None else f' beside {columns.header[columns.split]}'
            notes.add(f'columns that are not used{beside or ", because they do not say train, valid or test"}', name)
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
