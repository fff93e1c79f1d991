"A table with the class of every image: labels.csv, metadata.csv, one table per split."

import os
from functools import partial
from os.path import isfile  # unlike that of Path, false for any text, such as a caption
from pathlib import Path, PurePosixPath

from kdfast.core.errors import KdfastError, listed
from kdfast.data.formats import image_suffixes
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.columns import choose_columns
from kdfast.data.layouts.folds import check_fold_files
from kdfast.data.layouts.image_index import ImageIndex
from kdfast.data.layouts.rows import SUFFIXES, problems_by_kind, read_frame, read_table
from kdfast.data.layouts.splits import FILLER_WORDS, find_folder_splits, find_splits, find_unions, note_joined, split_of
from kdfast.data.layouts.table_rows import TableReader, add_header, note_columns, splits_by_folder, usable_splits

PRIORITY = 80  # before folders, whose names are then only places
USUAL_NAMES = ('labels', 'metadata', 'annotations', '_classes')  # tables of labels, whatever else is there
MAX_DEPTH = 3  # parts of the path of a table
TEXT_SUFFIXES = ('.txt', '.json')  # of files that may hold anything
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
    check_fold_files(tables, source.path)
    if len(tables) > 1 and not any(tables.values()):
        raise KdfastError(
            f'{source.path}: found the tables {listed(list(tables))}: '
            f'pass one of them, such as --data {source.path}/{next(iter(tables))}'
        )
    reader = TableReader(source)
    for name, split in tables.items():
        reader.add(name, split)
    note_joined(tables, source.notes)
    _note_unused(source, tables)
    return Listing(f'images by {listed(list(tables))}', reader.items(tables))


def _note_unused(source, tables):
    "Add a note on other tables beside those that are read, unless the user named one"
    folders = {PurePosixPath(name).parent for name in tables}
    for name in () if source.table else source.files:
        path = PurePosixPath(name)
        if name not in tables and path.parent in folders and path.suffix.lower() in SUFFIXES:
            if path.suffix.lower() not in TEXT_SUFFIXES:
                source.notes.add('tables that are not used', name)


def _tables(source):
    "The tables to read, each with the split that its name or its folder stands for"
    if source.table:
        return {source.table: None}
    paths = [PurePosixPath(name) for name in source.files]
    paths = [path for path in paths if path.suffix.lower() in SUFFIXES and len(path.parts) <= MAX_DEPTH]
    usual = [_usual_tables(paths, stem) for stem in USUAL_NAMES]
    usual, others = list(filter(None, usual)), _other_tables(source, paths)
    has_classes = len(_class_folders(source)) > 1
    if source.columns or not usual or len(paths) == 1 and not has_classes:
        return usual[0] if usual else others
    for tables in (*usual, others):
        if _tables_of_images(source, tables):
            return tables
    return {} if has_classes else usual[0]  # whose errors say what is missing


def _usual_tables(paths, stem):
    "Tables of a usual name: train/metadata.csv"
    tables = _topmost([path for path in paths if path.stem.lower() == stem])
    splits = find_folder_splits(path.parts for path in tables)
    return {str(path): splits.get(path.parts[:-1]) for path in tables}


def _other_tables(source, paths):
    "The tables with the fewest folders, or those of them that are named after splits"
    topmost = [path for path in _topmost(paths) if path.suffix.lower() != '.txt']
    named = find_splits(path.with_suffix('').parts for path in topmost)
    unions = find_unions(named, source.path)
    topmost = [path for path in topmost if path.with_suffix('').parts not in unions]
    splits = {str(path): named.get(path.with_suffix('').parts) for path in topmost}
    if 'train' in splits.values():
        return {name: split for name, split in splits.items() if split}
    return dict.fromkeys(splits)


def _class_folders(source):
    "Names of the folders of images that may be classes"
    folders = {PurePosixPath(name).parent.name for name in source.images}
    return {folder for folder in folders if folder and not split_of(folder) and folder.lower() not in FILLER_WORDS}


def _topmost(paths):
    "The paths with the fewest folders"
    depth = min((len(path.parts) for path in paths), default=0)
    return [path for path in paths if len(path.parts) == depth]


def _tables_of_images(source, tables):
    "Those of the tables whose first rows name images"
    index, n_classes = ImageIndex(source), len(_class_folders(source))
    return {name: split for name, split in tables.items() if _names_images(source, name, split, index, n_classes)}


def _names_images(source, name, split, index, n_classes):
    "Whether a table names images: by file names; or by bare names, more than a list of the classes has (0 cat, 1 dog)"
    path = PurePosixPath(name)
    is_usual = path.stem.lower() in USUAL_NAMES
    try:
        table = add_header(read_table(f'{source.path}/{name}', name, source.files[name]), index, name)
    except KdfastError:
        return is_usual and path.suffix.lower() not in TEXT_SUFFIXES  # reading it tells what is wrong
    least = n_classes if n_classes > 1 else 0
    n_bare = 0
    for _, cells in table.rows[: max(N_TESTED, least + 1)]:
        found = [cell for cell in cells if index.find(cell, name, split)]
        n_bare += bool(found)
        if any(_has_image_suffix(cell) for cell in (cells if is_usual else found)):
            return True  # also if there is no such image, which is an error
    return n_bare > least


def _has_image_suffix(cell):
    return PurePosixPath(cell).suffix.lower() in image_suffixes()


def list_frame(
    frame,  # A pandas DataFrame
    folder: Path,  # File names are relative to it
    source: Source,  # Files of the data set
) -> Listing:
    "List the images that a DataFrame names. Raises KdfastError, with the rows, for rows that are wrong."
    table = read_frame(str(source.path), frame)
    columns = choose_columns(table, source.columns, lambda cell: bool(cell) and isfile(folder / cell), source.labels)
    note_columns(columns, source.notes)
    names = [_existing(folder, cells[columns.name]) for _, cells in table.rows]
    of_folders = {} if columns.split is not None else _splits_by_folder(folder, names)
    splits = {} if columns.split is not None else usable_splits(set(names), of_folders, source.notes, table.where)
    items, problems, seen = [], [], set()
    for (row, cells), name in zip(table.rows, names):
        label, label_problem = columns.label_of(cells)
        split, split_problem = columns.split_of(cells)
        split = split or splits.get(name)
        problem = _name_problem(name, folder, seen) or label_problem or split_problem
        if not problem and label == '' and split != 'test':
            problem = f'{name} has no label'
        if problem and source.skip_broken:
            source.notes.add('skipped, rows that cannot be read', f'row {row}: {problem}')
        elif problem:
            problems.append((f'row {row}', problem, name))
        else:
            items.append(Item(name, split, label, partial(open, folder / name, 'rb')))
        seen.add(name)
    if problems:
        hint = columns.hint([problem for _, problem, _ in problems])
        raise KdfastError(f'{table.where}: {listed(problems_by_kind(problems), "; ")}{hint}')
    return Listing('images by a DataFrame', items)


def _existing(folder, name):
    "The name of an image, with forward slashes if that of Windows means no file"
    return name if isfile(folder / name) else name.replace('\\', '/')


def _splits_by_folder(folder, names):
    "Splits by the folders that images are in below the folder of a DataFrame, also of absolute names"
    paths = {name: Path(os.path.relpath(folder / name, folder)).as_posix() for name in names}
    splits = splits_by_folder(path for path in paths.values() if not path.startswith('../'))
    return {name: splits[path] for name, path in paths.items() if path in splits}


def _name_problem(name, folder, seen):
    "What is wrong with the name of an image, or nothing"
    if not name:
        return 'no name'
    if not isfile(folder / name):
        return f'there is no file {folder / name}'
    return f'{name} appears twice' if name in seen else ''
