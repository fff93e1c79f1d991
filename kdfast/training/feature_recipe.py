"Choose a recipe that compares features, for a student and a teacher of any kind."

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.core.names import NETWORKS, is_run, parse
from kdfast.data.dataset import Data
from kdfast.distill.regressor import regressor
from kdfast.models.front import features, front, front_back
from kdfast.models.layers import Layer, layers, matching_layers
from kdfast.models.saved import load_or_build

N_IMAGES = 2  # to compute shapes


def feature_recipe(
    student: str,  # Network
    teacher: str,  # Network or run directory
    data: Data,  # To train on
) -> tuple[str, dict]:  # Name and arguments, besides student and teacher
    """Choose exp2 if a hint layer and a guided layer can be paired, else a recipe for any networks.

    Without a pair, that is sp, which compares the similarities of images in the last feature maps; if a network has
    no feature maps, dist, which compares outputs. Raises KdfastError for a network that cannot be built.
    """
    if {student, teacher} <= set(NETWORKS):
        return 'exp2', {}
    networks = [built(name, data) for name in (teacher, student)]
    found = [layers(network, data.shape) for network in networks]
    pairs = matching_layers(*found)
    for hint, guided in middle_first(pairs):
        if can_hint(*networks, hint.name, guided.name, data.shape):
            return 'exp2', dict(hint=f'{hint.name}:{guided.name}')
    if all(found):
        return 'sp', dict(layers=':'.join(map(last_map, found)))
    return 'dist', {}


def last_map(
    found: list[Layer],  # Of a network, one at least
) -> str:
    "Return the name of the last layer with several positions; of the last one if none has."
    maps = [layer for layer in found if layer.shape[1:] > (1, 1)]
    return (maps or found)[-1].name


def built(
    name: str,  # Network or run directory
    data: Data,  # Gives classes and size
) -> nn.Module:
    "Return the network; without the weights that its name gives, for its layers are what counts."
    plain = name if is_run(name) else str(replace(parse(name), weights=''))
    with torch.random.fork_rng([]):
        return load_or_build(plain, len(data.classes), data.shape)


def middle_first(
    pairs: list,  # In the order in which they compute
) -> Iterator:
    "Yield the middle pair first, as FitNets hints, then those around it."
    middle = (len(pairs) - 1) / 2
    yield from sorted(pairs, key=lambda pair: abs(pairs.index(pair) - middle))


def can_hint(
    teacher: nn.Module,  # Not changed
    student: nn.Module,  # Not changed
    hint: str,  # Layer of the teacher
    guided: str,  # Layer of the student
    size: tuple[int, int],  # Of the images
) -> bool:
    "Return whether the student has a front and a back there, and a regressor to the hint exists."
    xb = torch.zeros(N_IMAGES, 3, *size)
    try:
        fronts = front(student, guided), front(teacher, hint)
        regressor(*fronts, xb)
        return features(fronts[0], xb).dim() == 4 and all(front_back(student, guided, xb))
    except KdfastError:
        return False
