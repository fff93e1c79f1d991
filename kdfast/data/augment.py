"How training images are varied: shifted or cropped, mirrored, recolored and warped."

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


MEANING = dict(
    none='training shows images as they are',
    shift='training shifts or crops images',
    flip='training mirrors them, too',
    strong='training recolors and warps them besides (TrivialAugment)',
)


AUGMENTS = tuple(MEANING)
SIDES = re.compile(r'(?i)(?<![a-z])(left|right|west|east|counter-?clockwise|clockwise|anti-?clockwise)(?![a-z])')


def has_sides(
    classes: list[str],  # Names
) -> bool:
    "Whether a mirrored image may show another class, as far as their names tell: left and right, digits, letters."
    return any(SIDES.search(re.sub(r'[_\d]', ' ', name)) for name in classes) or all(len(name) == 1 for name in classes)


def default(
    classes: list[str],  # Names
) -> str:
    "flip; or shift, where a mirrored image may show another class."
    return 'shift' if has_sides(classes) else 'flip'


def mirrors(
    augment: str,  # none, shift, flip or strong
    classes: list[str],  # Names
) -> bool:
    "Whether training mirrors images: with strong, unless a mirrored image may show another class."
    return augment == 'flip' or augment == 'strong' and not has_sides(classes)


def strong(
    x: torch.Tensor,  # (batch, channels, height, width), uint8
    seeds: list[int],  # Of each image, that decide its change
) -> torch.Tensor:
    """One random change of each image, of random strength: rotation, shear, colors, contrast, sharpness and others.

    TrivialAugment, "wide" (Müller & Hutter 2021, https://arxiv.org/abs/2103.10158), torchvision's.
    """
    import torch
    from torchvision.transforms import v2

    change = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
    with torch.random.fork_rng(devices=[]):  # it draws from PyTorch's own generator
        return torch.stack([seeded(seed, change, image) for seed, image in zip(seeds, x, strict=True)])


def seeded(seed, change, image):
    import torch

    torch.default_generator.manual_seed(seed)  # of the CPU alone: dropout on a GPU goes on with its own
    return change(image)
