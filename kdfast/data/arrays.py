"Arrays of images that may be larger than memory: rows of an array, statistics, fingerprints."

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BLOCK = 2**14  # values that are summed at once: few enough for the cache of a processor
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


def statistics(
    images: np.ndarray | Rows,  # (n, height, width, 3) uint8
) -> tuple[list[float], list[float]]:  # Mean and standard deviation of each channel, in 0 … 1
    """Compute mean and standard deviation of each channel, with the bits of NumPy's own functions.

    NumPy would need eight times the memory of a channel.
    """
    if isinstance(images, np.memmap):
        images = np.asarray(images)  # the same memory; faster, as its slices are no memory maps of their own
    n = len(images) * images.shape[1] * images.shape[2]

    def of_channel(channel):
        mean = sum(int(block.sum(dtype=np.int64)) for block in _blocks(images, channel)) / n
        return mean, float(np.sqrt(_squared_deviations(images, channel, mean, 0, n) / n))

    with ThreadPoolExecutor() as pool:  # NumPy computes without the interpreter's lock
        means, stds = zip(*pool.map(of_channel, range(3)))
    return [mean / 255 for mean in means], [std / 255 or 1.0 for std in stds]


def _blocks(images, channel):
    "A channel of some images at a time"
    return (images[start : start + ROWS][..., channel] for start in range(0, len(images), ROWS))


def _squared_deviations(images, channel, mean, start, stop):
    "The sum of squared deviations, halved like NumPy's pairwise sum, as its bits depend on that"
    if stop - start <= BLOCK:
        deviations = _values(images, channel, start, stop) - mean
        return (deviations * deviations).sum()
    half = (stop - start) // 2
    middle = start + half - half % 8
    return _squared_deviations(images, channel, mean, start, middle) + _squared_deviations(
        images, channel, mean, middle, stop
    )


def _values(images, channel, start, stop):
    "The values `start` to `stop` of a channel, of one image after the other"
    pixels = images.shape[1] * images.shape[2]
    first = start // pixels
    return images[first : -(-stop // pixels)][..., channel].reshape(-1)[start - first * pixels : stop - first * pixels]


def fingerprint(
    classes: list[str],  # Names, in the order of the labels
    *splits: tuple,  # (images, labels) of each
) -> str:
    "Return the SHA-256 of classes, labels and pixels, equal for a folder and its archive."
    sha256 = hashlib.sha256(json.dumps(classes).encode())
    for images, labels in splits:
        sha256.update(str(images.shape).encode())
        sha256.update(np.ascontiguousarray(labels))
        for start in range(0, len(images), ROWS):
            sha256.update(np.ascontiguousarray(images[start : start + ROWS]))
    return sha256.hexdigest()


def digests(
    images: np.ndarray | Rows,  # (n, height, width, 3)
) -> list[bytes]:
    "Return the SHA-256 of each image, to find duplicates."
    return [hashlib.sha256(np.ascontiguousarray(images[i])).digest() for i in range(len(images))]
