"Official files with MATLAB arrays: SVHN, Oxford 102 Flowers."

from posixpath import basename

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.arrays import make_items
from kdfast.data.layouts.base import Item, Listing, Source

PRIORITY = 60  # before folders: the images of Oxford 102 Flowers lie in one folder
SVHN_SPLITS = {'train_32x32.mat': 'train', 'test_32x32.mat': 'test'}
FLOWERS_SPLITS = dict(trnid='train', valid='valid', tstid='test')


def matches(
    source: Source,  # Files of the data set
) -> bool:
    "Return whether the files have the official names."
    names = _full_names(source)
    return any(name in SVHN_SPLITS for name in names) or {'imagelabels.mat', 'setid.mat'} <= names.keys()


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images of the official files. Raises KdfastError for missing files and variables."
    return _read_flowers(source) if 'setid.mat' in _full_names(source) else _read_svhn(source)


def _full_names(source):
    "Names in the source by the name of the file alone"
    return {basename(name): name for name in source.files}


def _load_variables(source, name, *variables):
    "Variables of a .mat file, in the given order"
    from scipy.io import loadmat

    try:
        with source.files[name]() as file:
            found = loadmat(file, variable_names=variables)
    except (ValueError, TypeError, OSError, NotImplementedError, EOFError, KeyError) as e:
        raise KdfastError(f'{source.path}: cannot read {name} ({e})') from e
    missing = [variable for variable in variables if variable not in found]
    if missing:
        raise KdfastError(f'{source.path}: {name} has no variable {missing[0]}')
    return [found[variable] for variable in variables]


def _read_svhn(source):
    names = _full_names(source)
    items = []
    for file, split in SVHN_SPLITS.items():
        if file not in names:
            continue
        (labels,) = _load_variables(source, names[file], 'y')
        digits = [str(int(label) % 10) for label in labels.ravel()]  # the label 10 stands for the digit 0
        items += make_items(split, digits, SvhnImages(source, names[file]))
    if 'extra_32x32.mat' in names:
        source.notes.add('skipped, extra images', names['extra_32x32.mat'])
    return Listing('the official files of SVHN', items)


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


def _read_flowers(source):
    names = _full_names(source)
    (labels,) = _load_variables(source, names['imagelabels.mat'], 'labels')
    split_ids = _load_variables(source, names['setid.mat'], *FLOWERS_SPLITS)
    labels, items, missing = labels.ravel(), [], []
    for split, ids in zip(FLOWERS_SPLITS.values(), split_ids):
        for number in ids.ravel().tolist():
            name = names.get(f'image_{number:05}.jpg')
            if name:
                items.append(Item(name, split, f'{labels[number - 1]:03}', source.files[name]))
            else:
                missing.append(f'image_{number:05}.jpg')
    if missing:
        others = f' and {len(missing) - 1:,} more' if missing[1:] else ''
        raise KdfastError(
            f'{source.path}: no {missing[0]}{others}: unpack 102flowers.tgz beside imagelabels.mat and setid.mat'
        )
    return Listing('the official files of Oxford 102 Flowers', items)
