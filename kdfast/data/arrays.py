"Arrays of images that may be larger than memory: some of their rows, their statistics, what they hold; read a piece at a time."

import hashlib
import json

import numpy as np

PIECE = 2**14  # values that are looked at at once: few enough to stay in the processor's cache
ROWS = 256  # images


class Rows:
    "Some rows of an array, which stays where it is: only those that are asked for are read. Every index means what it means to numpy."

    def __init__(
        self,
        array: np.ndarray,  # (n, …)
        rows: np.ndarray,  # Which of them, in their order
    ):
        self.array, self.rows, self.shape = array, rows, (len(rows), *array.shape[1:])
        self.dtype, self.ndim = array.dtype, array.ndim

    def __len__(self):
        return len(self.rows)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array[self.rows], dtype)

    def __getitem__(self, i):
        "Reads the rows that the first index names, and leaves to numpy what the index makes of those"
        first, rest = of_first_axis(i if isinstance(i, tuple) else (i,), self.ndim)
        if isinstance(first, slice):
            return self.array[self.rows[first]][(slice(None), *rest)]
        if first is None:
            return np.asarray(self)[i]
        found = np.asarray(self.rows[first])
        return (
            self.array[found.reshape(-1)][(np.arange(found.size).reshape(found.shape), *rest)]
            if found.ndim
            else self.array[found[None]][(0, *rest)]
        )


def of_first_axis(index, ndim):
    "What an index says of the first axis, a slice, a number or an array of them, and what of the others; None for what cannot be parted"
    first, *rest = index or (slice(None),)
    if first is Ellipsis and not any(part is Ellipsis for part in rest):
        return (slice(None), index) if sum(map(axes, rest)) < ndim else of_first_axis(tuple(rest), ndim)
    if first is Ellipsis or axes(first) != 1:
        return None, ()
    if isinstance(first, slice):
        return first, rest
    first = np.asarray(first)
    return (first if first.size or first.dtype == bool else first.astype(int)), rest  # an empty list names nothing


def axes(part):
    "How many axes a part of an index is about"
    if part is None or isinstance(part, slice):
        return int(part is not None)
    part = np.asarray(part)
    return part.ndim if part.dtype == bool else 1


def statistics(
    images: np.ndarray | Rows,  # (n, height, width, 3) uint8
) -> tuple[list[float], list[float]]:
    "Mean and standard deviation of each channel, in 0 … 1; to the last bit those of numpy, which would want eight times the memory of a channel."
    n = len(images) * images.shape[1] * images.shape[2]
    means = [sum(int(part.sum(dtype=np.int64)) for part in parts(images, channel)) / n for channel in range(3)]
    spreads = [float(np.sqrt(squares(images, channel, mean, 0, n) / n)) for channel, mean in enumerate(means)]
    return [mean / 255 for mean in means], [spread / 255 or 1.0 for spread in spreads]


def parts(images, channel):
    return (images[start : start + ROWS][..., channel] for start in range(0, len(images), ROWS))


def squares(images, channel, mean, start, stop):
    "The sum of squared deviations of some values of a channel. Halved as numpy's pairwise sum halves: its bits depend on that"
    if stop - start <= PIECE:
        deviations = values(images, channel, start, stop) - mean
        return (deviations * deviations).sum()
    half = (stop - start) // 2
    middle = start + half - half % 8
    return squares(images, channel, mean, start, middle) + squares(images, channel, mean, middle, stop)


def values(images, channel, start, stop):
    "Of a channel's values, one image after the other, those from `start` to `stop`"
    pixels = images.shape[1] * images.shape[2]
    first = start // pixels
    return images[first : -(-stop // pixels)][..., channel].reshape(-1)[start - first * pixels : stop - first * pixels]


def fingerprint(
    classes: list[str],  # Names, in the order of the labels
    *splits,  # (images, labels) of each
) -> str:
    "SHA-256 of what a network is shown: equal for a folder and an archive of the same images."
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
    "SHA-256 of each image, to find those that are there more than once."
    return [hashlib.sha256(np.ascontiguousarray(images[i])).digest() for i in range(len(images))]
