"CIFAR-10 and CIFAR-100 as published for Python: pickles, which are read without running code."

from collections.abc import Sequence
from posixpath import basename

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.arrays import make_items
from kdfast.data.layouts.base import Listing, Source
from kdfast.data.safe_pickle import load_pickle

PRIORITY = 40  # before folders: the files lie in one folder
CIFAR10_BATCHES = [f'data_batch_{i}' for i in range(1, 6)]
CIFAR100_FILES = {'train', 'test', 'meta'}


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether the files have the official names."
    files = _by_file_name(source)
    return any(name in CIFAR10_BATCHES for name in files) or CIFAR100_FILES <= files.keys()


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images in the order of the batches. Raises KdfastError for other pickles."
    files = _by_file_name(source)
    if any(name in files for name in CIFAR10_BATCHES):
        splits = dict(train=CIFAR10_BATCHES, test=['test_batch'])
        meta_file, key = 'batches.meta', 'labels'
    else:
        splits = dict(train=['train'], test=['test'])
        meta_file, key = 'meta', 'fine_labels'
    key = source.columns.get('label') or key
    classes = _class_names(files, meta_file, key.removesuffix('s') + '_names', source)
    items = []
    for split, names in splits.items():
        images = BatchImages(files, [name for name in names if name in files], key, source.path)
        if classes and images.labels and max(images.labels) >= len(classes):
            raise KdfastError(f'{source.path}: found label {max(images.labels)}, but {len(classes)} names of classes')
        items += make_items(split, [classes[n] if classes else str(n) for n in images.labels], images)
    return Listing('the official files of CIFAR', items, classes)


def _by_file_name(source):
    return {basename(name): open_file for name, open_file in source.files.items()}


def _class_names(files, meta_file, key, source):
    "The names of the classes, or None if they are missing or not unique"
    if meta_file not in files:
        return None
    names = load_pickle(files[meta_file], f'{source.path}: {meta_file}').get(key)
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in names or []]
    if len(set(names)) < len(names):
        source.notes.add('names of classes ignored, because they are not unique', names[0])
        return None
    return names or None


class BatchImages:
    "Images of a split, from several batches; one batch is in memory at a time."

    def __init__(
        self,
        files: dict,  # Functions that open the files, by name
        batches: Sequence[str],  # Names of the files of the split
        labels_key: str,  # Key of the labels in a file
        path: str,  # The data set, for errors
    ):
        self.files = files
        self.path = path
        self.labels = []
        self.places = []  # (batch, row) of each image
        self.loaded = None  # name of the batch in memory
        for name in batches:
            batch = self._load(name)
            missing = [key for key in (labels_key, 'data') if key not in batch]
            if missing:
                raise KdfastError(f'{path}: {name} has no {missing[0]}; it has {", ".join(map(str, batch))}')
            self.labels += batch[labels_key]
            self.places += [(name, row) for row in range(len(batch[labels_key]))]

    def _load(self, name):
        return load_pickle(self.files[name], f'{self.path}: {name}')

    def __call__(self, i):
        name, row = self.places[i]
        if name != self.loaded:
            self.pixels = self._load(name)['data']
            self.loaded = name
        return np.asarray(self.pixels[row], np.uint8).reshape(3, 32, 32)
