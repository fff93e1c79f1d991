"Read the items of map-style data sets: pairs of an image and a label, or dicts of Hugging Face."

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.data.decode_errors import GIVEN_ERRORS, error_reason

# Keys of an item that is a dict
IMAGE_KEYS = ('image', 'img', 'pixel_values', 'pixels', 'x', 'images')
LABEL_KEYS = ('label', 'labels', 'fine_label', 'class', 'target', 'y')

DAMAGED = OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError  # raised for a damaged image
N_TRIED = 32  # items of which one should be readable


def read_item(
    dataset,  # Map-style
    i: int,  # Number of the item
) -> tuple[Any, Any]:  # (image, label)
    "Read an item: the first two values of a tuple, or two of a dict. Raises OSError for a damaged image."
    try:
        item = dataset[i]
    except DAMAGED as e:
        raise OSError(error_reason(e)) from e
    if isinstance(item, Mapping):
        image_key = next((key for key in IMAGE_KEYS if key in item), None)
        label_key = next((key for key in LABEL_KEYS if key in item), None)
        if image_key is None or label_key is None:
            raise KdfastError(f'an item of the data set has the keys {", ".join(item)}: expected image and label')
        return item[image_key], item[label_key]
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise KdfastError(f'an item of the data set is a {type(item).__name__}: expected (image, label)')
    return item[:2]


def open_image(
    dataset,  # Map-style
    i: int,  # Number of the item
) -> Image.Image | np.ndarray:
    "Return the image of an item. Raises OSError for a damaged one."
    image = read_item(dataset, i)[0]
    if not isinstance(image, Image.Image):
        return np.asarray(image)
    if not getattr(image, 'is_animated', False):
        return image
    try:
        return image.copy()  # the data set may go on to another frame before this one is decoded
    except GIVEN_ERRORS as e:
        raise OSError(error_reason(e)) from e


def check_deterministic(
    dataset,  # Map-style
    where: str,  # Name of the data set in errors
):
    "Raise KdfastError for an empty data set, or one whose first image differs between two accesses."
    if not len(dataset):
        raise KdfastError(f'{where} is empty')
    for i in range(min(N_TRIED, len(dataset))):
        try:
            first, again = (np.asarray(open_image(dataset, i)) for _ in range(2))
        except GIVEN_ERRORS:
            continue  # reported when it is decoded
        if first.shape != again.shape or first.tobytes() != again.tobytes():
            raise KdfastError(
                f'{where} returns different pixels each time: remove its random transforms (kdfast augments by itself)'
            )
        return
