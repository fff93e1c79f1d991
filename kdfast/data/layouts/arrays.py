"Arrays of images and labels: .npz of MedMNIST and Keras, .npy files, pairs of arrays in memory."

import io
import re
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.archives import FILE_LIMIT
from kdfast.data.layouts.base import Item, Listing, Source, split_of
from kdfast.data.layouts.records import Records

IMAGES, LABELS = (
    {'images', 'image', 'imgs', 'img', 'x', 'data', 'pixels'},
    {'labels', 'label', 'y', 'targets', 'target', 'class', 'classes'},
)


WORD = re.compile(r'[A-Z](?![a-z])|[A-Z]?[a-z]+|\d+')  # train_images, x_train, trainX
UNNAMED = {'arr_0': 'images', 'arr_1': 'labels'}  # of numpy.savez(file, images, labels)


def matches(source: Source) -> bool:
    return bool(pairs(source.files, '.npy')) and not source.images


def pairs(names, suffix):
    "The names of (images, labels) by split, which is None where the names do not tell"
    found = {}
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() != suffix:
            continue
        words = [word.lower() for word in WORD.findall(UNNAMED.get(path.stem, path.stem))]
        role = next((role for role, known in (('images', IMAGES), ('labels', LABELS)) if known & set(words)), None)
        split = next(filter(None, map(split_of, words)), None)
        if role:
            found.setdefault((path.parent.as_posix(), split), {}).setdefault(role, name)
    return {split: (both['images'], both['labels']) for (_, split), both in found.items() if len(both) == 2}


def read(source: Source) -> Listing:
    items = []
    for split, (images, labels) in pairs(source.files, '.npy').items():
        records = Pixels(source.files[images], f'{source.path}: {images}')
        classes = numbers(
            read_array(source.files[labels], f'{source.path}: {labels}'), f'{source.path}: {labels}', source.notes
        )
        if len(classes) != len(records):
            raise KdfastError(
                f'{source.path}: {len(records):,} images in {images}, and {len(classes):,} labels in {labels}'
            )
        items += numbered(split, classes, records)
    return Listing('arrays of images and labels', items)


def numbered(split, labels, open_record):
    "An item for each of the records of a split, in their order"
    width = len(str(len(labels)))
    return [
        Item(f'{split or "images"}/{i:0{width}}', split, label, partial(open_record, i))
        for i, label in enumerate(labels)
    ]


def numbers(
    labels: np.ndarray,  # (n,), (n, 1), or (n, classes) of zeros and a one
    where: str,  # What errors call them
    notes,  # Where to say what was done
) -> list[str]:
    "Labels as names of classes. Raises KdfastError for several labels an image."
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
            raise KdfastError(f'{where}: {labels.shape[1]} labels an image: expected one class an image')
        labels = labels.argmax(1)
        notes.add('labels that were one-hot', '')
    if labels.ndim != 1:
        raise KdfastError(f'{where}: labels of shape {labels.shape}: expected one an image')
    if labels.dtype.kind == 'S':
        labels = labels.astype(str)
    if labels.dtype.kind == 'f':
        if not (labels == np.rint(labels)).all():
            raise KdfastError(
                f'{where}: labels are fractions such as {labels[labels != np.rint(labels)][0]}: '
                'expected the number of a class'
            )
        labels = labels.astype(np.int64)
    return [str(label) for label in labels.tolist()]


def read_array(open_file, where):
    "A whole small array. Raises KdfastError for one of Python objects, which is never unpickled"
    try:
        with open_file() as f:
            return np.lib.format.read_array(io.BytesIO(f.read()), allow_pickle=False)
    except (ValueError, EOFError, OSError) as e:
        raise KdfastError(f'{where} cannot be read ({e})') from e


class Pixels:
    "The images of an array in a file that may be packed: read one after the other, never all at once."

    def __init__(self, open_file, where):
        with open_file() as f:
            try:
                version = np.lib.format.read_magic(f)
                shape, fortran, self.dtype = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )(f)
            except (ValueError, OSError, EOFError) as e:
                raise KdfastError(f'{where} cannot be read ({e})') from e
            start = f.tell()
        dimensions = '×'.join(map(str, shape))
        if self.dtype.hasobject:
            raise KdfastError(f'{where} holds Python objects, which are not read: save an array of numbers')
        if fortran:
            raise KdfastError(f'{where} is in Fortran order: save numpy.ascontiguousarray(images)')
        if len(shape) not in (3, 4):
            raise KdfastError(
                f'{where} has shape {dimensions}: expected images × height × width, with 1, 3 or 4 '
                'channels behind or before'
            )
        if len(shape) == 4 and not {shape[1], shape[-1]} & {1, 3, 4}:
            raise KdfastError(
                f'{where} has shape {dimensions}: volumes are not read, expected images of 1, 3 or 4 channels'
            )
        self.n, self.shape = shape[0], shape[1:]
        self.records = Records(open_file, int(np.prod(self.shape)) * self.dtype.itemsize, start)
        if self.records.size > FILE_LIMIT:
            raise KdfastError(f'{where} has images of {dimensions}: more than {FILE_LIMIT / 2**20:.0f} MB each')

    def __len__(self):
        return self.n

    def __call__(self, i):
        return self.records(i).view(self.dtype).reshape(self.shape)


class Pairs:
    "Arrays of images and labels as a map-style data set."

    def __init__(self, images, labels, where, notes):
        if not hasattr(images, '__getitem__') or not hasattr(images, '__len__'):
            raise KdfastError(f'{where}: images are {type(images).__name__}: expected an array')
        self.images, self.targets = images, numbers(np.asarray(labels), where, notes)
        self.targets = [int(label) if label.isdigit() else label for label in self.targets]
        if len(images) != len(self.targets):
            raise KdfastError(f'{where}: {len(images):,} images and {len(self.targets):,} labels')

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.targets[i]
