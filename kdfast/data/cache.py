"""Decoded data sets on disk, keyed by the identity of their source."""

import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.core.once import create_folder_once
from kdfast.data.arrays import digests
from kdfast.data.augment import default_augment
from kdfast.data.dataset import Data, assemble, presized_side
from kdfast.data.naming import run_name, source_stamp

CACHE_VERSION = 3


def short_digest(
    key: str,  # Any text
) -> str:  # 16 hexadecimal digits
    "Return a digest of a key, for names of files and folders."
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def load_or_decode(
    name: str,  # Of the data set
    identity: str,  # Changes with anything that the decoded images depend on, except for the size
    decode_into: Callable,  # Decode into a folder, given the folder and a side, and return facts
    size: int | None,  # Side of the squares that networks receive
    path: Path | None = None,  # The source, to find out later whether it has changed
) -> Data:
    "Return the data set of an identity, decoded on first use into a folder of the cache."
    key = f'{CACHE_VERSION} {identity}' + (f' size={size}' if size else '')
    folder = cache_home() / short_digest(key)
    create_folder_once(folder, partial(fill_cache, name=name, decode_into=decode_into, size=size, path=path))
    return load_cached(folder, size)


def fill_cache(
    folder: Path,  # An empty folder
    name: str,  # Of the data set
    decode_into: Callable,  # As of `load_or_decode`
    size: int | None,  # Side of the squares that networks receive
    path: Path | None = None,  # The source
) -> str:  # Fingerprint of the images
    "Decode into a folder, and write the facts about the images to data.json; print notes."
    facts = decode_into(folder, size and presized_side(size))
    data = assemble(name, facts['classes'], *(_load_split(folder, split) for split in ('train', 'valid', 'test')))
    facts['notes'] += _duplicate_notes(data)
    for note in [*facts['notes'], mirroring_note(data.augment)]:
        print(f'kdfast: {note}', file=sys.stderr)
    facts |= dict(
        name=name,
        size=size,
        origin=origin(path) if path else {},
        mean=data.mean,
        std=data.std,
        fingerprint=data.fingerprint,
    )
    (folder / 'data.json').write_text(json.dumps(facts, indent=1))
    return data.fingerprint


def origin(
    path: Path,  # Of the images
) -> dict:
    "Return where decoded images come from, and a stamp that tells later whether they have changed."
    return dict(source=str(path.resolve()), stamp=short_digest(source_stamp(path)))


def load_cached(
    folder: Path,  # Of the cache
    size: int | None,  # For which it was decoded
) -> Data:
    "Return the data set in a folder of the cache. Raises KdfastError if it was decoded for another size."
    facts = json.loads((folder / 'data.json').read_text())
    if 'classes' not in facts:
        raise KdfastError(f'{folder} holds images without labels: expected a data set with classes')
    name, decoded_size = facts.pop('name'), facts.pop('size')
    del facts['origin']
    if decoded_size != size:
        raise KdfastError(
            f'{folder} was decoded for --size {decoded_size}: expected that size, or the path of the original images'
        )
    with suppress(OSError):
        os.utime(folder)  # last use; the cache may be read-only
    train, valid, test = (_load_split(folder, split) for split in ('train', 'valid', 'test'))
    return Data(
        run_name(name, size),
        train=train,
        valid=valid,
        test=test,
        augment=default_augment(facts['classes']),
        size=size,
        **facts,
    )


def _load_split(folder, split):
    "(images, memory-mapped; labels), or None if there is no such split"
    file = folder / f'{split}_images.npy'
    return (np.load(file, mmap_mode='r'), np.load(folder / f'{split}_labels.npy')) if file.exists() else None


def _duplicate_notes(data):
    "Notes on images that occur more than once"
    splits = dict(training=data.train, validation=data.valid, test=data.test)
    found = {name: digests(split[0]) for name, split in splits.items() if split}
    train = found.pop('training')
    known, notes = set(train), []
    n = len(train) - len(known)
    if n:
        held_out = '' if len(data.valid[1]) else '; held-out images may be copies of them'
        notes.append(f'duplicates among the training images: {n:,} of {len(train):,}{held_out}')
    for split_name, held in found.items():
        n = sum(digest in known for digest in held)
        if n:
            notes.append(f'{split_name} images that are also training images: {n:,} of {len(held):,}')
    labels = defaultdict(set)
    for split_name, images in dict(training=train, **found).items():
        for digest, label in zip(images, splits[split_name][1]):
            labels[digest].add(label.tobytes())
    n = sum(len(different) > 1 for different in labels.values())
    if n:
        notes.append(f'images that occur with different labels: {n:,}')
    return notes


def mirroring_note(
    augment: str,  # shift or flip
) -> str:
    "Return the note on whether training mirrors images."
    if augment == 'flip':
        return 'training mirrors images at random; if left and right matter, turn this off with --augment shift'
    return (
        'training does not mirror images, because the classes seem to be sides, digits or letters; '
        'turn this on with --augment flip'
    )
