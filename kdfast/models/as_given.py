"""Use a classifier that is trained already, as it is: find out how its images were prepared.

Weights rarely say how the images of their training were scaled and normalized. What is recorded with them is used. Of
the ways that a library publishes for the network, the data's own and the usual ones, the one with the smallest loss on
some training images is taken.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdfast.core.errors import KdfastError
from kdfast.core.format import percent
from kdfast.core.names import LIBRARIES, Name, parse
from kdfast.core.source import Project
from kdfast.core.suggest import short_list
from kdfast.data.dataset import Data
from kdfast.models.adapt import adapt_teacher
from kdfast.models.build import create_network, fill_weights, fit_to_size
from kdfast.models.description import with_description
from kdfast.models.preparation import best_preparation, described_as, own_description, possible_preparations
from kdfast.models.pretrained import published_classes
from kdfast.models.probabilities import reject_probabilities
from kdfast.models.saved import recorded_name
from kdfast.models.weights_config import read_weights_config

IMAGES = 128  # training images on which the ways are compared
BATCH = 32  # images


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
    cannot process images of any of the sizes or returns probabilities.
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
    ways = loss_and_right.cache_info().currsize
    chosen = f'of {ways} ways to prepare them, the one with the smallest loss on' if ways > 1 else 'as recorded; of'
    note = (
        f'{name} is used as it is, on images of {width}×{height} normalized {best.name}: {chosen} '
        f'{min(IMAGES, len(data.train[1]))} training images ({percent(right, 0)} of them right)'
    )
    return Given(network, adapt_teacher(network, data, name), note, project)


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
    """Return the classes that the weights may be for: those of their file, the data's, a library's.

    Raises KdfastError if a file beside the weights names other classes than the data's.
    """
    if described := own_description(named):
        return [described['classes']]
    spelled = {plain(c): c for c in data.classes}
    if 'classes' in (recorded := read_weights_config(named)):
        missing = spelled.keys() - {plain(c) for c in recorded['classes']}
        if missing:
            raise KdfastError(
                f'{recorded["file"]} beside the weights {named.weights} names the classes '
                f'{short_list(recorded["classes"])}; missing of {data.name}: '
                f'{short_list(sorted(spelled[name] for name in missing))}. Correct the names there, or move it away'
            )
        return [[spelled.get(plain(c), c) for c in recorded['classes']]]
    published = published_classes(named) if named.where in LIBRARIES else []
    known = [classes for classes in published if spelled.keys() <= {plain(c) for c in classes}]
    return [list(data.classes), *([spelled.get(plain(c), c) for c in classes] for classes in known)]


def plain(
    name: str,  # Of a class
) -> str:
    "Return a name as it is compared: German_shepherd is German shepherd."
    return name.lower().replace('_', ' ')


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
        reject_probabilities(logits, name)
        losses.append(cross_entropy(logits, labels, reduction='none'))
        right.append(logits.argmax(1) == labels)
    return float(torch.cat(losses).mean()), float(torch.cat(right).float().mean())
