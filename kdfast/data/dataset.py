"""The type of a data set: decoded color images in splits, and the built-in digits."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from kdfast.core.errors import KdfastError, listed
from kdfast.core.format import shape_text
from kdfast.data.arrays import summarize
from kdfast.data.augment import default_augment
from kdfast.data.labels import has_several
from kdfast.data.naming import run_name
from kdfast.data.pixels import resize_center_crop

SMALLEST_BATCH, LARGEST_BATCH = 8, 128  # of training images, unless --batch-size is given
FULL_SIZE_FROM = 3 / 4  # of the epochs, with progressive resizing
MAX_DIGITS_SIZE = 64  # the digits are 8×8 in scikit-learn, and not cached on disk


@dataclass(frozen=True, repr=False)
class Data:
    "A data set: splits of color images of one size, decoded."

    name: str  # Name of the directory of its runs
    classes: list[str]  # In the order of the labels
    train: tuple  # Images (n, height, width, 3) uint8, labels (n,) int64; arrays on disk, or rows of such
    valid: tuple  # The same, of the validation images
    mean: list[float]  # Of the training images, per channel, in 0 … 1
    std: list[float]  # Standard deviation, likewise
    augment: str  # Augmentation of the training images: none, shift, flip or strong
    fingerprint: str  # SHA-256 of classes, labels and pixels
    test: tuple | None = None  # Test images and labels, if there are validation images besides
    notes: tuple = ()  # What was done to the images, and what is unusual about them
    skipped: int = 0  # Images and rows that were skipped because they cannot be read
    range: list | None = None  # Values that became black and white, for images of more than 8 bits per channel
    about: dict | None = None  # Layout, formats and sizes of the files
    size: int | None = None  # Networks receive squares of this side, cropped from the images; None: whole images
    grow: float = 1.0  # Progressive resizing: fraction of height and width at which training starts; 1: none
    batch_size: int | None = None  # Training images per batch; None: the usual number for the size of the data set
    load_arguments: dict | None = None  # Arguments of `load`
    drawn_from: str = ''  # SHA-256 of all images of which each seed draws a split of its own; '': all have the same

    def __repr__(self):
        splits = dict(training=self.train, validation=self.valid) | (dict(test=self.test) if self.test else {})
        counts = listed([f'{len(labels):,} {split} images' for split, (_, labels) in splits.items()])
        return f'Data({self.name}: {counts}; {shape_text(self.shape)} pixels; {len(self.classes):,} classes)'

    @property
    def images_sha256(self) -> str:
        "SHA-256 that the data sets of all seeds have in common."
        return self.drawn_from or self.fingerprint

    @property
    def several(self) -> bool:
        "Whether images have several labels; labels are then (n, classes) int8, 0 or 1."
        return has_several(self.train[1])

    @property
    def shape(self) -> tuple[int, int]:
        "Height and width of the images that a network receives."
        return (self.size, self.size) if self.size else self.train[0].shape[1:3]

    def shape_at(
        self,
        progress: float,  # Fraction of the epochs that are finished
    ) -> tuple[int, int]:
        """Return height and width of the training images at some time of the training.

        With progressive resizing they are multiples of 4 that grow linearly, and full for the last quarter.
        """
        if self.grow == 1 or progress >= FULL_SIZE_FROM:
            return self.shape
        scale = self.grow + (1 - self.grow) * progress / FULL_SIZE_FROM
        return tuple(min(side, max(4, 4 * round(scale * side / 4))) for side in self.shape)

    def shown(
        self,
        images: np.ndarray,  # (…, height, width, 3), as decoded
    ) -> np.ndarray:
        "Return images as validation shows them: the central square if there is a size, else unchanged."
        return center_crop(images, self.size) if self.size else images


def center_crop(
    images: np.ndarray,  # (…, height, width, channels)
    size: int,  # Pixels
) -> np.ndarray:
    "Return the central square of each image, as a view."
    top, left = ((side - size) // 2 for side in images.shape[-3:-1])
    return images[..., top : top + size, left : left + size, :]


def presized_side(
    size: int,  # Side of the images that networks receive
) -> int:
    "Return the side of the squares to decode: 8/7 of the size, as fastai presizes, for random crops."
    return round(size * 8 / 7)


def usual_batch_size(
    n: int,  # Training images
) -> int:
    "Return 128, or for a small training set the power of two that gives at least eight batches."
    return min(LARGEST_BATCH, max(SMALLEST_BATCH, 2 ** ((n // 8).bit_length() - 1)))


def digits(
    size: int | None = None,  # Scale the images, as photographs are
) -> Data:
    """Load scikit-learn's 1,797 handwritten digits (8×8, gray), scaled to 16×16. Every third one trains.

    The training set is so small that recipes differ, and the images need no download.
    """
    if size and size > MAX_DIGITS_SIZE:
        raise KdfastError(f'--size {size}: the digits have 8×8 pixels, expected at most {MAX_DIGITS_SIZE}')
    from sklearn.datasets import load_digits

    gray, labels = load_digits(return_X_y=True)
    scaled = [
        Image.fromarray(np.uint8(image.reshape(8, 8) * 255 / 16)).resize((16, 16), Image.BILINEAR).convert('RGB')
        for image in gray
    ]
    if size:
        scaled = [resize_center_crop(image, presized_side(size)) for image in scaled]
    images = np.stack([np.asarray(image) for image in scaled])
    labels = labels.astype(np.int64)
    train = np.arange(len(labels)) % 3 == 0
    return assemble(
        run_name('digits', size),
        [str(d) for d in range(10)],
        (images[train], labels[train]),
        (images[~train], labels[~train]),
        size=size,
    )


def assemble(
    name: str,  # Name of the directory of the runs
    classes: list[str],  # In the order of the labels
    train: tuple,  # Images (n, height, width, 3) uint8, labels (n,) int64
    valid: tuple,  # The same
    test: tuple | None = None,  # The same, evaluated after training only
    size: int | None = None,  # Side of the squares that networks receive
) -> Data:
    "Return a data set, with the statistics and the fingerprint of its images."
    facts = summarize(classes, *((train, valid, test) if test else (train, valid)))
    return Data(name, classes, train, valid, augment=default_augment(classes), test=test, size=size, **facts)
