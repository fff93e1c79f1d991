"Official files with MATLAB arrays: SVHN, Oxford 102 Flowers."

from posixpath import basename

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.arrays import make_items
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.official_files import check_complete, find_official, note_others

PRIORITY = 60  # before folders: the images of Oxford 102 Flowers lie in one folder
SVHN_SPLITS = {'train_32x32.mat': 'train', 'test_32x32.mat': 'test'}
SVHN_EXTRA = 'extra_32x32.mat'
FLOWERS_FILES = {'imagelabels.mat', 'setid.mat'}
FLOWERS_SPLITS = dict(trnid='train', valid='valid', tstid='test')


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether the files have the official names, of which some may be missing."
    names = {basename(name) for name in source.files}
    if names & SVHN_SPLITS.keys() or names >= FLOWERS_FILES:
        return True
    return bool(names & FLOWERS_FILES) and len({name.rpartition('/')[0] for name in source.images}) < 2


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images of the official files. Raises KdfastError for missing files and variables."
    files = find_official(source, {*SVHN_SPLITS, SVHN_EXTRA, *FLOWERS_FILES})
    return _read_flowers(source, files) if files.keys() & FLOWERS_FILES else _read_svhn(source, files)


def _read_mat(source, name, read):
    "What a function of scipy.io returns. Raises KdfastError for a file that it cannot read"
    try:
        with source.files[name]() as file:
            return read(file)
    except Exception as e:  # scipy raises errors of many kinds for a damaged file
        raise KdfastError(f'{source.path}: cannot read {name} ({e}): download it again') from e


def _load_variables(source, name, *variables):
    "Variables of a .mat file, in the given order"
    from scipy.io import loadmat

    found = _read_mat(source, name, lambda file: loadmat(file, variable_names=variables))
    missing = [variable for variable in variables if variable not in found]
    if missing:
        raise KdfastError(f'{source.path}: {name} has no variable {missing[0]}')
    return [found[variable] for variable in variables]


def _load_numbers(source, name, *variables):
    "Vectors of whole numbers in a .mat file"
    vectors = [np.ravel(found) for found in _load_variables(source, name, *variables)]
    for variable, vector in zip(variables, vectors):
        if vector.dtype.kind not in 'iuf' or not (vector % 1 == 0).all():
            raise KdfastError(f'{source.path}: {variable} in {name} are no whole numbers')
    return [vector.astype(np.int64).tolist() for vector in vectors]


def _read_svhn(source, files):
    check_complete(source, files, ['train_32x32.mat'])
    items = []
    for official, split in SVHN_SPLITS.items():
        if official not in files:
            continue
        name = files[official]
        (labels,) = _load_numbers(source, name, 'y')
        _check_svhn_shape(source, name, len(labels))
        digits = [str(label % 10) for label in labels]  # the label 10 stands for the digit 0
        items += make_items(split, digits, SvhnImages(source, name))
    if SVHN_EXTRA in files:
        source.notes.add('skipped, extra images', files[SVHN_EXTRA])
    note_others(source, files.values(), 'the official files of SVHN')
    return Listing('the official files of SVHN', items)


def _check_svhn_shape(source, name, n_labels):
    "Raise KdfastError if the images in a file are not as many as the labels"
    from scipy.io import whosmat

    shapes = {variable: shape for variable, shape, _ in _read_mat(source, name, whosmat)}
    if shapes.get('X') != (32, 32, 3, n_labels):
        raise KdfastError(
            f'{source.path}: {name} has {n_labels:,} labels, but images of shape {shapes.get("X")}: '
            f'expected (32, 32, 3, {n_labels})'
        )


class SvhnImages:
    "Images of a split of SVHN; all of them are in memory until the last one was read."

    def __init__(
        self,
        source: Source,  # Files of the data set
        name: str,  # Name of the file in it
    ):
        self.source = source
        self.name = name
        self.pixels = None

    def __call__(self, i):
        if self.pixels is None:
            (self.pixels,) = _load_variables(self.source, self.name, 'X')
        image = np.ascontiguousarray(self.pixels[..., i])
        if i == self.pixels.shape[-1] - 1:
            self.pixels = None
        return image


def _read_flowers(source, files):
    check_complete(source, files, FLOWERS_FILES)
    (labels,) = _load_numbers(source, files['imagelabels.mat'], 'labels')
    split_ids = _load_numbers(source, files['setid.mat'], *FLOWERS_SPLITS)
    name_of = find_official(source, (f'image_{number:05}.jpg' for number in range(1, len(labels) + 1)))
    items, missing = [], []
    for split, ids in zip(FLOWERS_SPLITS.values(), split_ids):
        for number in ids:
            official = f'image_{number:05}.jpg'
            if not 1 <= number <= len(labels):
                raise KdfastError(f'{source.path}: {official} is in setid.mat, but has no label in imagelabels.mat')
            name = name_of.get(official)
            if name:
                items.append(Item(name, split, f'{labels[number - 1]:03}', source.files[name]))
            else:
                missing.append(official)
    if missing:
        others = f' and {len(missing) - 1:,} more' if missing[1:] else ''
        raise KdfastError(
            f'{source.path}: no {missing[0]}{others}: unpack 102flowers.tgz beside imagelabels.mat and setid.mat'
        )
    note_others(source, [*files.values(), *(item.name for item in items)], 'the official files of Oxford 102 Flowers')
    return Listing('the official files of Oxford 102 Flowers', items)
