"Decode images that are passed to a Learner for prediction: names of files, PIL images, arrays and tensors."

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.data.dataset import center_crop, presized_side
from kdfast.data.files import read_file
from kdfast.data.pixels import decode_8bit


def decode_given(
    items: list,  # Names of files, PIL images, arrays (height, width, 3), or items of a data set: tensors, also labeled
    shape: tuple[int, int],  # Height and width that the images must have if they are not scaled
    size: int | None,  # Side to scale them to, as --size does; None: they are not scaled
) -> np.ndarray:  # (n, height, width, 3), uint8, as networks receive them
    "Decode images as a data set does. Raises KdfastError for unreadable ones and other sizes."
    images = [_decode(item[0] if isinstance(item, tuple) else item, size) for item in items]
    expected = (size, size) if size else tuple(shape)
    for i, image in enumerate(images):
        if image.shape[:2] != expected:
            (height, width), (wanted_height, wanted_width) = image.shape[:2], expected
            raise KdfastError(
                f'image {i} is {width}×{height}, expected {wanted_width}×{wanted_height}, as the images of training'
            )
    return np.stack(images)


def _decode(item, size):
    "The pixels of an image; tensors are taken as they are, because a data set has scaled them"
    if isinstance(item, torch.Tensor):
        if item.dtype != torch.uint8 or item.dim() != 3 or item.shape[0] != 3:
            raise KdfastError(f'found a {item.dtype} tensor of shape {tuple(item.shape)}, expected uint8 of (3, h, w)')
        return item.movedim(0, -1).cpu().numpy()
    named = isinstance(item, str | Path)
    content = read_file(lambda: open(item, 'rb')) if named else item
    if not isinstance(content, bytes | np.ndarray | Image.Image | Exception):
        raise KdfastError(f'found {type(item).__name__}, expected the name of a file, a PIL image, array or tensor')
    pixels, problem, _ = decode_8bit(content, presized_side(size) if size else None)
    if problem:
        raise KdfastError(f'cannot read {item if named else "an image"} ({problem})')
    return center_crop(pixels, size) if size else pixels
