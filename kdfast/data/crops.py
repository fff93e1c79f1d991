"Crop, shift, mirror and scale batches of images."

import numpy as np
import torch
from torch.nn.functional import interpolate, pad

PADDING = 1 / 16  # of the side of an image: 2 pixels of 32


def crop_and_flip(
    x: torch.Tensor,  # (batch, channels, height, width)
    flip: bool,  # Mirror each image with probability 1/2
    generator: torch.Generator,  # Source of the random numbers
    size: int | None = None,  # Side of the square to crop; None: shift the image by up to a sixteenth of its side
) -> torch.Tensor:
    "Crop each image at random, or shift it with zeros beyond its edges; mirror it at random."
    rows, columns = crop_indices(len(x), x.shape[2:], flip, generator, size)
    return type(x)(take_crops(x.movedim(1, -1), size, rows, columns).movedim(-1, 1))


def crop_indices(
    n: int,  # Images
    shape: tuple[int, int],  # Height and width of the images
    flip: bool,  # Mirror each image with probability 1/2
    generator: torch.Generator,  # Source of the random numbers
    size: int | None,  # Side of the square to crop; None: shift
) -> tuple[torch.Tensor, torch.Tensor]:  # Rows (n, height) and columns (n, width), with margins counted
    "Draw random crops: first the rows of all images, then their columns, then which to mirror."
    height, width = shape
    margin_y, margin_x = _margins(shape, size)
    rows = _random_range(n, size or height, height + 2 * margin_y, generator)
    columns = _random_range(n, size or width, width + 2 * margin_x, generator)
    if flip:
        columns = torch.where(torch.rand(n, 1, generator=generator) < 0.5, columns, columns.flip(1))
    return rows, columns


def _random_range(n, length, whole, generator):
    "Consecutive indices at a random start: (n, length)"
    return torch.arange(length) + torch.randint(whole - length + 1, (n, 1), generator=generator)


def _margins(shape, size):
    "How far images may be shifted, vertically and horizontally"
    return (0, 0) if size else tuple(int(side * PADDING) for side in shape)


def take_crops(
    x: torch.Tensor,  # (batch, height, width, channels)
    size: int | None,  # As of `crop_indices`
    rows: torch.Tensor,  # (batch, height of the crops)
    columns: torch.Tensor,  # (batch, width of the crops)
) -> torch.Tensor:
    "Return rows and columns of each image, with zeros in its margins."
    margin_y, margin_x = _margins(x.shape[1:3], size)
    padded = pad(x, (0, 0, margin_x, margin_x, margin_y, margin_y)) if margin_y or margin_x else x
    return padded[torch.arange(len(x), device=x.device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def copy_crops(
    images: np.ndarray,  # (batch, height, width, channels)
    size: int | None,  # As of `crop_indices`
    rows: torch.Tensor,  # (batch, height of the crops), as of `crop_indices`
    columns: torch.Tensor,  # (batch, width of the crops), likewise
) -> np.ndarray:  # (batch, height of the crops, width of the crops, channels)
    """Return what `take_crops` does, copied by rows of pixels.

    That is several times as fast, and takes none of PyTorch's threads.
    """
    margin_y, margin_x = _margins(images.shape[1:3], size)
    rows, columns = rows.numpy(), columns.numpy()  # PyTorch would use all cores in a background thread, too
    tops, lefts = rows[:, 0] - margin_y, columns.min(1) - margin_x
    mirrored = columns[:, 0] > columns[:, -1]
    (height, width), crops = images.shape[1:3], np.zeros((len(images), rows.shape[1], columns.shape[1], 3), np.uint8)
    for image, crop, top, left, mirror in zip(images, crops, tops.tolist(), lefts.tolist(), mirrored.tolist()):
        if mirror:
            crop = crop[:, ::-1]
        inside = image[max(0, top) : min(height, top + len(crop)), max(0, left) : min(width, left + crop.shape[1])]
        y, x = max(0, -top), max(0, -left)
        crop[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return crops


def resize(
    x: torch.Tensor,  # (batch, channels, height, width), uint8
    shape: tuple[int, int],  # Height and width
) -> torch.Tensor:
    "Scale images with antialiasing."
    if x.shape[2:] == shape:
        return x
    whole = x.as_subclass(torch.Tensor)
    if x.device.type != 'cpu':
        whole = whole.float()  # PyTorch scales uint8 on CPUs alone
    return type(x)(interpolate(whole, shape, mode='bilinear', antialias=True).round().to(x.dtype))
