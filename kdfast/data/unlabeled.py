"Images without labels, to train features on besides a data set's own images."

import hashlib
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.core.notes import Notes
from kdfast.core.once import create_folder_once
from kdfast.data.archives import open_entries
from kdfast.data.arrangement import Arrangement
from kdfast.data.arrays import Joined
from kdfast.data.cache import CACHE_VERSION, short_digest
from kdfast.data.dataset import Data, presized_side
from kdfast.data.decode import Reading, decode_arrangement
from kdfast.data.layouts.base import Item, Source
from kdfast.data.naming import source_stamp


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
    images = load_unlabeled(Path(path).expanduser(), data)
    train, labels = data.train
    joined = Joined(train, images), np.concatenate([labels, np.zeros((len(images), *labels.shape[1:]), labels.dtype)])
    return replace(data, train=joined, batch_size=data.batch_size or None)


def load_unlabeled(
    path: Path,  # A folder or an archive
    like: Data,  # With the size of the images
) -> np.ndarray:  # (n, height, width, 3), uint8, memory-mapped
    "Decode all images of a folder or an archive. Raises KdfastError, as `with_unlabeled`."
    if not path.exists():
        raise KdfastError(f'--unlabeled {path}: no such folder or archive')
    side = presized_side(like.size) if like.size else None
    stamp = source_stamp(path) if path.is_dir() else f'{path.resolve()} {source_stamp(path)}'
    folder = cache_home() / short_digest(f'{CACHE_VERSION} unlabeled {stamp} side={side}')
    create_folder_once(folder, partial(fill, path=path, side=side))
    images = np.load(folder / 'train_images.npy', mmap_mode='r')
    expected = like.train[0].shape[1:3]
    if images.shape[1:3] != expected:
        (height, width), (own_height, own_width) = images.shape[1:3], expected
        raise KdfastError(
            f'--unlabeled {path}: the images are {width}×{height}, those of {like.name} {own_width}×{own_height}: '
            'bring both to one size, such as --size 128'
        )
    return images


def fill(
    folder: Path,  # An empty folder of the cache
    path: Path,  # A folder or an archive
    side: int | None,  # Scale images to squares of this side
) -> str:  # Identity of the content
    "Decode all images of a folder or an archive, whatever its subfolders are."
    notes = Notes()
    with open_entries(path, notes) as files:
        source = Source(path, files, notes, skip_broken=True)
        items = [Item(name, 'train', '', files[name]) for name in source.images]
        if not items:
            raise KdfastError(f'--unlabeled {path}: no image found')
        arrangement = Arrangement(dict(train=items, valid=[]), [''], 'images without labels', '')
        facts = decode_arrangement(source, arrangement, Reading(skip_broken=True), folder, side)
    for note in facts['notes']:
        print(f'kdfast: {path}: {note}', file=sys.stderr)
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()
