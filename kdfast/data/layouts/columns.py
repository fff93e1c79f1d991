"Which column of a table holds the names of the images, which their labels, and which their split."

import re
from collections.abc import Callable
from dataclasses import dataclass

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.base import split_of
from kdfast.data.layouts.rows import SEVERAL, Table

NAMES = (
    'name',
    'fname',
    'file',
    'filename',
    'file_name',
    'filenames',
    'files',
    'image',
    'images',
    'img',
    'imgs',
    'image_id',
    'img_id',
    'image_name',
    'imagename',
    'img_name',
    'image_file',
    'image_filename',
    'image_path',
    'img_path',
    'path',
    'paths',
    'filepath',
    'file_path',
    'filepaths',
    'picture',
    'photo',
    'id',
    'id_code',
    'uid',
)


LABELS = (
    'label',
    'labels',
    'class',
    'classes',
    'category',
    'categories',
    'cat',
    'cats',
    'target',
    'targets',
    'y',
    'tag',
    'tags',
    'diagnosis',
    'dx',
    'species',
    'breed',
    'class_name',
    'classname',
    'label_name',
    'class_id',
    'classid',
    'label_id',
    'category_id',
    'id',
)


WHICH = (
    'split',
    'set',
    'subset',
    'partition',
    'usage',
    'phase',
    'fold',
    'dataset',
    'data_set',
    'is_valid',
    'is_val',
    'is_validation',
    'is_test',
    'is_train',
)


TRUE, FALSE = ('true', '1', 'yes', 'y', 't'), ('false', '0', 'no', 'n', 'f')


# where true, where false
OTHERWISE = dict(
    is_valid=('valid', 'train'),
    is_val=('valid', 'train'),
    is_validation=('valid', 'train'),
    is_test=('test', 'train'),
    is_train=('train', 'valid'),
)


SURE = ('split', *OTHERWISE)  # whatever stands in them
LOOKED_AT = 50  # rows


@dataclass
class Columns:
    "How to read a row."

    name: int
    label: int | list[int]  # One column; or one a class, of which one holds a 1
    split: int | None
    header: list[str]

    def label_of(self, cells):
        "(label, what is wrong) of a row"
        if isinstance(self.label, int):
            several = cells[self.label].split(SEVERAL)
            return (
                (several[0], '')
                if len(several) == 1
                else ('', f'{len(several)} labels ({", ".join(several)}), expected one class an image')
            )
        ones = [self.header[i] for i in self.label if is_true(cells[i])]
        return (
            (ones[0], '')
            if len(ones) == 1
            else ('', f'{" and ".join(ones) or "no class"} set to 1, expected one class an image')
        )

    def split_of(self, cells):
        "(split, what is wrong) of a row; None where the table does not say"
        if self.split is None:
            return None, ''
        said, column = cells[self.split], plain(self.header[self.split])
        if column in OTHERWISE:
            value = said.lower().removesuffix('.0')
            if value in TRUE:
                return OTHERWISE[column][0], ''
            if value in FALSE:
                return OTHERWISE[column][1], ''
            return None, f'{said!r} in column {self.header[self.split]}, expected true or false, or 1 or 0'
        split = split_of(said)
        return split, '' if split else f'{said!r} in column {self.header[self.split]}, expected train, valid or test'


def is_true(cell):
    return cell.lower() in ('1', '1.0', 'true')


def plain(column):
    return re.sub(r'[^a-z0-9]+', '_', column.lower()).strip('_')


def choose(
    table: Table,
    asked: dict[str, str],  # Columns by what they hold (name, label, split), as the user says
    is_file: Callable,  # Whether a cell names an image
) -> Columns:
    """Choose the columns of a table: those that were asked for, else by their names and by what they hold.

    Raises KdfastError where that is not clear.
    """
    header, start = table.header, table.rows[:LOOKED_AT]

    def error(said):
        return KdfastError(
            f'{table.where}, line 1: {said}; there are {listed(header) or "none"}: say which with '
            '--columns name=…,label=…'
        )

    doubled = [name for i, name in enumerate(header) if name and name in header[:i]]
    if doubled:
        raise error(f'the column {doubled[0]} is there twice')
    at = {what: find(header, column, error) for what, column in asked.items()}

    def holds_files(i):
        return any(is_file(cells[i]) for _, cells in start if i < len(cells))

    if 'name' not in at:
        free = [i for i in range(len(header)) if i not in at.values()]
        known = [i for i in free if plain(header[i]) in NAMES]
        at['name'] = next(
            iter(
                [i for i in known if holds_files(i)]
                or [i for i in free if holds_files(i)]
                or sorted(known, key=lambda i: NAMES.index(plain(header[i])))
            ),
            None,
        )
        if at['name'] is None:
            raise error('found no column with the names of images')
    if 'split' not in at:

        def splits(i):
            return plain(header[i]) in SURE or any(split_of(cells[i]) for _, cells in start if i < len(cells))

        known = [i for i in range(len(header)) if i not in at.values() and plain(header[i]) in WHICH and splits(i)]
        if len(known) > 1:
            raise error(f'found {" and ".join(header[i] for i in known)}, expected one column of splits')
        at['split'] = known[0] if known else None
    if 'label' not in at:
        at['label'] = label_column(header, table.rows, [i for i in range(len(header)) if i not in at.values()], error)
    return Columns(at['name'], at['label'], at['split'], header)


def find(header, column, error):
    "The number of the column that the user has named"
    exact = [i for i, name in enumerate(header) if name == column] or [
        i for i, name in enumerate(header) if plain(name) == plain(column)
    ]
    if not exact:
        raise error(f'no column {column}')
    return exact[0]


def label_column(header, rows, free, error):
    "By its name; else the only one left; else a column a class"
    ones = [i for i in free if all(cells[i] in ('0', '1', '0.0', '1.0') for _, cells in rows if i < len(cells))]
    a_class_each = len(ones) > 1 and ones == [i for i in free if header[i]]
    known = sorted(
        (i for i in free if plain(header[i]) in LABELS and not (a_class_each and plain(header[i]) == 'cat')),
        key=lambda i: LABELS.index(plain(header[i])),
    )
    if len(known) == 1:
        return known[0]
    if known:
        return same_classes(header, rows, known, error)
    if len(free) == 1:
        return free[0]
    if a_class_each:
        return ones
    raise error('found no column of labels')


def same_classes(header, rows, known, error):
    "Of columns that say the same, a number and a name, the one of names"
    values = [[cells[i] for _, cells in rows if i < len(cells)] for i in known]
    alike = len({len(set(zip(*values))), *(len(set(column)) for column in values)}) == 1
    named = [i for i, column in zip(known, values) if not all(value.isdigit() for value in column)]
    if alike and len(named) == 1:
        return named[0]
    raise error(f'found {" and ".join(header[i] for i in known)}, expected one column of labels')
