"Images without labels, to train features on besides a data set's own images."

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.core.notes import Notes, print_note
from kdfast.core.once import create_folder_once
from kdfast.data.archives import open_entries
from kdfast.data.arrangement import Arrangement
from kdfast.data.arrays import Joined, summarize
from kdfast.data.cache import CACHE_VERSION, choose_folder, load_splits, origin, read_facts
from kdfast.data.dataloaders import batch_size
from kdfast.data.dataset import Data, presized_side
from kdfast.data.decode import Reading, decode_arrangement
from kdfast.data.layouts.base import Item, Source, unreadable
from kdfast.data.naming import dataset_name, source_stamp


def with_unlabeled(
    data: Data,  # With labels
    path: str,  # A folder or an archive of images, in any subfolders; empty for none
) -> Data:
    """Return a data set whose training images are followed by images without labels; their labels are 0.

    They are decoded to the size of the data set's own images on first use, and memory-mapped from the cache. Raises
    KdfastError for a missing path, one without images, and images that cannot be read or have another size.
    """
    if not path:
        return data
    images, _ = load_unlabeled(path, data)
    train, labels = data.train
    joined = Joined(train, images), np.concatenate([labels, np.zeros((len(images), *labels.shape[1:]), labels.dtype)])
    return replace(data, train=joined, batch_size=batch_size(data))


def load_unlabeled(
    source: str,  # A folder or an archive
    like: Data,  # Whose images they are to join
) -> tuple[np.ndarray, str]:  # (n, height, width, 3), uint8, memory-mapped; SHA-256 of the pixels
    "Decode all images of a folder or an archive. Raises KdfastError, as `with_unlabeled`."
    path = Path(source).expanduser()
    if not path.exists():
        raise KdfastError(f'--unlabeled {path}: no such folder or archive')
    value_range = ':'.join(f'{value:g}' for value in like.range) if like.range else None
    options = like.load_arguments or {}
    how = options.get('decode')
    reading = Reading(range=value_range, skip_broken=bool(options.get('skip_broken')), decode=how)
    stamp = source_stamp(path) if path.is_dir() else f'{path.resolve()} {source_stamp(path)}'
    key = f'{CACHE_VERSION} unlabeled {stamp}{reading.key} size={like.size} broken={reading.skip_broken}'
    folder = choose_folder(key, how)
    create_folder_once(folder, partial(fill, path=path, reading=reading, size=like.size))
    facts = read_facts(folder)
    images = load_splits(folder, facts, path)[0][0]
    expected = like.train[0].shape[1:3]
    if images.shape[1:3] != expected:
        (height, width), (own_height, own_width) = images.shape[1:3], expected
        raise KdfastError(
            f'--unlabeled {path}: the images are {width}×{height}, those of {like.name} {own_width}×{own_height}: '
            'bring both to one size, such as --size 128'
        )
    return images, facts['fingerprint']


def fill(
    folder: Path,  # An empty folder of the cache
    path: Path,  # A folder or an archive
    reading: Reading,  # How to read the images
    size: int | None,  # Side of the squares that networks receive
):
    "Decode all images of a folder or an archive, whatever its subfolders are, and write data.json."
    notes = Notes()
    with open_entries(path, notes) as files:
        source = Source(path, files, notes, skip_broken=reading.skip_broken)
        items = [Item(name, 'train', '', files[name]) for name in source.images]
        if not items:
            raise KdfastError(f'--unlabeled {path}: no image found')
        arrangement = Arrangement(dict(train=items, valid=[]), [''], 'images without labels', '')
        facts = decode_arrangement(source, arrangement, reading, folder, size and presized_side(size))
    if facts['skipped'] and not reading.skip_broken:
        raise unreadable(f'--unlabeled {path}', facts['about']['broken'])
    for note in facts['notes']:
        print_note(f'{path}: {note}')
    described = dict(name=f'{dataset_name(path)}, without labels', size=size, origin=origin(path))
    described |= {name: facts[name] for name in ('table', 'range') if name in facts}
    described['fingerprint'] = summarize([], load_splits(folder, facts, path)[0])['fingerprint']
    (folder / 'data.json').write_text(json.dumps(described), 'utf-8')
