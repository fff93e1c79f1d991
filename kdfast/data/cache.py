"""Decoded data sets on disk, keyed by the identity of their source."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import numpy as np

from kdfast.core.atomic import sha256
from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError, listed
from kdfast.core.notes import print_note
from kdfast.core.once import create_folder_once
from kdfast.data.arrays import summarize
from kdfast.data.augment import default_augment
from kdfast.data.dataset import Data, presized_side
from kdfast.data.decode_choice import EACH_EPOCH, ONCE
from kdfast.data.duplicates import duplicate_notes
from kdfast.data.file_images import FileImages
from kdfast.data.layouts.base import unreadable
from kdfast.data.layouts.rows import is_table
from kdfast.data.layouts.splits import SPLIT_NAMES
from kdfast.data.naming import run_name, source_stamp

CACHE_VERSION = 4  # raised when the same files are read with other labels or splits
FACTS = ('name', 'size', 'origin', 'fingerprint')  # about all decoded images, and about those with labels
LABELED_FACTS = (*FACTS, 'classes', 'notes', 'range', 'skipped', 'about', 'mean', 'std')
LARGE_ARCHIVE = 2**26  # bytes; hashing more at every start would be felt


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
    how: str | None = None,  # once or each-epoch; None: by the space on the disk
    skip_broken: bool = False,  # Skip images that cannot be read
) -> Data:
    """Return the data set of an identity, decoded on first use into a folder of the cache.

    Raises KdfastError for images that cannot be read. Then the others are kept for `skip_broken`, but all of them are
    tried again without it: the reason may have gone, such as a missing plugin.
    """
    key = f'{CACHE_VERSION} {identity}' + (f' size={size}' if size else '')
    folder, readable = choose_folder(key, how), choose_folder(f'{key} readable', how)
    if skip_broken and not folder.exists():
        folder = readable
    if is_table_folder(folder):
        print_note(
            f'the images of {name} are decoded from their files in every epoch '
            f'(--decode {ONCE} writes them to the disk)'
        )
    readable = None if skip_broken else readable
    create_folder_once(
        folder, partial(fill_cache, name=name, decode_into=decode_into, size=size, path=path, readable=readable)
    )
    return load_cached(folder, size, path)


def choose_folder(
    key: str,  # Of the images
    how: str | None,  # once or each-epoch; None: as they are, or as the space on the disk decides
) -> Path:
    """Return the folder of a key.

    What was chosen by the user and not by the space on the disk may be in another one.
    """
    folder = cache_home() / short_digest(key)
    if how is None or folder.exists() and is_table_folder(folder) == (how == EACH_EPOCH):
        return folder
    return cache_home() / short_digest(f'{key} decode={how}') if folder.exists() or how == EACH_EPOCH else folder


def is_table_folder(
    folder: Path,  # Of the cache; it may not exist
) -> bool:
    "Return whether a folder of the cache has the places of images instead of their pixels."
    return (folder / 'train_places.npy').exists()


def fill_cache(
    folder: Path,  # An empty folder
    name: str,  # Of the data set
    decode_into: Callable,  # As of `load_or_decode`
    size: int | None,  # Side of the squares that networks receive
    path: Path | None = None,  # The source
    readable: Path | None = None,  # Where the others go if images cannot be read; None: those are skipped
) -> str:  # Fingerprint of the images
    """Decode into a folder, and write the facts about the images to data.json; print notes.

    If images were skipped, `check_skipped` prints them: at every start. Raises KdfastError for images that cannot be
    read, if there is a folder for the others.
    """
    facts = decode_into(folder, size and presized_side(size))
    train, valid, test = load_splits(folder, facts)
    if 'fingerprint' not in facts:
        facts |= summarize(facts['classes'], *((train, valid, test) if test else (train, valid)))
    facts['notes'] += duplicate_notes(folder, train, valid, test)
    facts |= dict(name=name, size=size, origin=recorded_origin(path) if path else {})
    (folder / 'data.json').write_text(json.dumps(facts, indent=1), 'utf-8')
    if facts['skipped'] and readable:
        shutil.rmtree(readable, ignore_errors=True)
        with suppress(OSError):  # of Windows, where the arrays are open: they are decoded again
            os.replace(folder, readable)
        raise unreadable(path or name, facts['about']['broken'])
    for note in [*([] if facts['skipped'] else facts['notes']), mirroring_note(default_augment(facts['classes']))]:
        print_note(note)
    return facts['fingerprint']


def origin(
    path: Path,  # Of the images
) -> dict:
    "Return where decoded images come from, and a stamp that tells later whether they have changed."
    return dict(source=str(path.resolve()), stamp=short_digest(source_stamp(path)))


def recorded_origin(
    path: Path,  # Of the images
) -> dict:
    "Return the origin of decoded images, of a large archive with its SHA-256."
    return origin(path) | (dict(sha256=archive_sha256(path)) if is_large_archive(path) else {})


def is_large_archive(
    path: Path,  # Of images
) -> bool:
    "Return whether images are in an archive that takes long to hash."
    return not path.is_dir() and not is_table(path) and path.stat().st_size >= LARGE_ARCHIVE


def archive_sha256(
    path: Path,  # An archive
) -> str:  # 64 hexadecimal digits
    """Return the SHA-256 of an archive.

    A large one that was decoded before is not read again, as long as its size and time are the same.
    """
    return _large_sha256(path, **origin(path)) if is_large_archive(path) else sha256(path)


@cache
def _large_sha256(path, source, stamp):
    "As recorded when the archive was decoded; else computed, once in a process"
    for file in cache_home().glob('*/data.json'):
        with suppress(OSError, ValueError, TypeError, LookupError):  # damaged, or of other images
            known = json.loads(file.read_text('utf-8'))['origin']
            if (known['source'], known['stamp']) == (source, stamp):
                return bytes.fromhex(known['sha256']).hex()
    return sha256(path)


def load_cached(
    folder: Path,  # Of the cache
    size: int | None,  # For which it was decoded
    path: Path | None = None,  # The source, if its images are decoded in every epoch; default: where it was
) -> Data:
    "Return the data set in a cache folder. Raises KdfastError if it is damaged or of another size."
    facts = read_facts(folder)
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
    train, valid, test = load_splits(folder, facts, path)
    facts.pop('table', None)
    return Data(
        run_name(name, size),
        train=train,
        valid=valid,
        test=test,
        augment=default_augment(facts['classes']),
        size=size,
        **facts,
    )


def read_facts(
    folder: Path,  # Of the cache
) -> dict:
    "Read the facts about decoded images. Raises KdfastError if the file is damaged."
    file = folder / 'data.json'
    try:
        facts = dict(json.loads(file.read_text('utf-8')))
        needed = LABELED_FACTS if facts.keys() & {'classes', 'about'} else FACTS
        missing = [name for name in needed if name not in facts]
        reason = missing and f'without {listed(missing)}'
    except (OSError, ValueError, TypeError) as e:
        reason = e
    if reason:
        raise KdfastError(f'{file} is damaged ({reason}): delete {folder}, and the images are decoded again')
    return facts


def load_splits(
    folder: Path,  # Of the cache
    facts: dict,  # Content of data.json
    path: Path | None = None,  # As of `load_cached`
) -> list[tuple | None]:
    """Return (images, labels) of train, valid and test; None for no split.

    The images are memory-mapped, or decoded in every epoch.
    """
    return [_load_split(folder, facts, path, split) for split in SPLIT_NAMES]


def _load_split(folder, facts, path, split):
    labels = folder / f'{split}_labels.npy'
    if not labels.exists():
        return None
    if 'table' not in facts:
        return np.load(folder / f'{split}_images.npy', mmap_mode='r'), np.load(labels)
    table = facts['table']
    root = Path(table['root']) if path is None else path.parent if is_table(path) else path
    return FileImages(folder, split, root, table['shape'], table['side'], facts['range']), np.load(labels)


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
