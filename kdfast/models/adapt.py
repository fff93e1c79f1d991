"""Adapt a teacher that was trained on other data: normalization, image size, order of the classes."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn.functional import interpolate

from kdfast.core.errors import KdfastError
from kdfast.core.source import short_list
from kdfast.data.dataset import Data

# A teacher that was trained on something else


class Renormalise(nn.Module):
    "Images as normalised with one mean and spread become images as normalised with another."

    def __init__(self, mean, std, to_mean, to_std):
        super().__init__()
        channels = [torch.tensor(values).view(3, 1, 1) for values in (mean, std, to_mean, to_std)]
        mean, std, to_mean, to_std = channels
        self.register_buffer('scale', std / to_std)
        self.register_buffer('shift', (mean - to_mean) / to_std)

    def forward(self, x):
        return x * self.scale + self.shift


class Scale(nn.Module):
    "Images at the size that the network was trained on; smoothed where they become smaller."

    def __init__(self, size):
        super().__init__()
        self.size = tuple(size)

    def forward(self, x):
        return x if x.shape[-2:] == self.size else interpolate(x, self.size, mode='bilinear', antialias=True)


class Reorder(nn.Module):
    "Columns of the logits, in another order."

    def __init__(self, order):
        super().__init__()
        self.register_buffer('order', torch.tensor(order))

    def forward(self, logits):
        return logits[:, self.order]


def adapt_teacher(
    network: nn.Module,  # Knows what it was trained on
    data: Data,  # What it is to be asked of
    name: str,  # For the error
) -> nn.Module:
    """The network, so that it understands images of `data`, at the size that it knows, and gives its classes in their order.

    Raises KdfastError where it does not know one of the classes.
    """
    facts = network.built_by
    unknown = [c for c in data.classes if c not in facts['classes']]
    if unknown:
        raise KdfastError(
            f'the teacher {name} does not know {short_list(unknown)}: it was trained on {short_list(facts["classes"])}; {data.name} has {short_list(data.classes)}'
        )
    parts = OrderedDict()
    if facts['size'] != list(data.shape):
        parts['scale'] = Scale(facts['size'])
    if [facts[k] for k in ('mean', 'std')] != [data.mean, data.std]:
        parts['normalise'] = Renormalise(data.mean, data.std, facts['mean'], facts['std'])
    parts['network'] = network
    if facts['classes'] != data.classes:
        parts['classes'] = Reorder([facts['classes'].index(c) for c in data.classes])
    return nn.Sequential(parts).eval() if len(parts) > 1 else network


def scaling_note(
    network: nn.Module,  # Knows what it was trained on
    data: Data,  # What it is to be asked of
    name: str,  # For the note
) -> str:  # Nothing where sizes are equal
    "A note where the teacher is shown images at another size than the student."
    (height, width), own = network.built_by['size'], data.shape
    return (
        ''
        if [height, width] == list(own)
        else f'the teacher {name} was trained on images of {width}×{height}, and is shown them scaled to that; the student sees {own[1]}×{own[0]}'
    )
