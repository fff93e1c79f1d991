"Arrays of images and labels: .npz of MedMNIST and Keras, .npy files, pairs of arrays in memory."

import io
import re
from collections.abc import Callable
from functools import partial
from tokenize import TokenError

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.core.format import shape_text
from kdfast.core.notes import Notes
from kdfast.data.files import FILE_LIMIT, READ_ERRORS
from kdfast.data.labels import QUESTION, from_indicators
from kdfast.data.layouts.array_pairs import find_pairs, has_pair
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.records import Records

PRIORITY = 30  # before tables: arrays may come with a table of other facts

NUMBER = re.compile('0|[1-9][0-9]{0,17}')  # of a class; 01 is a name, because it is not the same class as 1
# What NumPy raises for a file that is damaged, or no array
ARRAY_ERRORS = (*READ_ERRORS, ValueError, TypeError, SyntaxError, TokenError, OverflowError, MemoryError)


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether there are arrays of images with arrays of labels, and no image files."
    return has_pair(source) and not source.images


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images of all pairs of arrays. Raises KdfastError for arrays of other shapes or types."
    items = []
    for split, pairs in find_pairs(source).items():
        parts, classes = [], []
        for images, labels in pairs:
            parts.append(ArrayFile(source.files[images], f'{source.path}: {images}'))
            where = f'{source.path}: {labels}'
            found = to_class_names(_read_array(source.files[labels], where), where, source.notes, source.several)
            if len(found) != len(parts[-1]):
                raise KdfastError(
                    f'{source.path}: {len(parts[-1]):,} images in {images}, but {len(found):,} labels in {labels}'
                )
            if '' in found and split != 'test':
                raise KdfastError(f'{where}: label {found.index("")} is missing: label the image, or leave it out')
            classes += found
        items += make_items(split, classes, partial(_open_in_parts, parts))
    return Listing('arrays of images and labels', items)


def _open_in_parts(parts, i):
    "The pixels of image i of several arrays one after the other"
    for part in parts:
        if i < len(part):
            return part(i)
        i -= len(part)


def make_items(
    split: str | None,  # Of all records
    labels: list,  # Name of the class, or names of all labels, of each record
    open_record: Callable,  # Return the pixels of a record, given its index
) -> list[Item]:
    "Return an item for each record of a split, in the order of the records."
    width = len(str(len(labels)))
    return [
        Item(f'{split or "images"}/{i:0{width}}', split, label, partial(open_record, i))
        for i, label in enumerate(labels)
    ]


def to_class_names(
    labels: np.ndarray,  # (n,), (n, 1), or one-hot (n, classes)
    where: str,  # Name of the array in errors
    notes: Notes,  # Receives a note on labels that were one-hot
    several: bool = False,  # Whether images have several labels: (n, classes) of 0 and 1
) -> list[str] | list[tuple[str, ...]]:
    "Return labels as names of classes. Raises KdfastError for labels of another form."
    if several:
        return [tuple(map(str, numbers)) for numbers in from_indicators(labels, where)]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
            raise KdfastError(f'{where}: {labels.shape[1]} labels per image: {QUESTION}')
        labels = labels.argmax(1)
        notes.add('converted from one-hot labels', '')
    if labels.ndim != 1:
        raise KdfastError(f'{where}: labels have shape {labels.shape}: expected one label per image')
    if labels.dtype.kind not in 'biufSU':
        raise KdfastError(f'{where}: labels are of type {labels.dtype}: expected numbers or names of classes')
    if labels.dtype.kind == 'S':
        labels = _decoded(labels, where)
    if labels.dtype.kind == 'f':
        missing = np.isnan(labels)
        fractions = labels[~missing & ((labels != np.rint(labels)) | np.isinf(labels))]
        if len(fractions):
            raise KdfastError(f'{where}: labels are fractions such as {fractions[0]}: expected numbers of classes')
        return ['' if label != label else str(int(label)) for label in labels.tolist()]
    return [str(label) for label in labels.tolist()]


def _decoded(labels, where):
    "Names of classes as text. Raises KdfastError for another encoding"
    try:
        return np.char.decode(labels, 'utf-8')
    except UnicodeDecodeError as e:
        raise KdfastError(f'{where}: names of classes are not UTF-8 ({e.reason}): save them as text') from e


def _read_array(open_file, where):
    "A small array as a whole. Raises KdfastError for Python objects, which are never unpickled"
    try:
        with open_file() as file:
            return np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)
    except ARRAY_ERRORS as e:
        raise KdfastError(f'cannot read {where} ({e})') from e


class ArrayFile:
    "The images of an .npy file, which may be compressed: read one after the other, never all at once."

    def __init__(
        self,
        open_file: Callable,  # Return the file, opened for binary reading
        where: str,  # Name of the file in errors
    ):
        shape, fortran_order, self.dtype, start = self._read_header(open_file, where)
        dimensions = shape_text(shape)
        if self.dtype.hasobject:
            raise KdfastError(f'{where} holds Python objects, which are never unpickled: save an array of numbers')
        if fortran_order:
            raise KdfastError(f'{where} is in Fortran order: save numpy.ascontiguousarray(images)')
        if len(shape) not in (3, 4):
            raise KdfastError(
                f'{where} has shape {dimensions}: expected images × height × width, with 1, 3 or 4 channels last or '
                'second'
            )
        if len(shape) == 4 and not {shape[1], shape[-1]} & {1, 3, 4}:
            raise KdfastError(
                f'{where} has shape {dimensions}: volumes are not supported, expected images of 1, 3 or 4 channels'
            )
        self.n, self.shape = shape[0], shape[1:]
        self.records = Records(open_file, where, int(np.prod(self.shape)) * self.dtype.itemsize, start)
        if self.records.size > FILE_LIMIT:
            raise KdfastError(f'{where} has images of {dimensions}: more than {FILE_LIMIT / 2**20:.0f} MB each')

    @staticmethod
    def _read_header(open_file, where):
        "(shape, Fortran order, dtype, offset of the data)"
        try:
            with open_file() as file:
                version = np.lib.format.read_magic(file)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                return *read_header(file), file.tell()
        except ARRAY_ERRORS as e:
            raise KdfastError(f'cannot read {where} ({e})') from e

    def __len__(self):
        return self.n

    def __call__(self, i):
        return self.records(i).view(self.dtype).reshape(self.shape)


class ArrayPair:
    "Arrays of images and labels as a map-style data set."

    def __init__(
        self,
        images,  # (n, …), indexed by image
        labels,  # (n,), (n, 1) or one-hot (n, classes)
        where: str,  # Name of the pair in errors
        notes: Notes,  # Receives a note on labels that were one-hot
        several: bool = False,  # Whether images have several labels: (n, classes) of 0 and 1
    ):
        if not hasattr(images, '__getitem__') or not hasattr(images, '__len__'):
            raise KdfastError(f'{where}: images are {type(images).__name__}: expected an array')
        self.images = images
        if several:
            self.targets = np.asarray(labels)
            from_indicators(self.targets, where)  # or raise an error
        else:
            names = to_class_names(np.asarray(labels), where, notes)
            # also of text
            self.targets = [int(name) if NUMBER.fullmatch(name) else name for name in names]
        if len(images) != len(self.targets):
            raise KdfastError(f'{where}: {len(images):,} images, but {len(self.targets):,} labels')

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.targets[i]
