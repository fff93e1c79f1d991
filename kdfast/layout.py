"Which images train, which validate, and the class of each."
import csv
import io
import unicodedata
from collections import Counter, defaultdict
from pathlib import PurePosixPath

from kdfast.errors import KdfastError, listed
from kdfast.files import TABLE, leads_out, read

SUFFIXES = {'.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff'}
VALID_NAMES = ('valid', 'val', 'test')  # the first of these that is there is the validation set
LAYOUT = 'expected train/<class>/<image> beside test|valid|val/<class>/<image>, or a labels.csv'
COLUMNS = dict(name=('name', 'fname', 'file', 'image', 'path'), label=('label', 'class', 'category'), split=('split', 'is_valid')) # of labels.csv
SPLITS = dict(split={name: name for name in ('train', *VALID_NAMES)}, is_valid=dict(true='valid', false='train')) # what stands in its last


class Notes:
    "What is no error, but nothing to be silent about either: how often, and one example."
    def __init__(self): self.found = defaultdict(list)

    def add(self, what, name): self.found[what].append(name)

    def said(self): return [f'{what}: {len(names):,} ({names[0]}{", …" if len(names) > 1 else ""})' for what,names in self.found.items()]


def layout(path, files, notes, alone):
    "The images of train and of valid, each as (name, class, opener): by their folders, or else by labels.csv"
    shown = {PurePosixPath(name).as_posix(): open_file for name,open_file in files if not hidden(name)}
    table = table_of(shown)
    if table is None or any(PurePosixPath(name).parts[-3:-2] == ('train',) for name in shown): return by_folders(path, files, notes)
    return by_table(path, table, shown, notes, alone)


def hidden(name): return PurePosixPath(name).name.startswith('.') or '__MACOSX' in PurePosixPath(name).parts


def by_folders(path, files, notes):
    found = defaultdict(list)
    for name,open_file in files:
        parts = PurePosixPath(name).parts
        if hidden(name): continue
        if path.is_dir() and (path/name).is_dir(): raise KdfastError(f'{path}: {name} is a folder; {LAYOUT}')
        if PurePosixPath(name).suffix.lower() not in SUFFIXES: notes.add('skipped, not named like an image', name)
        elif len(parts) < 3 or parts[-3] not in ('train', *VALID_NAMES): raise KdfastError(f'{path}: found the image {name}; {LAYOUT}')
        else: found[parts[-3]].append((name, parts[-2], open_file))
    valid = next((split for split in VALID_NAMES if split in found), None)
    if 'train' not in found or not valid:
        raise KdfastError(f'{path}: found {" and ".join(sorted(found)) or "no images"}; {LAYOUT}')
    if path.is_dir():
        full = {f'{split}/{label}' for split in ('train', valid) for _,label,_ in found[split]}
        empty = [name for split in ('train', valid) for name in sorted(f'{split}/{d.name}' for d in (path/split).iterdir() if d.is_dir()) if name not in full]
        if empty: raise KdfastError(f'{path}: no images in {listed(empty)}: fill or remove')
    return dict(train=found['train'], valid=found[valid])


def no_validation(where):
    "The error for images of which none validates"
    return KdfastError(f'{where} lists no image for validation: add a column split (train or valid) or is_valid (False or True), '
                       'or hold out a share of the training images with --holdout 0.2')


# labels.csv

def table_of(files):
    "The name of labels.csv, at the top or in the one folder that an archive holds; None where there is none"
    tops = {name.partition('/')[0] for name in files}
    return next((name for name in (TABLE, *(f'{top}/{TABLE}' for top in tops if len(tops) == 1)) if name in files), None)


def by_table(path, table, files, notes, alone):
    "As `layout`; names are told from where the table lies. Raises KdfastError that names the lines where something is wrong"
    where,top = f'{path}/{table}',table.removesuffix(TABLE)
    images = {name.removeprefix(top): open_file for name,open_file in files.items() if name != table}
    rows,problems = {},[]
    for line,name,label,split,problem in read_table(where, read(files[table])):
        problem = problem or wrong(name, label, images, rows)
        if problem: problems.append(f'line {line}: {problem}')
        else: rows[name] = line,label,split
    if problems: raise KdfastError(f'{where}: {listed(problems, "; ")}')
    used = {split for *_,split in rows.values()}
    valid = next((split for split in VALID_NAMES if split in used), None)
    if 'train' not in used: raise KdfastError(f'{where} lists no image for training')
    if not valid and not alone: raise no_validation(where)
    found = dict(train=[], valid=[])
    for name,open_file in images.items(): # in their order: an archive is read from its beginning to its end
        _,label,split = rows.get(name, (0, '', f'not in {TABLE}'))
        if split in ('train', valid): found['train' if split == 'train' else 'valid'].append((name, label, open_file))
        else: notes.add(f'left out: {split}', name)
    return found


def wrong(name, label, images, rows):
    "What is, with a row that says the class of an image; those before it are in `rows`"
    if not name: return 'no name'
    if leads_out(name): return f'{name!r} leads out of the folder'
    if name in rows: return f'{name} is there twice, first in line {rows[name][0]}'
    if name not in images: return f'there is no file {name}'
    if PurePosixPath(name).suffix.lower() not in SUFFIXES: return f'{name} is not named like an image ({", ".join(sorted(SUFFIXES))})'
    return '' if label else f'{name} has no label'


def read_table(where, content):
    "(line, name, label, split, what is wrong) of each row; all of them train without a column that says"
    (first,header),*rows = lines_of(where, content) or [(1, [])]
    columns,at = [name.strip().lower() for name in header],{}
    for what,accepted in COLUMNS.items():
        found = [name for name in columns if name in accepted]
        if len(found) > 1 or not found and what != 'split':
            raise KdfastError(f'{where}, line {first}: found {", ".join(found) or "none"} of the columns {", ".join(accepted)}, expected one; there are {listed(header) or "none"}')
        at[what] = found[0] if found else None
    known = SPLITS.get(at['split'])
    for line,row in rows:
        cells = dict(zip(columns, (cell.strip() for cell in row)))
        split = known.get(cells.get(at['split'], '').lower()) if known else 'train'
        problem = (f'{len(row)} columns, the header has {len(columns)}' if len(row) != len(columns) else
                   f'{cells[at["split"]]!r} in column {at["split"]}, expected {" or ".join(known)}' if not split else '')
        name = cells.get(at['name'], '')
        yield line,PurePosixPath(name).as_posix() if name else '',cells.get(at['label'], ''),split,problem


def lines_of(where, content):
    "(number, cells) of each line that is not empty"
    if isinstance(content, Exception): raise KdfastError(f'{where} is not to be read ({content})') from content
    try: text = content.decode('utf-8-sig')
    except UnicodeDecodeError as e: raise KdfastError(f'{where}, line {content.count(10, 0, e.start) + 1}: not UTF-8 ({e.reason}): save it as UTF-8') from e
    reader = csv.reader(io.StringIO(text, newline=''), strict=True, skipinitialspace=True)
    try: return [(reader.line_num, row) for row in reader if row]
    except csv.Error as e: raise KdfastError(f'{where}, line {reader.line_num}: {e}') from e


# Classes

def classes_of(path, splits, notes):
    train,valid = (sorted({label for _,label,_ in listing}) for listing in splits.values())
    if splits['valid'] and train != valid:
        raise KdfastError(f'{path}: the classes differ: only in train: {listed(sorted(set(train)-set(valid))) or "none"}; '
                          f'only in validation: {listed(sorted(set(valid)-set(train))) or "none"}')
    if len(train) < 2: raise KdfastError(f'{path}: found one class, {train[0]}; a classifier needs at least two')
    unspeakable = [repr(name) for name in train if not name.isprintable()]
    if unspeakable: raise KdfastError(f'{path}: the names of classes {listed(unspeakable)} have characters that cannot be printed: rename them')
    for name,n in Counter(unicodedata.normalize('NFC', name).casefold() for name in train).items():
        if n > 1: notes.add('classes whose names differ in case or accents alone', name)
    return train
