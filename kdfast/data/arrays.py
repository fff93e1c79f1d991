"Arrays of images that may be larger than memory: rows of an array, statistics, fingerprints."

import hashlib
import json
import math

import numpy as np
from PIL import Image

ROWS = 256  # images that are read at once


class Rows:
    "Some rows of an array, indexed as in NumPy; only the rows that an index selects are read."

    def __init__(
        self,
        array: np.ndarray,  # (n, …)
        rows: np.ndarray,  # Indices of the rows, in their order
    ):
        self.array = array
        self.rows = rows
        self.shape = (len(rows), *array.shape[1:])
        self.dtype = array.dtype
        self.ndim = array.ndim

    def __len__(self):
        return len(self.rows)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array[self.rows], dtype)

    def __getitem__(self, index):
        "Read the rows that the first index selects, and apply the rest of the index to them"
        first, rest = _split_index(index if isinstance(index, tuple) else (index,), self.ndim)
        if isinstance(first, slice):
            return self.array[self.rows[first]][(slice(None), *rest)]
        if first is None:
            return np.asarray(self)[index]
        selected = np.asarray(self.rows[first])
        if not selected.ndim:
            return self.array[selected[None]][(0, *rest)]
        positions = np.arange(selected.size).reshape(selected.shape)
        return self.array[selected.reshape(-1)][(positions, *rest)]


class Joined:
    "Two arrays of images one after the other; an index reads only what it selects."

    ndim = 4

    def __init__(
        self,
        first: np.ndarray | Rows,  # (n, height, width, 3)
        second: np.ndarray | Rows,  # (m, height, width, 3)
    ):
        self.parts = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])
        self.dtype = first.dtype

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return np.concatenate([np.asarray(part, dtype) for part in self.parts])

    def __getitem__(self, index):
        "Read the images that an index, a slice, or a list of indices selects."
        rows = np.arange(len(self))[index]
        n, flat = len(self.parts[0]), np.atleast_1d(rows)
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for part, inside, start in ((self.parts[0], flat < n, 0), (self.parts[1], flat >= n, n)):
            if inside.any():
                found[inside] = part[flat[inside] - start]
        return found if np.ndim(rows) else found[0]


def _split_index(index, ndim):
    "(index of the first axis, index of the others); (None, ()) if they cannot be separated"
    first, *rest = index or (slice(None),)
    if first is Ellipsis and not any(part is Ellipsis for part in rest):
        if sum(map(_n_axes, rest)) < ndim:
            return slice(None), index
        return _split_index(tuple(rest), ndim)
    if first is Ellipsis or _n_axes(first) != 1:
        return None, ()
    if isinstance(first, slice):
        return first, rest
    first = np.asarray(first)
    return (first if first.size or first.dtype == bool else first.astype(int)), rest  # an empty list selects nothing


def _n_axes(part):
    "The number of axes that a part of an index applies to"
    if part is None or isinstance(part, slice):
        return int(part is not None)
    part = np.asarray(part)
    return part.ndim if part.dtype == bool else 1


class PixelSummary:
    "Statistics and SHA-256 of images that pass by once, in the order of their splits and rows."

    def __init__(
        self,
        classes: list[str],  # Names, in the order of the labels
    ):
        self.sha256 = hashlib.sha256(json.dumps(classes).encode())
        self.counts = np.zeros((3, 256), np.int64)  # of the values of each channel, in the first split
        self.n_splits = 0

    def begin(
        self,
        shape: tuple[int, ...],  # Of all images of a split: (n, height, width, 3)
        labels: np.ndarray,  # Of the split
    ):
        "Begin the next split; the first one, of the training images, decides the statistics."
        self.n_splits += 1
        self.sha256.update(str(shape).encode())
        self.sha256.update(np.ascontiguousarray(labels))

    def add(
        self,
        images: np.ndarray,  # ([n, ]height, width, 3), uint8
        counts: np.ndarray | int | None = None,  # From `count_values`, if they are known; 0 if they were added before
    ):
        "Add the next images of the split."
        images = np.ascontiguousarray(images)
        self.sha256.update(images)
        if self.n_splits == 1 and images.size:
            self.counts += count_values(images) if counts is None else counts

    @property
    def facts(self) -> dict:
        "Mean and standard deviation of each channel of the training images, in 0 … 1, and the fingerprint."
        moments = [_moments(counts) for counts in self.counts.tolist()]
        return dict(
            mean=[mean / 255 for mean, _ in moments],
            std=[std / 255 or 1.0 for _, std in moments],
            fingerprint=self.sha256.hexdigest(),
        )


def count_values(
    images: np.ndarray,  # ([n, ]height, width, 3), uint8, contiguous
) -> np.ndarray:  # (3, 256)
    "Count how often each value occurs in each channel."
    return np.reshape(Image.fromarray(images.reshape(-1, *images.shape[-2:])).histogram(), (3, 256))


def _moments(counts):
    "Mean and standard deviation, given how often each value occurs; computed with whole numbers, then rounded once"
    n = sum(counts)
    total = sum(value * count for value, count in enumerate(counts))
    squares = sum(value**2 * count for value, count in enumerate(counts))
    return total / n, math.sqrt((n * squares - total**2) / n**2)


def summarize(
    classes: list[str],  # Names, in the order of the labels
    *splits: tuple,  # (images, labels) of each, the training images first
) -> dict:  # mean, std, fingerprint
    """Return the statistics of the first split, and the SHA-256 of classes, labels and pixels of all.

    The SHA-256 is equal for a folder and its archive. Each image is read once.
    """
    summary = PixelSummary(classes)
    for images, labels in splits:
        summary.begin(images.shape, labels)
        for start in range(0, len(images), ROWS):
            summary.add(images[start : start + ROWS])
    return summary.facts


def digest(
    pixels: np.ndarray,  # Of an image
) -> bytes:
    "Return the SHA-256 of an image."
    return hashlib.sha256(np.ascontiguousarray(pixels)).digest()
