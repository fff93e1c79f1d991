"""A data set: two splits of equally large color images, decoded."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.data import augment
from kdfast.data.arrays import fingerprint, statistics
from kdfast.data.naming import run_name
from kdfast.data.pixels import square

SMALLEST_BATCH, LARGEST_BATCH = 8, 128  # of training images, unless --batch-size says otherwise
GROWN = 3 / 4  # of the epochs, after which images are shown whole
LARGEST_DIGITS = 64  # they are drawn 8×8, and are not kept on disk


@dataclass(frozen=True)
class Data:
    "A data set: two splits of equally large colour images, decoded."

    name: str  # Names the folder of its runs
    classes: list[str]  # In the order of the labels
    train: tuple  # Images (n, height, width, 3) uint8, labels (n,) int64; arrays on disk, or rows of such
    valid: tuple  # The same, of the validation images
    mean: list[float]  # Of the training images, a channel each, in 0 … 1
    std: list[float]  # Likewise, their standard deviation
    augment: str  # How training varies its images: none, shift, flip or strong
    fingerprint: str  # SHA-256 of classes, labels and pixels
    test: tuple | None = None  # Test images and labels beside validation images, kept apart
    notes: tuple = ()  # What a user should know about it
    skipped: int = 0  # Images and rows that were left out because they cannot be read
    range: list | None = None  # Values that became black and white, where images have more than 8 bits a channel
    about: dict | None = None  # Layout, formats and sizes of the files
    size: int | None = None  # Networks see squares of this side, cut out of the decoded ones; None: all that is decoded
    grow: float = 1.0  # Share of height and width at which training begins to show them; 1: as they are
    batch_size: int | None = None  # Training images a batch; None: as many as is usual for their number
    asked: dict | None = None  # What `load` was called with

    @property
    def shape(self):
        "Height and width of an image as a network sees it"
        return (self.size, self.size) if self.size else self.train[0].shape[1:3]

    def shape_at(
        self,
        progress: float,  # Share of the epochs that training has behind it
    ) -> tuple[int, int]:
        "Height and width at which training shows images then: multiples of 4 that grow evenly, and are whole for the last quarter."
        if self.grow == 1 or progress >= GROWN:
            return self.shape
        share = self.grow + (1 - self.grow) * progress / GROWN
        return tuple(min(side, max(4, 4 * round(share * side / 4))) for side in self.shape)

    def shown(self, images):
        "Decoded images (…, height, width, 3) as validation shows them"
        return center_crop(images, self.size) if self.size else images


def center_crop(
    images: np.ndarray,  # (…, height, width, channels)
    size: int,  # Pixels
) -> np.ndarray:
    "The central square of each, a view."
    top, left = ((side - size) // 2 for side in images.shape[-3:-1])
    return images[..., top : top + size, left : left + size, :]


def presized_side(
    size: int,  # At which networks see images
) -> int:
    "The side of the squares that are kept: room for a random crop of `size`, in fastai's usual proportion."
    return round(size * 8 / 7)


def usual_batch_size(
    n: int,  # Training images
) -> int:
    "128 images, or the power of two that makes at least eight batches of a small training set."
    return min(LARGEST_BATCH, max(SMALLEST_BATCH, 2 ** ((n // 8).bit_length() - 1)))


# Digits


def digits(
    size: int | None = None,  # Scale them, as photographs are
) -> Data:
    """Scikit-learn's 1,797 handwritten digits (8×8 grey), doubled to 16×16: every third one trains, the rest validate.

    So few train that the recipes differ; all of it comes with scikit-learn and needs no network.
    """
    if size and size > LARGEST_DIGITS:
        raise KdfastError(f'--size {size}: the digits are drawn 8×8; expected at most {LARGEST_DIGITS}')
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    large = [
        Image.fromarray(np.uint8(image.reshape(8, 8) * 255 / 16)).resize((16, 16), Image.BILINEAR).convert('RGB')
        for image in grey
    ]
    if size:
        large = [square(image, presized_side(size)) for image in large]
    images, labels = np.stack([np.asarray(image) for image in large]), labels.astype(np.int64)
    train = np.arange(len(labels)) % 3 == 0
    return assemble(
        run_name('digits', size),
        [str(d) for d in range(10)],
        (images[train], labels[train]),
        (images[~train], labels[~train]),
        size=size,
    )


def assemble(name, classes, train, valid, test=None, size=None):
    mean, std = statistics(train[0])
    splits = (train, valid, test) if test else (train, valid)
    return Data(
        name, classes, train, valid, mean, std, augment.default(classes), fingerprint(classes, *splits), test, size=size
    )
