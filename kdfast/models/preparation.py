"""How the images of a network's training were scaled and normalized: what is recorded, published, or fits best."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.core.names import Name
from kdfast.data.dataset import Data
from kdfast.models.description import read_description
from kdfast.models.pretrained import published_preparations
from kdfast.models.sizes import given_size
from kdfast.models.weights_config import read_weights_config

SIDES = 32, 48, 64, 96, 128, 160, 192, 224  # of images, besides those of the library and the data
NORMALIZATIONS = {  # mean and standard deviation of each channel
    'as ImageNet': ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    'to -1 … 1': ([0.5] * 3, [0.5] * 3),
    'to 0 … 1': ([0.0] * 3, [1.0] * 3),
}


@dataclass(frozen=True)
class Preparation:
    "How the images of a network's training were prepared."

    size: tuple[int, int]  # Height and width
    mean: tuple[float, ...]  # Of each channel
    std: tuple[float, ...]  # Of each channel
    name: str  # Of the normalization, for messages


def possible_preparations(
    named: Name,  # Of the network, with its weights
    data: Data,  # Whose images it is to classify
) -> tuple[list, dict]:  # Sizes; mean and standard deviation by name. The likeliest first
    "Return the ways in which the images of a network's training may have been prepared."
    if described := own_description(named):
        return [tuple(described['size'])], {'as in its training': (described['mean'], described['std'])}
    recorded, published = read_weights_config(named), published_preparations(named)
    sizes = [*(tuple(entry['size']) for entry in published), tuple(data.shape), *((side, side) for side in SIDES)]
    normalizations = {f'as {named.where} publishes': (entry['mean'], entry['std']) for entry in published}
    normalizations |= {f'as {data.name}': (data.mean, data.std)} | NORMALIZATIONS
    if 'mean' in recorded:
        normalizations = {f'as in {recorded["file"]}': (recorded['mean'], recorded['std'])}
    known = given_size(named) or recorded.get('size')
    return [tuple(known)] if known else list(dict.fromkeys(sizes)), normalizations


def best_preparation(
    sizes: list[tuple[int, int]],  # The likeliest first
    normalizations: dict,  # Mean and standard deviation by name; the likeliest first
    loss_and_right: Callable,  # Of a Preparation
) -> Preparation:
    "Return the way with the smallest loss: of the sizes, of the normalizations, of the sizes again."

    def best(ways):
        return min(ways, key=lambda way: loss_and_right(way)[0])

    def of_size(way):
        return best([replace(way, size=size) for size in sizes])

    known = {}  # each normalization once, under the likeliest name
    for name, (mean, std) in normalizations.items():
        known.setdefault((tuple(mean), tuple(std)), name)
    ways = [Preparation(sizes[0], mean, std, name) for (mean, std), name in known.items()]
    size = of_size(ways[0]).size
    return of_size(best([replace(way, size=size) for way in ways]))


def own_description(
    named: Name,  # Of a network, with its weights
) -> dict | None:  # None if the weights were not written by kdfast
    "Return the description in a file of weights that kdfast wrote."
    if not named.weights.endswith('.safetensors'):
        return None
    try:
        return read_description(Path(named.weights))
    except KdfastError:
        return None


def described_as(
    network: nn.Module,  # Trained
    way: Preparation,  # Of its images
    classes: list[str],  # In the order of its logits
) -> nn.Module:
    "Describe how to build the network and prepare its images; changes `build_info` only."
    description = dict(classes=classes, mean=list(way.mean), std=list(way.std), size=list(way.size), presized=None)
    network.build_info = network.build_info | description
    return network
