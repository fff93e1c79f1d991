"""A frozen network whose features are wanted, such as a published one without a classifier for the data."""

from collections.abc import Sequence

import torch
from torch import nn

from kdfast.core.names import LIBRARIES, Name, parse
from kdfast.data.dataset import Data
from kdfast.models.adapt import adapt_teacher
from kdfast.models.build import create_network, fill_weights, fit_to_size
from kdfast.models.description import with_description
from kdfast.models.preparation import Preparation, described_as
from kdfast.models.pretrained import published_preparations
from kdfast.models.probe import try_forward
from kdfast.models.sizes import given_size
from kdfast.models.weights_config import read_weights_config

LARGEST_SIDE = 224  # of the images of a frozen network, unless its name gives a size


def frozen_network(
    name: str,  # Of a network with weights
    data: Data,  # Whose images it sees
) -> nn.Module:
    """Load a network whose features are wanted, wrapped for the images of a data set.

    It sees images as its library publishes, at most 224 pixels high and wide, or as its name gives their size; without
    a library, images as they are. Raises KdfastError if the weights do not fit, and if it cannot process the images.
    """
    named = parse(name)
    ways = published_preparations(named) if named.where in LIBRARIES else []
    way = ways[0] if ways else dict(size=data.shape, mean=data.mean, std=data.std)
    way |= read_weights_config(named)
    height_width = given_size(named) or (limited(way['size']) if ways else tuple(way['size']))
    sized = fit_to_size(name, len(data.classes), height_width)
    with torch.random.fork_rng([]):
        without_weights = Name(sized.where, sized.what, sized.arguments)
        network = create_network(without_weights, len(data.classes), height_width)
        fill_weights(network, sized, len(data.classes), height_width)
    network = with_description(network.eval(), str(without_weights), data)
    described_as(network, Preparation(height_width, tuple(way['mean']), tuple(way['std']), ''), data.classes)
    try_forward(network, name, [(False, 2)], height_width)
    return adapt_teacher(network, data, name)


def limited(
    size: Sequence[int],  # Height and width
) -> tuple[int, int]:
    "Return a size of the same shape whose longer side is at most LARGEST_SIDE."
    scale = min(1, LARGEST_SIDE / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width
