"Build networks by name: kdfast's own, torchvision's, timm's, or by a user's function."

import functools
import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from kdfast.core.errors import KdfastError
from kdfast.core.explain import errors_explained
from kdfast.core.names import LIBRARIES, PRETRAINED, Name, parse
from kdfast.core.projects import project_of_file, project_of_package
from kdfast.core.source import Project, find_function
from kdfast.core.suggest import near_names
from kdfast.data.dataset import Data
from kdfast.models import pretrained, study_networks, weight_files, weights
from kdfast.models.pretrained import import_timm
from kdfast.models.probe import examine, structure, try_forward
from kdfast.models.sizes import SIZE_ARGUMENTS

AUXILIARY = ('googlenet', 'inception_v3')  # networks of torchvision that return more than logits in training by default


def build_network(
    name: str,  # wide, torchvision:resnet18, timm:resnet50@pretrained, models.py:tiny(width=16)@tiny.safetensors, …
    n_classes: int,  # Outputs
    notify: Callable = lambda note: None,  # Called with a message for the user
    size: tuple[int, int] | None = None,  # Height and width of the images; needed by networks for one image size
) -> nn.Module:
    """Build a network by its name and load the weights that the name gives behind an @.

    A function of a file or a package is called with the number of classes and the arguments in the name. Weights are
    those of the library (@pretrained) or of a file, from which only tensors are read. A classifier for other classes is
    initialized anew. Raises KdfastError if there is no such network, or if the weights do not fit.
    """
    named = fit_to_size(name, n_classes, size)
    network = create_network(named, n_classes, size)
    if named.weights and is_lazy_network(network):
        raise KdfastError(f'{named} has lazy modules: its weights can only be loaded if the size of images is known')
    if named.weights:
        notify(fill_weights(network, named, n_classes, size).note)
    return network


def is_lazy_network(
    network: nn.Module,  # Any network
) -> bool:
    "Return whether a network has uninitialized parameters or buffers."
    return any(is_lazy(t) for t in (*network.parameters(), *network.buffers()))


def create_network(
    named: Name,  # Of the network
    n_classes: int,  # Outputs
    size: tuple[int, int] | None,  # Height and width of the images; initializes lazy modules
    project: Project | None = None,  # The user's code that builds it; found by the name if None
) -> nn.Module:
    "Create a network as its library or function does, without loading weights. Raises KdfastError."
    doing = f'{named} could not be built for {n_classes} classes'
    with errors_explained(doing, None):
        project = project or project_of(named)
    with errors_explained(doing, project):
        network = constructor(named, project)(n_classes, **named.keywords)
    if not isinstance(network, nn.Module):
        network = getattr(network, 'model', network)  # of a fastai Learner
    if not isinstance(network, nn.Module):
        raise KdfastError(f'{named} gave {type(network).__name__}, expected an nn.Module')
    if size and is_lazy_network(network):
        modes = {module: module.training for module in network.modules()}
        try_forward(network, str(named), [(False, 2)], size)
        for module, training in modes.items():
            module.training = training
    return network


def constructor(
    named: Name,  # Of the network
    project: Project | None,  # The user's code that builds it
) -> Callable:  # Called with the number of classes and keyword arguments
    "Return the function that creates a network. Raises KdfastError if there is none."
    where, what = named.where, named.what
    if where == 'torchvision':
        from torchvision.models import get_model, list_models

        check_listed(what, list_models(), where)
        return lambda n_classes, **arguments: get_model(what, weights=None, num_classes=n_classes, **arguments)
    if where == 'timm':
        timm = import_timm()
        check_listed(what.partition('.')[0], timm.list_models(), where)
        return lambda n_classes, **arguments: timm.create_model(what, num_classes=n_classes, **arguments)
    if project:
        return project.function(what)
    return find_function(importlib.import_module(where) if where else study_networks, what, where or 'kdfast')


def check_listed(
    what: str,  # Name of a network
    names: list[str],  # All networks of the library
    where: str,  # Name of the library
):
    "Raise KdfastError, with similar names, if a library has no such network."
    if what not in names:
        raise KdfastError(f'{where} has no network {what}; {near_names(what, names)}')


def project_of(
    named: Name,  # Of a network
) -> Project | None:  # None if a library or an installed package builds it
    "Return the user's code that builds a network."
    if named.is_file:
        return project_of_file(named.where)
    return project_of_package(named.where) if named.is_code else None


def fill_weights(
    network: nn.Module,  # Created by `create_network`
    named: Name,  # Of the network, with its weights
    n_classes: int,  # Outputs
    size: tuple[int, int] | None,  # Height and width of the images
) -> weights.Filled:
    "Load the weights that a name gives. Raises KdfastError if they do not fit."
    without_weights = Name(named.where, named.what, named.arguments)

    def fill_from(state):
        return weights.fill(network, state, str(named), lambda: create_network(without_weights, n_classes + 1, size))

    if named.weights == PRETRAINED:
        return fill_from(pretrained.pretrained_state(without_weights))
    state, note = weight_files.read(Path(named.weights))
    try:
        filled = fill_from(state)
    except KdfastError:
        converted = pretrained.converted_by_timm(without_weights, state) if named.where == 'timm' else None
        if converted is None:
            raise
        filled = fill_from(converted)
    return weights.Filled('; '.join(filter(None, (note, filled.note))), filled.new)


# Networks for one image size, and networks with auxiliary heads


def fit_to_size(
    name: str,  # Of a network
    n_classes: int,  # Outputs
    size: tuple[int, int] | None,  # Height and width of the images
) -> Name:
    "Add the arguments that a library needs to return logits alone and to accept images of that size."
    named = parse(name)
    if named.where == 'torchvision' and named.what.removeprefix('quantized_') in AUXILIARY:
        arguments = dict(aux_logits=False, init_weights=True)
        if named.weights == PRETRAINED:
            arguments['transform_input'] = True  # the normalization that the weights were trained with
        named = named.with_arguments(**arguments | named.keywords)
    return named if size is None or named.where not in LIBRARIES else for_size(str(named), n_classes, tuple(size))


@functools.cache
def for_size(
    name: str,  # Of a network of a library
    n_classes: int,  # Outputs
    size: tuple[int, int],  # Height and width of the images
) -> Name:
    """Add the argument for an image size to a name, if there is one.

    A name that gives a size, or whose network accepts such images, is returned unchanged.
    """
    named = parse(name)
    arguments = SIZE_ARGUMENTS[named.where]
    if any(argument in named.keywords for argument in arguments):
        return named
    if accepts_size(create_network(named, n_classes, None), size):
        return named
    side = size[0] if size[0] == size[1] else size
    candidates = [
        named.with_arguments(**{argument: value}) for argument in arguments for value in dict.fromkeys((side, size))
    ]
    networks = [(candidate, try_to_create(candidate, n_classes)) for candidate in candidates]
    created = [(candidate, network) for candidate, network in networks if network is not None]
    for candidate, network in created:
        if accepts_size(network, size):
            return candidate
    return created[0][0] if created else named


def try_to_create(
    named: Name,  # Of a network
    n_classes: int,  # Outputs
) -> nn.Module | None:
    "Create a network; return None if it does not have such an argument."
    try:
        return create_network(named, n_classes, None)
    except KdfastError:
        return None


def accepts_size(
    network: nn.Module,  # Left in evaluation mode
    size: tuple[int, int],  # Height and width of the images
) -> bool:
    "Return whether a network can process images of that size."
    try:
        try_forward(network, '', [(False, 2)], size)
    except KdfastError:
        return False
    return True


# Checks before training


def check_network(
    name: str,  # Of a network
    data: Data,  # To train it on
) -> str:  # The digest that `structure` returns
    "Raise KdfastError unless a network can be built, trained, saved and loaded; write nothing."
    n_classes, size = len(data.classes), tuple(data.shape)
    named = fit_to_size(name, n_classes, size)
    with torch.random.fork_rng([]):
        network = build_network(str(named), n_classes, size=size)
        other = create_network(named, n_classes, size)
        return examine(network, other, name, data)


def structure_of(
    name: str,  # Of a network
    data: Data,  # To train it on
) -> str:  # 16 hexadecimal digits
    "Return the digest of a network's structure that `check_network` returns."
    n_classes = len(data.classes)
    return structure(create_network(fit_to_size(name, n_classes, data.shape), n_classes, tuple(data.shape)))
