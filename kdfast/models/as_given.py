"""Use a classifier that is trained already, as it is: find out how its images were prepared.

Weights rarely say how the images of their training were scaled and normalized. Of the ways that a library publishes for
the network, the data's own and the usual ones, the one with the smallest loss on some training images is taken.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdfast.core.errors import KdfastError
from kdfast.core.names import LIBRARIES, Name, parse
from kdfast.core.source import Project
from kdfast.core.suggest import short_list
from kdfast.data.dataset import Data
from kdfast.models.adapt import adapt_teacher
from kdfast.models.build import SIZE_ARGUMENTS, create_network, fill_weights, fit_to_size
from kdfast.models.description import read_description, with_description
from kdfast.models.pretrained import published_classes, published_preparations
from kdfast.models.probe import try_forward
from kdfast.models.saved import recorded_name

IMAGES = 128  # training images on which the ways are compared
BATCH = 32  # images
SIDES = 32, 48, 64, 96, 128, 160, 192, 224  # of images, besides those of the library and the data
NORMALIZATIONS = {  # mean and standard deviation of each channel
    'as ImageNet': ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    'to -1 … 1': ([0.5] * 3, [0.5] * 3),
    'to 0 … 1': ([0.0] * 3, [1.0] * 3),
}
LARGEST_SIDE = 224  # of the images of a frozen network, unless its name gives a size


@dataclass(frozen=True)
class Preparation:
    "How the images of a network's training were prepared."

    size: tuple[int, int]  # Height and width
    mean: tuple[float, ...]  # Of each channel
    std: tuple[float, ...]  # Of each channel
    name: str  # Of the normalization, for messages


@dataclass(frozen=True)
class Given:
    "A trained network with its description, the same wrapped for a data set, and what was found out."

    network: nn.Module
    adapted: nn.Module
    note: str
    project: Project | None  # The user's code that builds it


def as_given(
    name: str,  # Of a network with weights, such as timm:resnet18@photos.pth
    data: Data,  # Whose images it is to classify
) -> Given:
    """Load a trained classifier whose classes are the data's, and find out how to prepare its images.

    Raises KdfastError if the name gives no weights, if they have no classifier for the classes, and if the network
    cannot process images of any of the sizes.
    """
    named = parse(name)
    if data.several:
        raise KdfastError(
            f'{name}: {data.name} has several labels per image, for which a trained network cannot be used as it is: '
            'train it for at least one epoch'
        )
    if not named.weights:
        raise KdfastError(f'{name} is not trained: name its weights, {name}@FILE, or train it for at least one epoch')
    network, classes, project = trained_classifier(named, data)

    @functools.cache
    def loss_and_right(way):
        return on_training_images(described_as(network, way, classes), data, name)

    best = best_preparation(*possible_preparations(named, data), loss_and_right)
    loss, right = loss_and_right(best)
    if not math.isfinite(loss):
        raise KdfastError(
            f'{name} returns no finite logits for images of {data.name} in any size that was tried: it may be made for '
            'another size or other channels; train it for at least one epoch'
        )
    described_as(network, best, classes)
    height, width = best.size
    note = (
        f'{name} is used as it is, on images of {width}×{height} normalized {best.name}: of '
        f'{loss_and_right.cache_info().currsize} ways to prepare them, the one with the smallest loss on '
        f'{min(IMAGES, len(data.train[1]))} training images ({right:.0%} of them right)'.replace('%', ' %')
    )
    return Given(network, adapt_teacher(network, data, name), note, project)


def frozen_network(
    name: str,  # Of a network with weights
    data: Data,  # Whose images it sees
) -> nn.Module:
    """Load a network whose features are wanted, wrapped for the images of a data set.

    It sees images as its library publishes, of at most 224 pixels unless its name gives a size; without a library,
    images as they are. Raises KdfastError if the weights do not fit, and if it cannot process the images.
    """
    named = parse(name)
    ways = published_preparations(named) if named.where in LIBRARIES else []
    way = ways[0] if ways else dict(size=data.shape, mean=data.mean, std=data.std)
    size = next((named.keywords[key] for key in SIZE_ARGUMENTS.get(named.where, ()) if key in named.keywords), None)
    side = size or min(max(way['size']), LARGEST_SIDE)
    height_width = (side, side) if ways else tuple(way['size'])
    sized = fit_to_size(name, len(data.classes), height_width)
    with torch.random.fork_rng([]):
        without_weights = Name(sized.where, sized.what, sized.arguments)
        network = create_network(without_weights, len(data.classes), height_width)
        fill_weights(network, sized, len(data.classes), height_width)
    network = with_description(network.eval(), str(without_weights), data)
    described_as(network, Preparation(height_width, tuple(way['mean']), tuple(way['std']), ''), data.classes)
    try_forward(network, name, [(False, 2)], height_width)
    return adapt_teacher(network, data, name)


def trained_classifier(
    named: Name,  # Of the network, with its weights
    data: Data,  # Whose images it is to classify
) -> tuple[nn.Module, list[str], Project | None]:  # The network, its classes in order, the user's code that builds it
    "Build a network at its own image size, and load its weights. Raises KdfastError."
    recorded, project = recorded_name(fit_to_size(str(named), len(data.classes), None))
    new = []
    for classes in possible_classes(named, data):
        sized = fit_to_size(str(named), len(classes), None)
        with torch.random.fork_rng([]):
            network = create_network(Name(sized.where, sized.what, sized.arguments), len(classes), data.shape)
            filled = fill_weights(network, sized, len(classes), data.shape)
        if not filled.new:
            network = with_description(network.eval(), recorded, data, project)
            if labels := (own_description(named) or {}).get('labels'):
                network.build_info['labels'] = labels
            return network, classes, project
        new = new or filled.new
    raise KdfastError(
        f'the weights of {named} are not for the {len(data.classes)} classes of {data.name}: '
        f'{short_list(new)} would be new. Train it for at least one epoch'
    )


def possible_classes(
    named: Name,  # Of the network, with its weights
    data: Data,  # Whose images it is to classify
) -> list[list[str]]:
    "Return the classes that the weights may be for: those of their file, the data's, a library's."
    if described := own_description(named):
        return [described['classes']]
    spelled = {plain(c): c for c in data.classes}
    published = published_classes(named) if named.where in LIBRARIES else []
    known = [classes for classes in published if spelled.keys() <= {plain(c) for c in classes}]
    return [list(data.classes), *([spelled.get(plain(c), c) for c in classes] for classes in known)]


def plain(
    name: str,  # Of a class
) -> str:
    "Return a name as it is compared: German_shepherd is German shepherd."
    return name.lower().replace('_', ' ')


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


def possible_preparations(
    named: Name,  # Of the network, with its weights
    data: Data,  # Whose images it is to classify
) -> tuple[list, dict]:  # Sizes; mean and standard deviation by name. The likeliest first
    "Return the ways in which the images of a network's training may have been prepared."
    if described := own_description(named):
        return [tuple(described['size'])], {'as in its training': (described['mean'], described['std'])}
    published = published_preparations(named)
    sizes = [*(tuple(entry['size']) for entry in published), tuple(data.shape), *((side, side) for side in SIDES)]
    normalizations = {f'as {named.where} publishes': (entry['mean'], entry['std']) for entry in published}
    normalizations |= {f'as {data.name}': (data.mean, data.std)} | NORMALIZATIONS
    return list(dict.fromkeys(sizes)), normalizations


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


def on_training_images(
    network: nn.Module,  # Trained, with its description
    data: Data,  # Whose images it is to classify
    name: str,  # Of the network
) -> tuple[float, float]:  # Mean cross-entropy, infinite if the network cannot process the images; share of right ones
    "Compare a network's logits with the labels of some training images, evenly spaced."
    adapted = adapt_teacher(network, data, name).eval()
    n = min(IMAGES, len(data.train[1]))
    rows = np.arange(n) * len(data.train[1]) // n
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    losses, right = [], []
    for start in range(0, n, BATCH):
        index = rows[start : start + BATCH]
        images = torch.from_numpy(np.array(data.shown(data.train[0][index]))).movedim(-1, 1)
        labels = torch.as_tensor(np.array(data.train[1][index]))
        try:
            with torch.no_grad():
                logits = adapted((images / 255 - mean) / std).float()
        except (RuntimeError, ValueError, AssertionError):  # images of another size than it accepts
            return math.inf, 0.0
        losses.append(cross_entropy(logits, labels, reduction='none'))
        right.append(logits.argmax(1) == labels)
    return float(torch.cat(losses).mean()), float(torch.cat(right).float().mean())
