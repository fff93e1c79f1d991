"Official files of published data sets with MATLAB arrays: SVHN, and the flowers of Oxford."

from functools import partial
from pathlib import PurePosixPath

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.arrays import numbered
from kdfast.data.layouts.base import Item, Listing, Source

SVHN = {'train_32x32.mat': 'train', 'test_32x32.mat': 'test'}
FLOWERS = dict(trnid='train', valid='valid', tstid='test')


def matches(source: Source) -> bool:
    return any(name in SVHN for name in by_name(source)) or {'imagelabels.mat', 'setid.mat'} <= by_name(source).keys()


def by_name(source):
    return {PurePosixPath(name).name: name for name in source.files}


def read(source: Source) -> Listing:
    return read_flowers(source) if 'setid.mat' in by_name(source) else read_svhn(source)


def load(source, name, *variables):
    "Some variables of a file"
    from scipy.io import loadmat

    try:
        with source.files[name]() as f:
            found = loadmat(f, variable_names=variables)
    except (ValueError, TypeError, OSError, NotImplementedError, EOFError, KeyError) as e:
        raise KdfastError(f'{source.path}: {name} cannot be read ({e})') from e
    missing = [variable for variable in variables if variable not in found]
    if missing:
        raise KdfastError(f'{source.path}: {name} has no {missing[0]}')
    return [found[variable] for variable in variables]


def read_svhn(source):
    items = []
    for file, split in SVHN.items():
        name = by_name(source).get(file)
        if not name:
            continue
        (labels,) = load(source, name, 'y')
        # 10 is the digit 0
        items += numbered(split, [str(int(label) % 10) for label in labels.ravel()], Images(source, name))
    if 'extra_32x32.mat' in by_name(source):
        source.notes.add('left out, extra images', by_name(source)['extra_32x32.mat'])
    return Listing('the official files of SVHN', items)


class Images:
    "Opens the images of a split, which are in memory while it is read."

    def __init__(self, source, name):
        self.load, self.pixels = partial(load, source, name, 'X'), None

    def __call__(self, i):
        if self.pixels is None:
            (self.pixels,) = self.load()
        image = np.ascontiguousarray(self.pixels[..., i])
        if i == self.pixels.shape[-1] - 1:
            self.pixels = None
        return image


def read_flowers(source):
    names = by_name(source)
    (labels,), splits = load(source, names['imagelabels.mat'], 'labels'), load(source, names['setid.mat'], *FLOWERS)
    labels, items, missing = labels.ravel(), [], []
    for split, ids in zip(FLOWERS.values(), splits):
        for number in ids.ravel().tolist():
            name = names.get(f'image_{number:05}.jpg')
            if name:
                items.append(Item(name, split, f'{labels[number - 1]:03}', source.files[name]))
            else:
                missing.append(f'image_{number:05}.jpg')
    if missing:
        raise KdfastError(
            f'{source.path}: no {missing[0]}'
            + (f' and {len(missing) - 1:,} more' if missing[1:] else '')
            + ': unpack 102flowers.tgz beside imagelabels.mat and setid.mat'
        )
    return Listing('the official files of Oxford 102 Flowers', items)
