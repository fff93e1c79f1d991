"CIFAR-10 and CIFAR-100 as published for Python: pickles, which are read without running code."

from collections.abc import Sequence
from posixpath import basename

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.arrays import make_items
from kdfast.data.layouts.base import Listing, Source
from kdfast.data.layouts.official_files import (
    check_complete,
    check_names,
    find_official,
    name_labels,
    note_missing_names,
    note_others,
    unique_or_none,
)
from kdfast.data.safe_pickle import load_pickle

PRIORITY = 40  # before folders: the files lie in one folder
LAYOUT = 'the official files of CIFAR'
CIFAR10_BATCHES = [f'data_batch_{i}' for i in range(1, 6)]
CIFAR10_FILES = {*CIFAR10_BATCHES, 'test_batch', 'batches.meta'}
CIFAR100_FILES = {'train', 'test', 'meta'}
N_VALUES = 3 * 32**2  # of an image


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether the files have the official names, of which some may be missing."
    names = {basename(name) for name in source.files}
    n_cifar100 = len(names & CIFAR100_FILES)  # their names are usual words: two are enough only without images
    return bool(names & CIFAR10_FILES) or n_cifar100 == 3 or n_cifar100 == 2 and not source.images


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images in the order of the batches. Raises KdfastError for missing and other files."
    files = find_official(source, CIFAR10_FILES | CIFAR100_FILES)
    if files.keys() & CIFAR10_FILES and len(files.keys() & CIFAR100_FILES) > 1:
        raise KdfastError(f'{source.path}: found CIFAR-10 and CIFAR-100: pass the folder of one of them')
    if files.keys() & CIFAR10_FILES:
        splits, meta_file, key = dict(train=CIFAR10_BATCHES, test=['test_batch']), 'batches.meta', 'labels'
    else:
        splits, meta_file, key = dict(train=['train'], test=['test']), 'meta', 'fine_labels'
    key = source.columns.get('label') or key
    classes = _class_names(files, meta_file, key.removesuffix('s') + '_names', source)
    items, used = [], [files.get(meta_file)]
    for split, batches in splits.items():
        names = [files[batch] for batch in batches if batch in files]
        images = BatchImages(source, names, key)
        labels = name_labels(images.labels, classes, f'{source.path}: {", ".join(names)}', meta_file)
        items += make_items(split, labels, images)
        used += names
    check_complete(source, files, splits['train'])
    note_others(source, used, LAYOUT)
    return Listing(LAYOUT, items, classes)


def _class_names(files, meta_file, key, source):
    "The names of the classes, or None, with a note, if they are missing or not unique"
    if meta_file not in files:
        note_missing_names(source, meta_file)
        return None
    name = files[meta_file]
    names = load_pickle(source.files[name], f'{source.path}: {name}').get(key)
    if not isinstance(names, (list, tuple)):
        note_missing_names(source, f'{key} in {meta_file}')
        return None
    names = [name.decode(errors='backslashreplace') if isinstance(name, bytes) else str(name) for name in names]
    return unique_or_none(source, check_names(source, name, names))


class BatchImages:
    "Images of a split, from several batches; one batch is in memory at a time."

    def __init__(
        self,
        source: Source,  # Files of the data set
        batches: Sequence[str],  # Names of the files of the split
        labels_key: str,  # Key of the labels in a file
    ):
        self.source = source
        self.labels = []
        self.places = []  # (batch, row) of each image
        self.loaded = None  # name of the batch in memory
        for name in batches:
            labels = self._labels(name, labels_key)
            self.labels += labels
            self.places += [(name, row) for row in range(len(labels))]

    def _load(self, name):
        return load_pickle(self.source.files[name], f'{self.source.path}: {name}')

    def _labels(self, name, labels_key):
        "The labels of a batch. Raises KdfastError if they are missing, or are not as many as the images"
        batch, where = self._load(name), f'{self.source.path}: {name}'
        missing = [key for key in (labels_key, 'data') if key not in batch]
        if missing:
            raise KdfastError(f'{where} has no {missing[0]}; it has {", ".join(map(str, batch))}')
        labels = batch[labels_key]
        labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
        shape = getattr(batch['data'], 'shape', None)
        if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
            raise KdfastError(f'{where}: {labels_key} are no list of numbers')
        if shape != (len(labels), N_VALUES):
            raise KdfastError(
                f'{where}: {len(labels):,} labels, but images of shape {shape}, not {N_VALUES:,} values each'
            )
        return labels

    def __call__(self, i):
        name, row = self.places[i]
        if name != self.loaded:
            self.pixels = self._load(name)['data']
            self.loaded = name
        return np.asarray(self.pixels[row], np.uint8).reshape(3, 32, 32)
