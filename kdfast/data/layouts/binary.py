"Official files whose records have one size: IDX of MNIST and its kin, STL-10, CIFAR's binary version."

import gzip
import re
from pathlib import PurePosixPath

import numpy as np

from kdfast.core.errors import KdfastError, listed
from kdfast.data.layouts.arrays import numbered
from kdfast.data.layouts.base import Listing, Source
from kdfast.data.layouts.records import Records

IDX = re.compile(r'(?P<kind>.*?)(?P<split>train|t10k|test)-(?P<role>images|labels)[-.]idx[13]-ubyte(?P<packed>\.gz)?')
STL10_SIDE = 96


def matches(source: Source) -> bool:
    return (
        bool(idx_files(source))
        or bool(found(source, 'train_X.bin'))
        or bool(found(source, 'data_batch_1.bin', 'train.bin'))
    )


def read(source: Source) -> Listing:
    if idx_files(source):
        return read_idx(source)
    return read_stl10(source) if found(source, 'train_X.bin') else read_cifar(source)


def found(source, *names):
    return next((name for name in source.files if PurePosixPath(name).name in names), None)


def whole(open_file):
    with open_file() as f:
        return f.read()


# IDX


def idx_files(source):
    return {name: match for name in source.files if (match := IDX.fullmatch(PurePosixPath(name).name))}


def read_idx(source):
    files = idx_files(source)
    kinds = sorted({match['kind'] for match in files.values()})
    if len(kinds) > 1:
        raise KdfastError(f'{source.path}: found {listed(kinds)}: pass a folder with the four files of one of them')
    items = []
    for split, words in dict(train=('train',), test=('t10k', 'test')).items():
        of_split = {match['role']: name for name, match in files.items() if match['split'] in words}
        if len(of_split) < 2:
            continue
        opened = {role: unpacked(source.files[name], name) for role, name in of_split.items()}
        with opened['images']() as f:
            n, height, width = header(f.read(16), 3, f'{source.path}: {of_split["images"]}')
        labels = np.frombuffer(whole(opened['labels'])[8:], np.uint8)
        if len(labels) != n:
            raise KdfastError(f'{source.path}: {n:,} images and {len(labels):,} labels of {split}')
        records = Records(opened['images'], height * width, 16)
        items += numbered(
            split,
            list(map(str, labels.tolist())),
            lambda i, records=records, height=height, width=width: records(i).reshape(height, width),
        )
    if not items:
        raise KdfastError(f'{source.path}: found {listed(sorted(files))}: pass the folder that has images and labels')
    return Listing('IDX files, as of MNIST', items)


def unpacked(open_file, name):
    return (lambda: gzip.GzipFile(fileobj=open_file())) if name.endswith('.gz') else open_file


def header(content, dimensions, where):
    magic, *sizes = (
        np.frombuffer(content[: 4 + 4 * dimensions], '>u4').tolist() if len(content) >= 4 + 4 * dimensions else (0,)
    )
    if magic != 0x800 + dimensions:
        raise KdfastError(f'{where} is no IDX file of images')
    return sizes


# STL-10


def read_stl10(source):
    names, items = found(source, 'class_names.txt'), []
    classes = whole(source.files[names]).decode().split() if names else None
    for split in ('train', 'test'):
        images, labels = found(source, f'{split}_X.bin'), found(source, f'{split}_y.bin')
        if not (images and labels):
            continue
        numbers = np.frombuffer(whole(source.files[labels]), np.uint8).astype(int) - 1
        records = Records(source.files[images], 3 * STL10_SIDE**2)
        items += numbered(
            split,
            [classes[n] if classes else str(n) for n in numbers],
            lambda i, records=records: records(i).reshape(3, STL10_SIDE, STL10_SIDE).transpose(2, 1, 0),
        )
    if found(source, 'unlabeled_X.bin'):
        source.notes.add('left out, images without labels', found(source, 'unlabeled_X.bin'))
    return Listing('the official files of STL-10', items, classes)


# CIFAR's binary version


def read_cifar(source):
    ten = found(source, 'data_batch_1.bin')
    splits = (
        dict(train=[f'data_batch_{i}.bin' for i in range(1, 6)], test=['test_batch.bin'])
        if ten
        else dict(train=['train.bin'], test=['test.bin'])
    )
    names = found(source, 'batches.meta.txt') if ten else found(source, 'fine_label_names.txt')
    classes = whole(source.files[names]).decode().split() if names else None
    n_labels, items = 1 if ten else 2, []
    for split, files in splits.items():
        size, labels, parts = n_labels + 3072, [], []
        for name in filter(None, (found(source, file) for file in files)):
            numbers = np.frombuffer(whole(source.files[name]), np.uint8).reshape(-1, size)[:, n_labels - 1].tolist()
            records = Records(source.files[name], size)
            parts += [(records, i) for i in range(len(numbers))]
            labels += [classes[n] if classes else str(n) for n in numbers]
        items += numbered(split, labels, lambda i, parts=parts: parts[i][0](parts[i][1])[n_labels:].reshape(3, 32, 32))
    return Listing('the official binary files of CIFAR', items, classes)
