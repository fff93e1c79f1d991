"Data sets of Python: a pandas DataFrame, arrays, a torch.utils.data.Dataset. Decoded into the cache, like any other."

import os
import platform
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

from kdfast.core.cache_home import cache_home
from kdfast.core.once import NEW
from kdfast.data.cache import CACHE_VERSION, decoded_before, fill_cache, short_digest
from kdfast.data.dataset import Data
from kdfast.data.decode import Reading, decode_listing
from kdfast.data.layouts import datasets, table
from kdfast.data.layouts.arrays import Pairs
from kdfast.data.sources import adjusted, check_options


def from_frame(
    frame,  # A pandas DataFrame: a row an image, with columns of file names, labels and, if you like, splits
    folder: str | Path = '.',  # What the file names are relative to
    name: str = 'frame',  # Of the data set, which names its runs
    columns: str | None = None,  # name=COLUMN,label=COLUMN,split=COLUMN, where the names of the columns do not tell
    **options,  # Others of `kdfast.data.load`
) -> Data:
    "Images that a DataFrame names. Raises KdfastError, naming the rows, for missing files and labels."
    return keep(name, partial(table.of_frame, frame, Path(folder)), columns=columns, **options)


def from_arrays(
    train: tuple,  # Images (n, height, width[, channels]) or (n, channels, height, width), and their labels (n,)
    valid: tuple | None = None,  # The same; a fifth of each class is held out, unless given
    test: tuple | None = None,  # The same; kept apart
    classes: list[str] | None = None,  # Names of the classes, in the order of their numbers
    name: str = 'arrays',  # Of the data set, which names its runs
    **options,  # Others of `kdfast.data.load`
) -> Data:
    "Images and labels that are arrays, mapped from a file or in memory."

    def listing(source):
        return datasets.listing(
            {split: Pairs(*pair, f'{source.path}: {split}', source.notes) for split, pair in given(train, valid, test)},
            classes,
            source,
        )

    return keep(name, listing, **options)


def from_dataset(
    train,  # A map-style torch.utils.data.Dataset of (image, label), or one of Hugging Face, without random transforms
    valid=None,  # The same; a fifth of each class is held out, unless given
    test=None,  # The same; kept apart
    classes: list[str] | None = None,  # Names in the order of their numbers, where the data set does not have them
    name: str = 'dataset',  # Of the data set, which names its runs
    **options,  # Others of `kdfast.data.load`
) -> Data:
    "Every image of a Dataset, read once; kdfast augments and normalizes."
    return keep(name, partial(datasets.listing, dict(given(train, valid, test)), classes), **options)


def given(train, valid, test):
    return [(split, value) for split, value in dict(train=train, valid=valid, test=test).items() if value is not None]


def keep(
    name,
    listing,
    size=None,
    holdout=0.0,
    grow=1.0,
    augment=None,
    columns=None,
    range=None,
    batch_size=None,
    skip_broken=False,
):
    "Decode into a folder of the cache that is called after what it holds; the command line takes its path, too"
    check_options(holdout, size, grow, augment, batch_size)

    def decode(folder, side):
        reading = Reading(columns, range, skip_broken)
        return decode_listing(Path(name), listing, reading, folder, side)

    home = cache_home()
    home.mkdir(parents=True, exist_ok=True)
    new = (
        home / f'{NEW}{short_digest(name)}-{platform.node()}-{os.getpid()}'
    )  # removed by the next process, should this one be killed
    new.mkdir()
    try:
        folder = home / short_digest(f'{CACHE_VERSION} {name} {fill_cache(new, name, decode, size)} size={size}')
        if not folder.exists():
            os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    made = adjusted(decoded_before(folder, size), holdout, grow, augment, batch_size)
    return replace(
        made,
        asked=dict(
            source=str(folder),
            holdout=holdout,
            size=size,
            grow=grow,
            augment=augment,
            batch_size=batch_size,
            skip_broken=skip_broken,
        ),
    )
