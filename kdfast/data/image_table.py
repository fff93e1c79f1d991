"""The table of images that are decoded in every epoch: names, places and SHA-256 of their pixels.

It is read as it lies on the disk, so that a million images take no time to load.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdfast.data.places import Place, read_place

COLUMNS = ('names', 'ends', 'places', 'digests')


class ImageTable(NamedTuple):
    "The images of one split, as columns."

    names: np.ndarray  # (bytes,), uint8: all names, one after the other
    ends: np.ndarray  # (n,), int64: where each name ends
    places: np.ndarray  # (n, 4), int64: number of the file, start, size and packing, as of Place
    digests: np.ndarray  # (n, 32), uint8: SHA-256 of the pixels as decoded
    files: list[str]  # Archives and shards, relative to the data set; '': files named like images

    def name(
        self,
        row: int,  # Of an image
    ) -> str:
        "Return the name of an image."
        return bytes(self.names[self.ends[row - 1] if row else 0 : self.ends[row]]).decode(errors='surrogateescape')

    def read(
        self,
        root: Path,  # The folder or the archive
        row: int,  # Of an image
    ) -> bytes | Exception:
        "Return the file of an image, or the error."
        number, start, size, packing = self.places[row].tolist()
        return read_place(root / (self.files[number] or self.name(row)), start, size, packing)


def write_table(
    folder: Path,  # Of the cache
    split: str,  # train, valid or test
    names: Sequence[str],  # Of the images, sorted
    places: Sequence[Place],  # Of the images
    digests: np.ndarray,  # (n, 32), uint8
    root: Path,  # The folder or the archive
):
    "Write the table of a split."
    encoded = [name.encode(errors='surrogateescape') for name in names]
    number_of = {path: number for number, path in enumerate(dict.fromkeys(place.path for place in places))}
    columns = dict(
        names=np.frombuffer(b''.join(encoded), np.uint8),
        ends=np.cumsum([len(name) for name in encoded], dtype=np.int64),
        places=np.array([(number_of[path], *rest) for path, *rest in places], np.int64).reshape(-1, 4),
        digests=digests,
    )
    for column, values in columns.items():
        np.save(folder / f'{split}_{column}.npy', values)
    files = [path and _relative(path, root) for path in number_of]
    (folder / f'{split}_files.json').write_text(json.dumps(files), 'utf-8')


def _relative(path, root):
    "The path of a file in a data set, '.' for the data set itself; an absolute path outside of it"
    path, root = (Path(os.path.abspath(p)) for p in (path, root))
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def read_table(
    folder: Path,  # Of the cache
    split: str,  # train, valid or test
) -> ImageTable:
    "Open the table of a split."
    columns = (np.load(folder / f'{split}_{column}.npy', mmap_mode='r') for column in COLUMNS)
    return ImageTable(*map(np.asarray, columns), json.loads((folder / f'{split}_files.json').read_text('utf-8')))
