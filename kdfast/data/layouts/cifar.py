"CIFAR-10 and CIFAR-100 as they are published for Python: pickles, of which only arrays, lists and text are taken."

import codecs
import pickle
from pathlib import PurePosixPath

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.arrays import numbered
from kdfast.data.layouts.base import Listing, Source

BATCHES = [f'data_batch_{i}' for i in range(1, 6)]


def matches(source: Source) -> bool:
    return any(name in BATCHES for name in by_name(source)) or {'train', 'test', 'meta'} <= by_name(source).keys()


def by_name(source):
    return {PurePosixPath(name).name: open_file for name, open_file in source.files.items()}


def read(source: Source) -> Listing:
    files = by_name(source)
    ten = any(name in files for name in BATCHES)
    splits = (
        dict(train=[name for name in BATCHES if name in files], test=['test_batch'])
        if ten
        else dict(train=['train'], test=['test'])
    )
    key = source.columns.get('label') or ('labels' if ten else 'fine_labels')
    classes = names_of(files, 'batches.meta' if ten else 'meta', key.removesuffix('s') + '_names', source)
    items = []
    for split, names in splits.items():
        labels, where = [], []
        for name in (name for name in names if name in files):
            batch = load(files[name], f'{source.path}: {name}')
            missing = [wanted for wanted in (key, 'data') if wanted not in batch]
            if missing:
                raise KdfastError(f'{source.path}: {name} has no {missing[0]}; it has {", ".join(map(str, batch))}')
            labels += batch[key]
            where += [(name, i) for i in range(len(batch[key]))]
        if classes and labels and max(labels) >= len(classes):
            raise KdfastError(f'{source.path}: found label {max(labels)}, and the names of {len(classes)} classes')
        items += numbered(split, [classes[n] if classes else str(n) for n in labels], Batch(files, where, source))
    return Listing('the official files of CIFAR', items, classes)


def names_of(files, name, key, source):
    "The names of the classes, if each has one of its own"
    if name not in files:
        return None
    found = load(files[name], f'{source.path}: {name}').get(key)
    found = [name.decode() if isinstance(name, bytes) else str(name) for name in found or []]
    if len(set(found)) < len(found):
        source.notes.add('names of classes that are not used, as several are alike', found[0])
    return found if found and len(set(found)) == len(found) else None


class Batch:
    "Opens the images of a split; one batch of them is in memory at a time."

    def __init__(self, files, where, source):
        self.files, self.where, self.path, self.name = files, where, source.path, None

    def __call__(self, i):
        name, row = self.where[i]
        if name != self.name:
            self.data, self.name = load(self.files[name], f'{self.path}: {name}')['data'], name
        return np.asarray(self.data[row], np.uint8).reshape(3, 32, 32)


# Pickles


def load(
    open_file,  # Opens the pickle
    where: str,  # What errors call it
) -> dict:
    "A dict of arrays, lists and text. Raises KdfastError for a pickle of anything else, which is never run."
    with open_file() as f:
        try:
            found = Plain(f, encoding='bytes').load()
        except (
            pickle.UnpicklingError,
            ValueError,
            TypeError,
            EOFError,
            IndexError,
            KeyError,
            AttributeError,
            ImportError,
        ) as e:
            raise KdfastError(f'{where} is no batch of CIFAR ({e})') from e
    if not isinstance(found, dict):
        raise KdfastError(f'{where} is no batch of CIFAR: expected a dict, found {type(found).__name__}')
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in found.items()}


class Plain(pickle.Unpickler):
    "Makes arrays of numbers, and nothing else that is not built in."

    def find_class(self, module, name):
        made = ALLOWED.get((module.removeprefix('numpy.').removeprefix('_core.').removeprefix('core.'), name))
        if made is None:
            raise pickle.UnpicklingError(f'it would run {module}.{name}')
        return made


class Array(np.ndarray):
    "What a pickled array is built as: one of numbers alone"

    def __setstate__(self, state):
        if np.dtype(state[2]).hasobject:
            raise pickle.UnpicklingError('an array of Python objects')
        super().__setstate__(state)


def empty(kind, shape, typecode):
    return np.ndarray.__new__(Array, (0,), np.uint8)


def frombuffer(content, dtype, shape, order):
    if dtype.hasobject:
        raise pickle.UnpicklingError('an array of Python objects')
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def dtype(code, *flags):
    made = np.dtype(code.decode() if isinstance(code, bytes) else code)
    if made.hasobject:
        raise pickle.UnpicklingError('an array of Python objects')
    return made


def encode(text, encoding='latin1'):
    if codecs.lookup(encoding).name not in ('iso8859-1', 'utf-8', 'ascii'):
        raise pickle.UnpicklingError(f'text in {encoding}')
    return text.encode(encoding)


ALLOWED = {
    ('multiarray', '_reconstruct'): empty,
    ('numpy', 'ndarray'): Array,
    ('numpy', 'dtype'): dtype,
    ('numeric', '_frombuffer'): frombuffer,
    ('_codecs', 'encode'): encode,
}
