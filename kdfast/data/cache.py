"""Decoded data sets on disk, keyed by what they were decoded from."""

import hashlib
import json
import os
import sys
from contextlib import suppress
from functools import partial

import numpy as np

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.core.once import create_folder_once
from kdfast.data import augment
from kdfast.data.arrays import digests
from kdfast.data.dataset import Data, assemble, presized_side
from kdfast.data.naming import run_name, source_stamp

CACHE_VERSION = 3


def short_digest(key):
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def cached_dataset(name, identity, decode_into, size, path=None):
    "The decoded data set of that identity; decoded into a new folder first, which appears whole or not at all"
    key = f'{CACHE_VERSION} {identity}' + (f' size={size}' if size else '')
    folder = cache_home() / short_digest(key)
    create_folder_once(folder, partial(fill_cache, name=name, decode_into=decode_into, size=size, path=path))
    return decoded_before(folder, size)


def fill_cache(folder, name, decode_into, size, path=None):
    "Decode into a folder, and write beside the arrays what is known of them"
    origin = dict(source=str(path.resolve()), stamp=short_digest(source_stamp(path))) if path else {}
    facts = decode_into(folder, size and presized_side(size))
    data = assemble(name, facts['classes'], *(mapped_split(folder, split) for split in ('train', 'valid', 'test')))
    facts['notes'] += duplicate_notes(data)
    for note in [*facts['notes'], mirroring_note(data.augment)]:
        print(f'kdfast: {note}', file=sys.stderr)
    facts |= dict(name=name, size=size, origin=origin, mean=data.mean, std=data.std, fingerprint=data.fingerprint)
    (folder / 'data.json').write_text(json.dumps(facts, indent=1))
    return data.fingerprint


def decoded_before(folder, size):
    "The data set in a folder of the cache"
    facts = json.loads((folder / 'data.json').read_text())
    name, made, _ = facts.pop('name'), facts.pop('size'), facts.pop('origin')
    if made != size:
        raise KdfastError(
            f'{folder} was decoded for --size {made}: expected that size, or the images it was decoded from'
        )
    with suppress(OSError):
        os.utime(folder)  # when it was last used, where that can be written
    train, valid, test = (mapped_split(folder, split) for split in ('train', 'valid', 'test'))
    return Data(
        run_name(name, size),
        train=train,
        valid=valid,
        test=test,
        augment=augment.default(facts['classes']),
        size=size,
        **facts,
    )


def duplicate_notes(data):
    "Notes where images are there more than once"
    train = digests(data.train[0])
    seen, notes = set(train), []
    n = len(train) - len(seen)
    if n:
        notes.append(
            f'training images that are there more than once: {n:,} of {len(train):,}'
            + ('' if len(data.valid[1]) else '; held-out images may be copies of them')
        )
    for what, split in (('validation', data.valid), ('test', data.test)):
        n = sum(digest in seen for digest in digests(split[0])) if split else 0
        if n:
            notes.append(f'{what} images that are training images, too: {n:,} of {len(split[1]):,}')
    return notes


def mirroring_note(augment):
    "What training does to left and right"
    if augment == 'flip':
        return 'training mirrors images at random; where left and right matter, turn that off with --augment shift'
    return 'training does not mirror images, whose classes seem to be sides, digits or letters; --augment flip would'


def mapped_split(folder, split):
    "Images, mapped, and labels; None where there is no such split"
    file = folder / f'{split}_images.npy'
    return (np.load(file, mmap_mode='r'), np.load(folder / f'{split}_labels.npy')) if file.exists() else None
