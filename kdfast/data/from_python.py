"Load data sets from Python objects: a pandas DataFrame, arrays, a torch.utils.data.Dataset."

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.core.once import fill_new, remove_abandoned
from kdfast.data.cache import CACHE_VERSION, fill_cache, load_cached, read_facts, short_digest
from kdfast.data.dataset import Data
from kdfast.data.decode import Reading, decode_listing
from kdfast.data.decode_choice import check_choice
from kdfast.data.labels import check_kind
from kdfast.data.layouts import datasets, table
from kdfast.data.layouts.arrays import ArrayPair
from kdfast.data.sources import apply_options, check_options, check_skipped


def from_frame(
    frame,  # A pandas DataFrame: one row per image, with columns of file names, labels and, optionally, splits
    folder: str | Path = '.',  # File names are relative to it
    name: str = 'frame',  # Of the data set and the directory of its runs
    columns: str | None = None,  # name=COLUMN,label=COLUMN,split=COLUMN, if the names of the columns are not usual
    **options,  # Others of `kdfast.data.load`
) -> Data:
    "Load images that a DataFrame names. Raises KdfastError, with the rows, for missing files and labels."
    return _decode_into_cache(name, partial(table.list_frame, frame, Path(folder)), columns=columns, **options)


def from_arrays(
    train: tuple,  # Images (n, height, width[, channels]) or (n, channels, height, width), and their labels (n,), or
    # (n, classes) of 0 and 1 with labels='several'
    valid: tuple | None = None,  # The same; default: a fifth of each class is held out
    test: tuple | None = None,  # The same; evaluated after training only
    classes: list[str] | None = None,  # Names of the classes, in the order of their numbers
    name: str = 'arrays',  # Of the data set and the directory of its runs
    **options,  # Others of `kdfast.data.load`
) -> Data:
    "Load arrays of images and labels. Raises KdfastError for arrays that do not match."
    given = _present(train, valid, test)
    for split, arrays in given.items():
        if not isinstance(arrays, tuple | list) or len(arrays) != 2:
            raise KdfastError(f'{name}: {split} is {type(arrays).__name__}, expected a pair ({split}_images, labels)')

    def listing(source):
        pairs = {
            split: ArrayPair(*arrays, f'{source.path}: {split}', source.notes, source.several)
            for split, arrays in given.items()
        }
        return datasets.list_datasets(pairs, classes, source)

    return _decode_into_cache(name, listing, **options)


def from_dataset(
    train,  # A map-style torch.utils.data.Dataset of (image, label), or one of Hugging Face, without random transforms
    valid=None,  # The same; default: a fifth of each class is held out
    test=None,  # The same; evaluated after training only
    classes: list[str] | None = None,  # Names in the order of their numbers, if the data set does not have them
    name: str = 'dataset',  # Of the data set and the directory of its runs
    **options,  # Others of `kdfast.data.load`
) -> Data:
    "Load every image of a Dataset, not augmented or normalized. Raises KdfastError for other items."
    return _decode_into_cache(name, partial(datasets.list_datasets, _present(train, valid, test), classes), **options)


def _present(train, valid, test):
    "The splits that are given, by name"
    splits = dict(train=train, valid=valid, test=test)
    return {split: value for split, value in splits.items() if value is not None}


def _decode_into_cache(
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
    labels=None,
    resplit=None,
    decode=None,
):
    "Decode into a folder of the cache, which --data accepts as a path"
    check_options(holdout, size, grow, augment, batch_size)
    check_kind(labels)
    check_choice(decode)
    reading = Reading(columns, range, skip_broken, labels, decode)

    def decode_into(folder, side):
        return decode_listing(Path(name), listing, reading, folder, side)

    folder = _fill_folder(name, decode_into, size)
    data = load_cached(folder, size)
    check_skipped(data, name, skip_broken)
    data = apply_options(data, holdout, grow, augment, batch_size, resplit)
    arguments = dict(
        source=str(folder),
        holdout=holdout,
        size=size,
        grow=grow,
        augment=augment,
        batch_size=batch_size,
        skip_broken=skip_broken,
        resplit=resplit,
        decode=decode,
    )
    return replace(data, load_arguments=arguments)


def _fill_folder(name, decode_into, size):
    "The folder of the cache; its name depends on all that is known of the images, also the notes of this call"
    home = cache_home()
    home.mkdir(parents=True, exist_ok=True)
    remove_abandoned(home)

    def name_of(new):
        return home / short_digest(f'{CACHE_VERSION} {json.dumps(read_facts(new), sort_keys=True)}')

    fill = partial(fill_cache, name=name, decode_into=decode_into, size=size)
    return fill_new(home, short_digest(name), fill, name_of)
