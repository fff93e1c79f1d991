"Official files with records of a fixed size: IDX (MNIST and similar), STL-10, binary CIFAR."

import gzip
import re
from collections.abc import Callable, Sequence
from posixpath import basename  # many times as fast as pathlib, for a million files

import numpy as np

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.arrays import make_items
from kdfast.data.layouts.base import Listing, Source
from kdfast.data.layouts.records import Records

PRIORITY = 50  # before lists and tables: names of classes come in text files
IDX = re.compile(r'(?P<kind>.*?)(?P<split>train|t10k|test)-(?P<role>images|labels)[-.]idx[13]-ubyte(?P<packed>\.gz)?')
STL10_SIDE = 96
CIFAR_SIDE = 32


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether the files have the official names."
    return bool(_idx_files(source) or _find(source, 'train_X.bin') or _find(source, 'data_batch_1.bin', 'train.bin'))


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images of the official files. Raises KdfastError for files that do not belong together."
    if _idx_files(source):
        return _read_idx(source)
    return _read_stl10(source) if _find(source, 'train_X.bin') else _read_cifar(source)


def _find(source, *names):
    "The first file of one of these names, in any folder; None if there is none"
    return next((name for name in source.files if basename(name) in names), None)


def _read_all(open_file):
    with open_file() as file:
        return file.read()


def _read_class_names(source, name):
    "Names of the classes, separated by white space; None if there is no such file"
    return _read_all(source.files[name]).decode().split() if name else None


# IDX


def _idx_files(source):
    return {name: match for name in source.files if (match := IDX.fullmatch(basename(name)))}


def _read_idx(source):
    files = _idx_files(source)
    kinds = sorted({match['kind'] for match in files.values()})
    if len(kinds) > 1:
        raise KdfastError(f'{source.path}: found {listed(kinds)}: pass a folder with the four files of one of them')
    items = []
    for split, words in dict(train=('train',), test=('t10k', 'test')).items():
        names = {match['role']: name for name, match in files.items() if match['split'] in words}
        if len(names) == 2:
            items += _read_idx_split(source, split, names['images'], names['labels'])
    if not items:
        raise KdfastError(f'{source.path}: found {listed(sorted(files))}: pass the folder that has images and labels')
    return Listing('IDX files, as of MNIST', items)


def _read_idx_split(source, split, images_name, labels_name):
    open_images, open_labels = (_decompressed(source.files[name], name) for name in (images_name, labels_name))
    with open_images() as file:
        n, height, width = _idx_sizes(file.read(16), 3, f'{source.path}: {images_name}')
    labels = np.frombuffer(_read_all(open_labels)[8:], np.uint8)
    if len(labels) != n:
        raise KdfastError(f'{source.path}: {n:,} {split} images, but {len(labels):,} labels')
    records = Records(open_images, height * width, 16)
    return make_items(split, [str(label) for label in labels], lambda i: records(i).reshape(height, width))


def _decompressed(open_file, name):
    return (lambda: gzip.GzipFile(fileobj=open_file())) if name.endswith('.gz') else open_file


def _idx_sizes(header, n_dimensions, where):
    "The sizes of the dimensions. Raises KdfastError for another kind of file"
    length = 4 + 4 * n_dimensions
    magic, *sizes = np.frombuffer(header[:length], '>u4').tolist() if len(header) >= length else (0,)
    if magic != 0x800 + n_dimensions:
        raise KdfastError(f'{where} is not an IDX file of images')
    return sizes


# STL-10


def _read_stl10(source):
    classes = _read_class_names(source, _find(source, 'class_names.txt'))
    items = []
    for split in ('train', 'test'):
        images, labels = _find(source, f'{split}_X.bin'), _find(source, f'{split}_y.bin')
        if not (images and labels):
            continue
        numbers = np.frombuffer(_read_all(source.files[labels]), np.uint8).astype(int) - 1
        items += make_items(
            split, [classes[n] if classes else str(n) for n in numbers], Stl10Images(source.files[images])
        )
    unlabeled = _find(source, 'unlabeled_X.bin')
    if unlabeled:
        source.notes.add('skipped, images without labels', unlabeled)
    return Listing('the official files of STL-10', items, classes)


class Stl10Images:
    "Images of a split of STL-10, which are stored by channel and column."

    def __init__(
        self,
        open_file: Callable,  # Opens the file of images
    ):
        self.records = Records(open_file, 3 * STL10_SIDE**2)

    def __call__(self, i):
        return self.records(i).reshape(3, STL10_SIDE, STL10_SIDE).transpose(2, 1, 0)


# Binary version of CIFAR


def _read_cifar(source):
    is_cifar10 = _find(source, 'data_batch_1.bin')
    if is_cifar10:
        files = dict(train=[f'data_batch_{i}.bin' for i in range(1, 6)], test=['test_batch.bin'])
        n_labels, classes = 1, _read_class_names(source, _find(source, 'batches.meta.txt'))
    else:
        files = dict(train=['train.bin'], test=['test.bin'])
        n_labels, classes = 2, _read_class_names(source, _find(source, 'fine_label_names.txt'))
    items = []
    for split, names in files.items():
        found = [source.files[name] for name in (_find(source, name) for name in names) if name]
        images = CifarImages(found, n_labels)
        items += make_items(split, [classes[n] if classes else str(n) for n in images.labels], images)
    return Listing('the official binary files of CIFAR', items, classes)


class CifarImages:
    "Images of a split of CIFAR, from several files; each record has one or two labels, then the pixels."

    def __init__(
        self,
        open_files: Sequence[Callable],  # Open the files, in order
        n_labels: int,  # Labels of each record; the last one is used
    ):
        self.n_labels = n_labels
        self.labels = []
        self.places = []  # (records, index) of each image
        size = n_labels + 3 * CIFAR_SIDE**2
        for open_file in open_files:
            records = Records(open_file, size)
            labels = np.frombuffer(_read_all(open_file), np.uint8).reshape(-1, size)[:, n_labels - 1]
            self.labels += labels.tolist()
            self.places += [(records, i) for i in range(len(labels))]

    def __call__(self, i):
        records, row = self.places[i]
        return records(row)[self.n_labels :].reshape(3, CIFAR_SIDE, CIFAR_SIDE)
