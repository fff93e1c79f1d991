"Images that are decoded whenever they are needed, indexed like an array of decoded ones."

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.arrays import Rows, digest
from kdfast.data.bit_depth import scale_to_8bit
from kdfast.data.decoding_threads import decoding_threads
from kdfast.data.image_table import ImageTable, read_table
from kdfast.data.pixels import decode_image


class FileImages:
    """The images of one split, (n, height, width, 3), uint8, decoded from their files by every index.

    Their pixels are compared with those of the first time, by SHA-256. Raises KdfastError, with the name of the file,
    if an image has changed or is gone.
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(
        self,
        folder: Path,  # Of the cache, with the table of the split
        split: str,  # train, valid or test
        root: Path,  # The folder or the archive
        shape: list[int],  # Height and width
        side: int | None,  # Scale images to squares of this side, as the first time
        value_range: list[float] | None,  # Values of black and white, for images of more than 8 bits
    ):
        self.folder = folder
        self.root = root
        self.table: ImageTable = read_table(folder, split)
        self.shape = (len(self.table.ends), *shape, 3)
        self.side = side
        self.value_range = value_range
        self.rows = Rows(Decoder(self), np.arange(len(self)))

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.rows, dtype)

    def __getitem__(self, index):
        "Decode the images that an index selects, as in NumPy."
        return self.rows[index]

    def decode(
        self,
        row: int,  # Of an image
    ) -> np.ndarray:  # (height, width, 3), uint8
        "Decode an image. Raises KdfastError if it has changed or cannot be read."
        image = decode_image(self.table.read(self.root, row), self.side)
        problem = image.problem
        if not problem:
            if digest(image.pixels) == self.table.digests[row].tobytes():
                return image.pixels if image.low is None else scale_to_8bit(image.pixels, self.value_range)
            problem = 'it has other pixels'
        raise KdfastError(
            f'{self.root}: {self.table.name(row)} has changed since it was read first ({problem}): '
            'restore it, and start again to resume'
        )


class Decoder:
    "The rows of images that an array of row numbers selects, decoded in several threads."

    ndim, dtype = FileImages.ndim, FileImages.dtype

    def __init__(
        self,
        images: FileImages,  # All images
    ):
        self.images = images
        self.shape = images.shape

    def __getitem__(self, rows):
        decoded = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def decode(i):
            decoded[i] = self.images.decode(int(rows[i]))

        for _ in thread_pool(os.getpid(), decoding_threads()).map(decode, range(len(rows))):
            pass
        return decoded


@cache
def thread_pool(
    pid: int,  # Of this process: threads do not survive a fork
    n: int,  # Threads
) -> ThreadPoolExecutor:
    "Return the threads of a process that decode images."
    return ThreadPoolExecutor(n, 'kdfast-decode')


def is_decoded_from_files(
    images,  # Of a split: FileImages, or an array
) -> bool:
    "Return whether each index decodes images, also in rows or parts of others."
    parts = getattr(images, 'parts', None) or [getattr(images, 'array', None)]
    return isinstance(images, FileImages) or any(is_decoded_from_files(part) for part in parts if part is not None)
