"Official files with records of a fixed size: IDX (MNIST and similar), STL-10, binary CIFAR."

import gzip
import io
import math
import re
from collections.abc import Callable, Sequence
from posixpath import basename  # many times as fast as pathlib, for a million files

import numpy as np

from kdfast.core.errors import KdfastError, listed
from kdfast.data.files import FILE_LIMIT, READ_ERRORS
from kdfast.data.layouts.arrays import make_items
from kdfast.data.layouts.base import Listing, Source
from kdfast.data.layouts.official_files import (
    check_complete,
    find_official,
    name_labels,
    note_missing_names,
    note_others,
    read_class_names,
    read_whole,
    unique_or_none,
)
from kdfast.data.layouts.records import Records

PRIORITY = 50  # before lists and tables: names of classes come in text files
IDX = re.compile(r'(?P<kind>.*?)(?P<split>train|t10k|test)-(?P<role>images|labels)[-.]idx[13]-ubyte(?P<packed>\.gz)?')
IDX_PARTNER = dict(images='labels', labels='images', idx3='idx1', idx1='idx3')  # in names
STL10_SIDE = 96
STL10_PAIRS = {split: (f'{split}_X.bin', f'{split}_y.bin') for split in ('train', 'test')}
STL10_NAMES = 'class_names.txt'
STL10_FILES = {name for pair in STL10_PAIRS.values() for name in pair}
CIFAR_SIDE = 32
CIFAR10 = dict(train=[f'data_batch_{i}.bin' for i in range(1, 6)], test=['test_batch.bin'])
CIFAR10_FILES = {*CIFAR10['train'], *CIFAR10['test']}
CIFAR10_NAMES = 'batches.meta.txt'
CIFAR100 = dict(train=['train.bin'], test=['test.bin'])
CIFAR100_NAMES = 'fine_label_names.txt'
CIFAR_FILES = {*CIFAR10_FILES, CIFAR10_NAMES, *CIFAR100['train'], *CIFAR100['test'], CIFAR100_NAMES}


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether the files have the official names, of which some may be missing."
    names = {basename(name) for name in source.files}
    is_cifar = bool(names & CIFAR10_FILES) or 'train.bin' in names or {'test.bin', CIFAR100_NAMES} <= names
    return is_cifar or bool(names & STL10_FILES or _idx_files(source))


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images of the official files. Raises KdfastError for files that do not belong together."
    if _idx_files(source):
        return _read_idx(source)
    names = {basename(name) for name in source.files}
    return _read_stl10(source) if names & STL10_FILES else _read_cifar(source)


def _classes(source, files, names_file):
    "The names of the classes, or None, with a note"
    if names_file not in files:
        note_missing_names(source, names_file)
        return None
    return unique_or_none(source, read_class_names(source, files[names_file]))


# IDX


def _idx_files(source):
    return {name: match for name in source.files if (match := IDX.fullmatch(basename(name)))}


def _read_idx(source):
    files = _idx_files(source)
    kinds = sorted({match['kind'] for match in files.values()})
    if len(kinds) > 1:
        raise KdfastError(f'{source.path}: found {listed(kinds)}: pass a folder with the four files of one of them')
    items, used = [], []
    for split, words in dict(train=('train',), test=('t10k', 'test')).items():
        pair = [_idx_file(source, files, words, role) for role in ('images', 'labels')]
        if any(pair) and not all(pair):
            name = pair[0] or pair[1]
            missing = re.sub('|'.join(IDX_PARTNER), lambda match: IDX_PARTNER[match[0]], basename(name))
            raise KdfastError(f'{source.path}: found {name} without {missing}')
        if all(pair):
            items += _read_idx_split(source, split, *pair)
            used += pair
    if not any(item.split == 'train' for item in items):
        raise KdfastError(f'{source.path}: no train-images-idx3-ubyte, beside {listed(sorted(files))}')
    note_others(source, [*used, *(f'{name}.gz' for name in used)], 'IDX files, as of MNIST')
    return Listing('IDX files, as of MNIST', items)


def _idx_file(source, files, words, role):
    "The file of a split and a role, rather the one that is not packed; None if there is none"
    found = sorted(name for name, match in files.items() if match['split'] in words and match['role'] == role)
    if len({name.removesuffix('.gz') for name in found}) > 1:
        raise KdfastError(f'{source.path}: found {listed(found)}: pass the folder of one of the data sets')
    return found[0] if found else None


def _read_idx_split(source, split, images_name, labels_name):
    open_images, open_labels = (_decompressed(source.files[name], name) for name in (images_name, labels_name))
    where = f'{source.path}: {images_name}'
    n, height, width = _idx_sizes(_first_bytes(open_images, 16, where), 3, where, 'images')
    where = f'{source.path}: {labels_name}'
    content = read_whole(open_labels, where)
    _idx_sizes(content, 1, where, 'labels')
    labels = np.frombuffer(content, np.uint8, offset=8)
    if len(labels) != n:
        raise KdfastError(f'{source.path}: {n:,} images in {images_name}, but {len(labels):,} labels in {labels_name}')
    records = Records(open_images, images_name, height * width, 16)
    return make_items(split, [str(label) for label in labels], lambda i: records(i).reshape(height, width))


def _first_bytes(open_file, n, where):
    try:
        with open_file() as file:
            return file.read(n)
    except READ_ERRORS as e:
        raise KdfastError(f'cannot read {where} ({e}): download it again') from e


def _decompressed(open_file, name):
    return (lambda: gzip.GzipFile(fileobj=open_file())) if name.endswith('.gz') else open_file


def _idx_sizes(header, n_dimensions, where, content):
    "The sizes of the dimensions. Raises KdfastError for another kind of file"
    length = 4 + 4 * n_dimensions
    magic, *sizes = np.frombuffer(header[:length], '>u4').tolist() if len(header) >= length else (0,)
    if magic != 0x800 + n_dimensions or not all(sizes) or math.prod(sizes[1:]) > FILE_LIMIT:
        raise KdfastError(f'{where} is not an IDX file of {content}: download it again')
    return sizes


# STL-10


def _read_stl10(source):
    files = find_official(source, {*STL10_FILES, STL10_NAMES, 'unlabeled_X.bin'})
    check_complete(source, files, STL10_PAIRS['train'])
    classes, items = _classes(source, files, STL10_NAMES), []
    for split, pair in STL10_PAIRS.items():
        if files.keys() & set(pair):
            check_complete(source, files, pair)
            items += _read_stl10_split(source, split, *(files[name] for name in pair), classes)
    if 'unlabeled_X.bin' in files:
        source.notes.add('skipped, images without labels', files['unlabeled_X.bin'])
    note_others(source, files.values(), 'the official files of STL-10')
    return Listing('the official files of STL-10', items, classes)


def _read_stl10_split(source, split, images_name, labels_name, classes):
    where = f'{source.path}: {labels_name}'
    numbers = np.frombuffer(read_whole(source.files[labels_name], where), np.uint8).astype(int) - 1  # they begin with 1
    images = Stl10Images(source.files[images_name], images_name)
    n_bytes = _n_bytes(source.files[images_name], f'{source.path}: {images_name}')
    if n_bytes != len(numbers) * images.records.size:
        raise KdfastError(
            f'{source.path}: {n_bytes / images.records.size:,.6g} images in {images_name}, '
            f'but {len(numbers):,} labels in {labels_name}: download both again'
        )
    return make_items(split, name_labels(numbers.tolist(), classes, where, STL10_NAMES), images)


def _n_bytes(open_file, where):
    "The size of a file"
    try:
        with open_file() as file:
            return file.seek(0, io.SEEK_END)
    except READ_ERRORS as e:
        raise KdfastError(f'cannot read {where} ({e}): download it again') from e


class Stl10Images:
    "Images of a split of STL-10, which are stored by channel and column."

    def __init__(
        self,
        open_file: Callable,  # Opens the file of images
        name: str,  # Of the file, in errors
    ):
        self.records = Records(open_file, name, 3 * STL10_SIDE**2)

    def __call__(self, i):
        return self.records(i).reshape(3, STL10_SIDE, STL10_SIDE).transpose(2, 1, 0)


# Binary version of CIFAR


def _read_cifar(source):
    files = find_official(source, CIFAR_FILES)
    if files.keys() & CIFAR10_FILES and 'train.bin' in files:
        raise KdfastError(f'{source.path}: found CIFAR-10 and CIFAR-100: pass the folder of one of them')
    is_cifar10 = bool(files.keys() & CIFAR10_FILES)
    splits, names_file, n_labels = (CIFAR10, CIFAR10_NAMES, 1) if is_cifar10 else (CIFAR100, CIFAR100_NAMES, 2)
    check_complete(source, files, splits['train'])
    classes = _classes(source, files, names_file)
    items, used = [], [files.get(names_file)]
    for split, batches in splits.items():
        names = [files[batch] for batch in batches if batch in files]
        images = CifarImages(source, names, n_labels)
        labels = name_labels(images.labels, classes, f'{source.path}: {", ".join(names)}', names_file)
        items += make_items(split, labels, images)
        used += names
    note_others(source, used, 'the official binary files of CIFAR')
    return Listing('the official binary files of CIFAR', items, classes)


class CifarImages:
    "Images of a split of CIFAR, from several files; each record has one or two labels, then the pixels."

    def __init__(
        self,
        source: Source,  # Files of the data set
        names: Sequence[str],  # Of the files, in order
        n_labels: int,  # Labels of each record; the last one is used
    ):
        self.n_labels = n_labels
        self.labels = []
        self.places = []  # (records, index) of each image
        size = n_labels + 3 * CIFAR_SIDE**2
        for name in names:
            where = f'{source.path}: {name}'
            content = read_whole(source.files[name], where)
            if not content or len(content) % size:
                raise KdfastError(f'{where} is truncated: {len(content):,} bytes are no images of {size:,} bytes each')
            labels = np.frombuffer(content, np.uint8).reshape(-1, size)[:, n_labels - 1]
            records = Records(source.files[name], name, size)
            self.labels += labels.tolist()
            self.places += [(records, i) for i in range(len(labels))]

    def __call__(self, i):
        records, row = self.places[i]
        return records(row)[self.n_labels :].reshape(3, CIFAR_SIDE, CIFAR_SIDE)
