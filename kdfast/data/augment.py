"Augmentation of training images: shift or crop, mirror, change colors and shape."

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MEANING = dict(
    none='training shows images unchanged',
    shift='training shifts or crops images',
    flip='training shifts or crops images, and mirrors every second one',
    strong='training also changes colors and shape (TrivialAugment)',
)
AUGMENTS = tuple(MEANING)

# Names of classes that a mirrored image would exchange
SIDES = re.compile(r'(?i)(?<![a-z])(left|right|west|east|counter-?clockwise|clockwise|anti-?clockwise)(?![a-z])')


def has_sides(
    classes: list[str],  # Names
) -> bool:
    "Return whether a mirrored image may be of another class: left and right, digits, letters."
    return any(SIDES.search(re.sub(r'[_\d]', ' ', name)) for name in classes) or all(len(name) == 1 for name in classes)


def default_augment(
    classes: list[str],  # Names
) -> str:
    "Return the default augmentation: flip, or shift if a mirrored image may belong to another class."
    return 'shift' if has_sides(classes) else 'flip'


def mirrors(
    augment: str,  # none, shift, flip or strong
    classes: list[str],  # Names
) -> bool:
    "Return whether training mirrors images; `strong` does unless classes have sides."
    return augment == 'flip' or augment == 'strong' and not has_sides(classes)


def trivial_augment(
    x: torch.Tensor,  # (batch, channels, height, width), uint8
    seeds: list[int],  # One per image, which decides its change
) -> torch.Tensor:
    """Change each image once, at random: rotation, shear, colors, contrast, sharpness and others.

    TrivialAugment, "wide" (Müller & Hutter 2021, https://arxiv.org/abs/2103.10158), as torchvision has it.
    """
    import torch
    from torchvision.transforms import v2

    transform = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
    with torch.random.fork_rng(devices=[]):  # the transform uses PyTorch's global generator
        return torch.stack([_transform_seeded(seed, transform, image) for seed, image in zip(seeds, x, strict=True)])


def _transform_seeded(seed, transform, image):
    import torch

    torch.default_generator.manual_seed(seed)  # of the CPU alone: dropout on a GPU keeps its own
    return transform(image)
