"A table names the class of every image: labels.csv, metadata.csv of Hugging Face, one table a split."

from collections import defaultdict
from functools import partial
from pathlib import Path, PurePosixPath

from kdfast.core.errors import KdfastError, listed
from kdfast.core.paths import is_unsafe_path
from kdfast.data.layouts.base import Item, Listing, Source, split_of
from kdfast.data.layouts.columns import choose
from kdfast.data.layouts.rows import SUFFIXES, frame_table, read_table

FIRST = ('labels', 'metadata', 'annotations')  # tables that are meant whatever else is there
DEEPEST = 3  # folders down to a table


def matches(source: Source) -> bool:
    "Whether there is a table of labels, and no folders of classes in folders of splits, which say more."
    if source.table or source.columns:
        return True
    if any(split_of(parts[-3]) == 'train' for name in source.images if len(parts := PurePosixPath(name).parts) > 2):
        return False
    return bool(tables_of(source)) and usable(source)


def tables_of(source):
    "The tables to read, each with the split that its name or its folder stands for"
    if source.table:
        return {source.table: None}
    found = [
        name
        for name in source.files
        if PurePosixPath(name).suffix.lower() in SUFFIXES and len(PurePosixPath(name).parts) <= DEEPEST
    ]
    for stem in FIRST:
        chosen = [name for name in found if PurePosixPath(name).stem.lower() == stem]
        if chosen:
            # metadata.csv in every folder of a split
            return {name: split_of(PurePosixPath(name).parent.name) for name in top(chosen)}
    text = [name for name in top(found) if PurePosixPath(name).suffix.lower() != '.txt']
    splits = {name: split_of(PurePosixPath(name).stem) for name in text}
    if 'train' in splits.values():
        return {name: split for name, split in splits.items() if split}
    return dict.fromkeys(text)


def top(names):
    "Those that lie highest"
    depth = min((len(PurePosixPath(name).parts) for name in names), default=0)
    return [name for name in names if len(PurePosixPath(name).parts) == depth]


def usable(source):
    "Whether a table that nobody has asked for is one of labels: it has the name of one, or it names images"
    tables = tables_of(source)
    if any(PurePosixPath(name).stem.lower() in FIRST for name in tables):
        return True
    return bool(with_images(source, tables))


def with_images(source, tables):
    "The tables that name images, with their columns"
    images, found = Images(source), {}
    for name, split in tables.items():
        try:
            table = named(read_table(f'{source.path}/{name}', name, source.files[name]), images, name)
        except KdfastError:
            continue
        if any(images.find(cell, name, split) for _, cells in table.rows[:50] for cell in cells):
            found[name] = split
    return found


def read(source: Source) -> Listing:
    tables = tables_of(source)
    if not tables:
        raise KdfastError(f'{source.path}: --columns is for tables, and there is none ({", ".join(SUFFIXES)})')
    if len(tables) > 1 and not any(tables.values()):
        tables = with_images(source, tables)
    if len(tables) > 1 and not any(tables.values()):
        raise KdfastError(
            f'{source.path}: found the tables {listed(list(tables))}: pass the one to read, such as '
            f'--data {source.path}/{next(iter(tables))}'
        )
    images = Images(source)
    rows = {}
    for name, split in tables.items():
        rows |= rows_of(
            source, read_table(f'{source.path}/{name}', name, source.files[name]), images, name, split, rows
        )
    return Listing(f'images by {listed(list(tables))}', join(source, rows, images, tables))


def of_frame(
    frame,  # A pandas DataFrame
    folder: Path,  # What its names are relative to
    source: Source,
) -> Listing:
    "The images that a DataFrame names. Raises KdfastError that names the rows where something is wrong."
    table = frame_table(str(source.path), frame)
    columns = choose(table, source.columns, lambda cell: bool(cell) and (folder / cell).is_file())
    items, problems, seen = [], [], {}
    for row, cells in table.rows:
        name = cells[columns.name]
        label, problem = columns.label_of(cells)
        split, wrong = columns.split_of(cells)
        if not name:
            problem = 'no name'
        elif not (folder / name).is_file():
            problem = f'there is no file {folder / name}'
        elif name in seen:
            problem = f'{name} is there twice'
        elif not (problem or wrong or label):
            problem = f'{name} has no label'
        problem = problem or wrong
        if problem and source.skip_broken:
            source.notes.add('left out, rows that cannot be read', f'row {row}: {problem}')
        elif problem:
            problems.append(f'row {row}: {problem}')
        else:
            items.append(Item(name, split, label, partial(open, folder / name, 'rb')))
        seen[name] = row
    if problems:
        raise KdfastError(f'{table.where}: {listed(problems, "; ")}')
    return Listing('images by a DataFrame', items)


class Images:
    "Finds the image that a cell of a table names: with or without its folder, with or without its suffix."

    def __init__(self, source):
        self.path, self.files = source.path, source.files
        self.images, self.known = source.images, set(source.images)
        self.by_end = defaultdict(list)  # its name, with and without suffix
        for name in self.images:
            path = PurePosixPath(name)
            for end in {path.name, path.stem}:
                self.by_end[end].append(name)

    def find(self, cell, table='', split=None):
        "The one image of that name, or None; where several end alike, the one in the folder of the split"
        if not cell or is_unsafe_path(cell) and not self.below(cell):
            return None
        wanted = PurePosixPath(self.below(cell) or cell.replace('\\', '/'))
        where = PurePosixPath(table).parent / wanted
        if where.as_posix() in self.known:
            return where.as_posix()
        found = self.by_end.get(wanted.name, [])
        if len(found) > 1:
            found = longest(found, wanted)
        if len(found) > 1 and split:
            found = [name for name in found if split in map(split_of, PurePosixPath(name).parts[:-1])]
        return found[0] if len(found) == 1 else None

    def several(self, cell):
        return len(longest(self.by_end.get(PurePosixPath(cell.replace('\\', '/')).name, []), PurePosixPath(cell))) > 1

    def below(self, cell):
        "What an absolute path in the folder is called there"
        if not cell.startswith('/') or '..' in PurePosixPath(cell).parts:
            return None
        for root in (self.path.absolute(), self.path.resolve()):
            if PurePosixPath(cell).is_relative_to(root):
                return PurePosixPath(cell).relative_to(root).as_posix()
        return None


def longest(found, wanted):
    "Those whose path agrees with the wanted one in most folders"

    def agreeing(name):
        folders = zip(PurePosixPath(name).parts[-2::-1], wanted.parts[-2::-1])
        return next(
            (n for n, (a, b) in enumerate(folders) if a != b),
            min(len(PurePosixPath(name).parts), len(wanted.parts)) - 1,
        )

    best = max(map(agreeing, found), default=0)
    return [name for name in found if agreeing(name) == best]


def named(table, images, name):
    "The table with names of columns, where its first line is already an image"
    if not any(images.find(cell, name) for cell in table.header):
        return table
    first, n = (1, table.header), len(table.header)
    return table._replace(
        header=['name', 'label', 'split', *(f'column {i}' for i in range(4, n + 1))][:n], rows=[first, *table.rows]
    )


def rows_of(source, table, images, name, split, before):
    "(line, label, split) by the image of each row. Raises KdfastError that names the rows where something is wrong"
    table = named(table, images, name)
    try:
        columns = choose(table, source.columns, lambda cell: images.find(cell, name, split))
    except KdfastError:
        if split != 'test':
            raise
        source.notes.add('left out, test images without labels', name)
        return {}
    found, problems, completed = {}, [], []
    for line, cells in table.rows:
        image, label, of_row, problem = read_row(cells, columns, table, images, name, split)
        known = found.get(image) or before.get(image)
        if known and not problem:
            problem = f'{image} is there twice, first in line {known[0]}' + (
                ', with another label' if label != known[1] else ''
            )
        if problem and source.skip_broken:
            source.notes.add('left out, rows that cannot be read', f'{table.row} {line}: {problem}')
        elif problem:
            problems.append(f'{table.row} {line}: {problem}')
        elif not label:
            source.notes.add('left out, test images without labels', image)
        else:
            found[image] = line, label, of_row
            if (PurePosixPath(name).parent / cells[columns.name]).as_posix() != image:
                completed.append(image)
    if problems:
        raise KdfastError(f'{table.where}: {listed(problems, "; ")}')
    for image in completed:
        source.notes.add('named in the table without their folder or suffix', image)
    return found


def read_row(cells, columns, table, images, name, split):
    "(image, label, split, what is wrong) of a row"
    if len(cells) != len(table.header):
        return None, '', '', f'{len(cells)} columns, the header has {len(table.header)}'
    cell = cells[columns.name]
    image = images.find(cell, name, split)
    label, problem = columns.label_of(cells)
    of_row, wrong = columns.split_of(cells)
    of_row = of_row or split
    if not cell:
        problem = 'no name'
    elif is_unsafe_path(cell) and not images.below(cell):
        problem = f'{cell!r} leads out of the folder: names are relative to the table'
    elif not image and images.several(cell):
        problem = f'several files are called {cell}: name their folders'
    elif not image and (PurePosixPath(name).parent / cell).as_posix() in images.files:
        problem = f'{cell} is not an image'
    elif not image:
        problem = f'there is no file {cell}'
    elif not problem and not label and of_row != 'test':
        problem = f'{cell} has no label'
    return image, label, of_row, problem or wrong


def join(source, rows, images, tables):
    "The images that the table names, in the order of the source; what it does not name is noted"
    found = []
    if not any(split for _, _, split in rows.values()):  # where the table does not say, folders may: train/1.jpg
        folders = {name: split_of(PurePosixPath(name).parts[0]) for name in rows if len(PurePosixPath(name).parts) > 1}
        if 'train' in folders.values() and len(folders) == len(rows) and all(folders.values()):
            rows = {name: (line, label, folders[name]) for name, (line, label, _) in rows.items()}
    for name in images.images:
        if name in rows:
            found.append(Item(name, rows[name][2], rows[name][1], source.files[name]))
        else:
            source.notes.add(f'left out, not in {listed([PurePosixPath(t).name for t in tables])}', name)
    if not found:
        raise KdfastError(f'{source.path}/{next(iter(tables))} lists no image')
    return found
