"Choose whether images are decoded once, to arrays on the disk, or in every epoch, from their files."

import shutil
from math import prod
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.core.format import size_text
from kdfast.core.notes import say
from kdfast.data.arrangement import Arrangement
from kdfast.data.files import READ_ERRORS
from kdfast.data.layouts.base import Item, Source
from kdfast.data.pixels import read_size
from kdfast.data.places import place_of

ONCE, EACH_EPOCH = 'once', 'each-epoch'  # values of --decode
SHARE = 3 / 4  # of the free space of the disk that decoded images may take


def check_choice(
    decode: str | None,  # Value of --decode
):
    "Raise KdfastError for an unknown value."
    if decode not in (None, ONCE, EACH_EPOCH):
        raise KdfastError(f'--decode {decode}: expected {ONCE} or {EACH_EPOCH}')


def decode_each_epoch(
    decode: str | None,  # Value of --decode; None: each epoch if the disk has too little space for arrays
    source: Source,  # Files of the data set
    arrangement: Arrangement,  # Its images
    folder: Path,  # Of the cache
    side: int | None,  # Scale images to squares of this side
) -> bool:
    """Return whether to decode images in every epoch, and print why.

    Raises KdfastError if that is wanted and impossible.
    """
    if decode == ONCE:
        return False
    items = [item for split in arrangement.splits.values() for item in split]
    fixed = next((item.name for item in items if place_of(item.open) is None), None)
    if decode == EACH_EPOCH and fixed is not None:
        raise KdfastError(
            f'--decode {EACH_EPOCH}: {source.path} cannot be read at random ({arrangement.layout}, {fixed}): expected '
            'image files in a folder, a .zip, a .tar that is not compressed, or shards'
        )
    if decode == EACH_EPOCH:
        return True
    if fixed is not None:
        return False
    n_bytes, free = decoded_bytes(items, side), shutil.disk_usage(folder).free
    if n_bytes <= SHARE * free:
        return False
    say(
        f'decoded, the images of {source.path} would take {size_text(n_bytes)} of the {size_text(free)} '
        f'free in {folder.parent}: they are decoded from their files in every epoch '
        f'(--decode {ONCE} writes them to the disk)'
    )
    return True


def decoded_bytes(
    items: list[Item],  # All images
    side: int | None,  # Scale images to squares of this side
) -> int:
    "Return the size of the decoded images; all have the size of the first one that can be read."
    shape = (side, side) if side else next(filter(None, map(size_of, items)), (0, 0))
    return len(items) * prod(shape) * 3


def size_of(
    item: Item,  # An image
) -> tuple[int, int] | None:  # Width and height
    "Return the size of an image without decoding it; None if it cannot be read."
    try:
        return read_size(item.open())
    except READ_ERRORS:
        return None  # decoding will report it
