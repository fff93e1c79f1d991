"Write the decoded images of one split to a memory-mapped array."

import hashlib
from math import prod
from pathlib import Path

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.arrays import PixelSummary
from kdfast.data.bit_depth import scale_to_8bit
from kdfast.data.disk_space import check_disk_space
from kdfast.data.image_statistics import ImageStatistics
from kdfast.data.labels import has_class
from kdfast.data.layouts.base import Item, Source
from kdfast.data.layouts.splits import SPLIT_NAMES
from kdfast.data.pixels import DecodedImage

ROWS_COPIED = 256  # at once


class SizesDiffer(KdfastError):
    "The images have several sizes, and no size to scale them to was given."


class SplitWriter:
    """Writes <split>_images.npy and <split>_labels.npy.

    Rows are in the order of the names of the images, whatever the order in which they are written. Images of more than
    8 bits wait in a file until the range of values of all images is known.
    """

    def __init__(
        self,
        split: str,  # train, valid or test
        items: list[Item],  # All images of the split
        folder: Path,  # Where the arrays go
        classes: list[str],  # Names, in the order of the labels
        statistics: ImageStatistics,  # Of all splits; receives every image
        summary: PixelSummary,  # Of all splits; receives the pixels, as long as they arrive in the order of their rows
    ):
        self.folder = folder
        self.split = split
        self.items = items
        self.statistics = statistics
        self.summary = summary
        self.n_written = 0
        self.in_one_pass = True  # whether the summary has received all images as they will be read
        self.digests = np.zeros((len(items), hashlib.sha256().digest_size), np.uint8)
        self.shape = None  # height and width of the images
        self.row_of = {name: row for row, name in enumerate(sorted(item.name for item in items))}
        self.label_of = {name: label for label, name in enumerate(classes)}
        several = any(not isinstance(item.label, str) for item in items)
        self.labels = np.full((len(items), len(classes)), -1, np.int8) if several else np.full(len(items), -1, np.int64)
        # -1: not written
        self.file = folder / f'{split}_images.npy'
        self.deep_file = folder / f'{split}_deep.bin'
        self.deep_rows = []  # (row, shape) of each image in that file

    def write(
        self,
        item: Item,  # The image in its source
        image: DecodedImage,  # Its pixels
        found: tuple,  # (SHA-256 of the pixels, counts of their values or None)
        path: Path,  # Of the source, for errors
        n_images: int,  # Of all splits
    ):
        "Write an image. Raises KdfastError for a full disk, and SizesDiffer for an image of another size."
        height, width = image.pixels.shape[:2]
        if self.shape is None:
            self.shape = height, width
            self.begin(n_images)
            self.begin_summary()
        self._check_size(item, height, width, path)
        row = self.row_of[item.name]
        self.set_label(self.labels, row, item)
        self.statistics.add(item, image)
        self.store(row, image)
        self.summarize(row, image, *found)

    def begin_summary(self):
        "Begin the summary of the split, as if all of its images could be read."
        labels = np.empty_like(self.labels)
        for item in self.items:
            self.set_label(labels, self.row_of[item.name], item)
        self.summary.begin((len(self.items), *self.shape, 3), labels)

    def summarize(
        self,
        row: int,  # Of the image
        image: DecodedImage,  # Its pixels
        sha256: bytes,  # Of the pixels
        counts: np.ndarray | None,  # Of their values, if they are needed
    ):
        """Add an image to the summary.

        Not if another one should come first, or if its range of values is not known yet.
        """
        self.digests[row] = np.frombuffer(sha256, np.uint8)
        self.in_one_pass &= image.low is None and row == self.n_written
        self.n_written += 1
        if self.in_one_pass:
            self.summary.add(image.pixels, counts)

    def set_label(
        self,
        labels: np.ndarray,  # Of the split
        row: int,  # Of the image
        item: Item,  # The image in its source
    ):
        "Write the label of an image."
        if isinstance(item.label, str):
            labels[row] = self.label_of[item.label]
        else:
            labels[row] = 0
            labels[row, [self.label_of[name] for name in item.label]] = 1

    def begin(
        self,
        n_images: int,  # Of all splits
    ):
        "Create the file of the images. Raises KdfastError for a full disk."
        if self.statistics.first is None:
            check_disk_space(self.folder, n_images * prod(self.shape) * 3)
        images = np.lib.format.open_memmap(self.file, 'w+', np.uint8, (len(self.row_of), *self.shape, 3))
        self.offset, self.row_bytes = images.offset, images[:1].nbytes
        self.stream = open(self.file, 'r+b')  # written: a memory map would fault on each new page

    def store(
        self,
        row: int,  # Of the image
        image: DecodedImage,  # Its pixels
    ):
        "Write the pixels of an image. Raises KdfastError for a full disk."
        if image.low is None:
            self.stream.seek(self.offset + row * self.row_bytes)
            self.stream.write(np.ascontiguousarray(image.pixels))
            return
        if not self.deep_rows:
            check_disk_space(self.folder, len(self.row_of) * image.pixels.nbytes)
            self.deep_stream = open(self.deep_file, 'wb')
        self.deep_rows.append((row, image.pixels.shape))
        self.deep_stream.write(image.pixels.tobytes())

    def _check_size(self, item, height, width, path):
        self.statistics.first = self.statistics.first or (item.name, (height, width))
        name, shape = self.statistics.first
        if (height, width) != shape:
            raise SizesDiffer(
                f'{path}: images differ in size: {name} is {shape[1]}×{shape[0]}, {item.name} is {width}×{height}; '
                'scale them to one size, such as --size 128'
            )

    def finish(
        self,
        value_range: tuple[float, float] | None,  # Values of black and white for images of more than 8 bits
        source: Source,  # Files of the data set
    ):
        "Scale to 8 bits, remove missing rows, save labels. Raises KdfastError for an empty split or class."
        if self.shape is None:
            raise KdfastError(f'{source.path}: none of the {SPLIT_NAMES[self.split]} images can be read')
        rows = np.flatnonzero(self.labels.reshape(len(self.labels), -1)[:, 0] >= 0)  # whose images could be read
        self.in_one_pass &= len(rows) == len(self.labels)
        self.finish_images(rows, value_range)
        np.save(self.folder / f'{self.split}_labels.npy', self.labels)
        if self.split == 'train' and source.broken:
            empty = [name for name, label in self.label_of.items() if not has_class(self.labels, label).any()]
            if empty:
                raise KdfastError(f'{source.path}: no training image of {empty[0]} can be read')

    def finish_images(
        self,
        rows: np.ndarray,  # Of the images that could be read
        value_range: tuple[float, float] | None,  # As of `finish`
    ):
        "Scale images of more than 8 bits, remove missing rows, and save the SHA-256 of each image."
        self.stream.close()
        self.images = np.load(self.file, mmap_mode='r+')
        if self.deep_rows:
            self._scale_deep_images(value_range)
        if len(rows) < len(self.labels):
            self._keep_rows(rows)
        self.images.flush()
        if not self.deep_rows:
            np.save(self.folder / f'{self.split}_digests.npy', self.digests[rows])

    def _scale_deep_images(self, value_range):
        self.deep_stream.close()
        with open(self.deep_file, 'rb') as file:
            for row, shape in self.deep_rows:
                pixels = np.fromfile(file, np.float32, int(np.prod(shape))).reshape(shape)
                self.images[row] = scale_to_8bit(pixels, value_range)
        self.deep_file.unlink()

    def _keep_rows(self, rows):
        new_file = self.file.with_suffix('.new')
        images = np.lib.format.open_memmap(new_file, 'w+', np.uint8, (len(rows), *self.images.shape[1:]))
        for start in range(0, len(rows), ROWS_COPIED):
            images[start : start + ROWS_COPIED] = self.images[rows[start : start + ROWS_COPIED]]
        images.flush()
        new_file.replace(self.file)
        self.images, self.labels = images, self.labels[rows]

    def write_empty(
        self,
        split: str,  # train, valid or test
    ):
        "Write a split without images."
        self.summary.begin((0, *self.shape, 3), self.labels[:0])
        np.save(self.folder / f'{split}_images.npy', self.images[:0])
        np.save(self.folder / f'{split}_labels.npy', self.labels[:0])
