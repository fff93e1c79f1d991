"A table with the class of every image: labels.csv, metadata.csv, one table per split."

from functools import partial
from pathlib import Path, PurePosixPath

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.columns import choose_columns
from kdfast.data.layouts.image_index import ImageIndex
from kdfast.data.layouts.rows import SUFFIXES, problems_by_kind, read_frame, read_table
from kdfast.data.layouts.splits import find_folder_splits, find_splits
from kdfast.data.layouts.table_rows import TableReader, add_header, note_columns

PRIORITY = 80  # before folders, whose names are then only places
USUAL_NAMES = ('labels', 'metadata', 'annotations')  # tables of labels, whatever else is there
MAX_DEPTH = 3  # parts of the path of a table
N_TESTED = 50  # rows that are tested for names of images


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether there is a table of labels, and no train/<class>/ folders, which define more."
    if source.table or source.columns:
        return True
    paths = [PurePosixPath(name).parts for name in source.images]
    splits = find_folder_splits(paths)
    if any(splits.get(parts[:-2]) == 'train' for parts in paths):
        return False
    tables = _tables(source)
    if any(PurePosixPath(name).stem.lower() in USUAL_NAMES for name in tables):
        return True
    return bool(tables and _tables_of_images(source, tables))


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images that the tables name. Raises KdfastError, with the lines, for rows that are wrong."
    tables = _tables(source)
    if not tables:
        raise KdfastError(f'{source.path}: --columns needs a table, but there is none ({", ".join(SUFFIXES)})')
    if len(tables) > 1 and not any(tables.values()):
        tables = _tables_of_images(source, tables)
    if len(tables) > 1 and not any(tables.values()):
        raise KdfastError(
            f'{source.path}: found the tables {listed(list(tables))}: '
            f'pass one of them, such as --data {source.path}/{next(iter(tables))}'
        )
    reader = TableReader(source)
    for name, split in tables.items():
        reader.add(name, split)
    return Listing(f'images by {listed(list(tables))}', reader.items(tables))


def _tables(source):
    "The tables to read, each with the split that its name or its folder stands for"
    if source.table:
        return {source.table: None}
    paths = [PurePosixPath(name) for name in source.files]
    paths = [path for path in paths if path.suffix.lower() in SUFFIXES and len(path.parts) <= MAX_DEPTH]
    for stem in USUAL_NAMES:
        usual = [path for path in paths if path.stem.lower() == stem]
        if usual:
            topmost = _topmost(usual)
            splits = find_folder_splits(path.parts for path in topmost)
            return {str(path): splits.get(path.parts[:-1]) for path in topmost}  # train/metadata.csv
    topmost = [path for path in _topmost(paths) if path.suffix.lower() != '.txt']
    named = find_splits(path.with_suffix('').parts for path in topmost)
    splits = {str(path): named.get(path.with_suffix('').parts) for path in topmost}
    if 'train' in splits.values():
        return {name: split for name, split in splits.items() if split}
    return dict.fromkeys(splits)


def _topmost(paths):
    "The paths with the fewest folders"
    depth = min((len(path.parts) for path in paths), default=0)
    return [path for path in paths if len(path.parts) == depth]


def _tables_of_images(source, tables):
    "Those of the tables whose first rows name images"
    index, found = ImageIndex(source), {}
    for name, split in tables.items():
        try:
            table = add_header(read_table(f'{source.path}/{name}', name, source.files[name]), index, name)
        except KdfastError:
            continue
        if any(index.find(cell, name, split) for _, cells in table.rows[:N_TESTED] for cell in cells):
            found[name] = split
    return found


def list_frame(
    frame,  # A pandas DataFrame
    folder: Path,  # File names are relative to it
    source: Source,  # Files of the data set
) -> Listing:
    "List the images that a DataFrame names. Raises KdfastError, with the rows, for rows that are wrong."
    table = read_frame(str(source.path), frame)
    columns = choose_columns(
        table, source.columns, lambda cell: bool(cell) and (folder / cell).is_file(), source.labels
    )
    note_columns(columns, source.notes)
    items, problems, seen = [], [], set()
    for row, cells in table.rows:
        name = cells[columns.name]
        if not (folder / name).is_file():
            name = name.replace('\\', '/')  # written on Windows
        label, label_problem = columns.label_of(cells)
        split, split_problem = columns.split_of(cells)
        problem = _name_problem(name, folder, seen) or label_problem or split_problem
        if not problem and label == '':
            problem = f'{name} has no label'
        if problem and source.skip_broken:
            source.notes.add('skipped, rows that cannot be read', f'row {row}: {problem}')
        elif problem:
            problems.append((f'row {row}', problem, name))
        else:
            items.append(Item(name, split, label, partial(open, folder / name, 'rb')))
        seen.add(name)
    if problems:
        raise KdfastError(f'{table.where}: {listed(problems_by_kind(problems), "; ")}')
    return Listing('images by a DataFrame', items)


def _name_problem(name, folder, seen):
    "What is wrong with the name of an image, or nothing"
    if not name:
        return 'no name'
    if not (folder / name).is_file():
        return f'there is no file {folder / name}'
    return f'{name} appears twice' if name in seen else ''
