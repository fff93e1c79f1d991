"Any network by its name: kdfast's own, torchvision's, timm's, a function in a file or a package. Built, checked, saved, loaded."

import functools
import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from kdfast.core.errors import KdfastError
from kdfast.core.names import LIBRARIES, PRETRAINED, Name, parse
from kdfast.core.source import errors_explained, find_function, near_names, of_file, of_package
from kdfast.data.dataset import Data
from kdfast.models import study_networks, weights
from kdfast.models.probe import examine, look, structure
from kdfast.models.weights import import_timm

AUXILIARY = ('googlenet', 'inception_v3')  # of torchvision: in training they give more than logits, unless told not to
SIZES = dict(
    timm=('img_size',), torchvision=('image_size', 'input_size')
)  # arguments of networks for one size of images


# A name becomes a network


def build_network(
    name: str,  # wide, torchvision:resnet18, timm:resnet50@pretrained, models.py:tiny(width=16)@tiny.safetensors, package.module:function
    n_classes: int,  # Outputs
    said: Callable = lambda note: None,  # Is told what a user should know
    size: tuple[int, int]
    | None = None,  # Height and width of the images; needed by networks that are made for one size
) -> nn.Module:
    """A new network of that name, filled with the weights behind its @, where there are any.

    A function of a file or a package is called with the number of classes and the arguments of the name. Weights are those of
    the library (@pretrained) or of a file, which is never unpickled but for tensors. A classifier for other classes is left new.
    Raises KdfastError where there is no such network, or the weights are not its own.
    """
    named = fit_to_size(name, n_classes, size)
    network = create_network(named, n_classes, size)
    if named.weights and is_lazy_network(network):
        raise KdfastError(f'{named} is lazy: weights can be loaded where the size of images is known')
    if named.weights:
        said(fill_weights(network, named, n_classes, size))
    return network


def is_lazy_network(network):
    return any(is_lazy(t) for t in (*network.parameters(), *network.buffers()))


def create_network(named, n_classes, size, project=None):
    "The network as its library or function makes it; what is lazy in it has seen an image"
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
        look(network, str(named), [(False, 2)], size)
        for module, training in modes.items():
            module.training = training
    return network


def constructor(named, project):
    "What builds it, given the number of classes"
    where, what = named.where, named.what
    if where == 'torchvision':
        from torchvision.models import get_model, list_models

        check_listed(what, list_models(), where)
        return lambda n_classes, **given: get_model(what, weights=None, num_classes=n_classes, **given)
    if where == 'timm':
        timm = import_timm()
        check_listed(what.partition('.')[0], timm.list_models(), where)
        return lambda n_classes, **given: timm.create_model(what, num_classes=n_classes, **given)
    if project:
        return project.function(what)
    return find_function(importlib.import_module(where) if where else study_networks, what, where or 'kdfast')


def check_listed(what, names, where):
    "Raise KdfastError, with the nearest names, where the library has no such network"
    if what not in names:
        raise KdfastError(f'{where} has no network {what}; {near_names(what, names)}')


def project_of(named):
    "The user's code that builds it; None where a library or an installed package does"
    return of_file(named.where) if named.is_file else of_package(named.where) if named.is_code else None


def fill_weights(network, named, n_classes, size):
    "Weights from the name's library or file"
    bare = Name(named.where, named.what, named.arguments)

    def fill_from(found):
        return weights.fill(network, found, str(named), lambda: create_network(bare, n_classes + 1, size))

    if named.weights == PRETRAINED:
        return fill_from(weights.published(bare))
    found, note = weights.read(Path(named.weights))
    try:
        filled = fill_from(found)
    except KdfastError:
        converted = weights.as_timm_reads(bare, found) if named.where == 'timm' else None
        if converted is None:
            raise
        filled = fill_from(converted)
    return '; '.join(filter(None, (note, filled)))


# Networks for one size of images, and those with auxiliary heads


def fit_to_size(
    name: str,  # Of a network
    n_classes: int,  # Outputs
    size: tuple[int, int] | None,  # Height and width of the images
) -> Name:
    "The name, with the arguments that its library needs for logits alone, and to take images of that size."
    named = parse(name)
    if named.where == 'torchvision' and named.what.removeprefix('quantized_') in AUXILIARY:
        more = (
            dict(transform_input=True) if named.weights == PRETRAINED else {}
        )  # so that images are as the weights have seen them
        named = named.having(**dict(aux_logits=False, init_weights=True) | more | named.keywords)
    return named if size is None or named.where not in LIBRARIES else for_size(str(named), n_classes, tuple(size))


@functools.cache
def for_size(name, n_classes, size):
    "As it is if it takes such images, or says for which it is; else for images of that size, if its library can do so"
    named, arguments = parse(name), SIZES[parse(name).where]
    if any(argument in named.keywords for argument in arguments) or takes_size(
        create_network(named, n_classes, None), size
    ):
        return named
    side = size[0] if size[0] == size[1] else size
    candidates = [named.having(**{argument: value}) for argument in arguments for value in dict.fromkeys((side, size))]
    built = [
        (candidate, network) for candidate in candidates if (network := try_to_create(candidate, n_classes)) is not None
    ]
    return next(
        (candidate for candidate, network in built if takes_size(network, size)), built[0][0] if built else named
    )


def try_to_create(named, n_classes):
    try:
        return create_network(named, n_classes, None)
    except KdfastError:
        return None  # it has no such argument


def takes_size(network, size):
    try:
        look(network, '', [(False, 2)], size)
    except KdfastError:
        return False
    return True


# Before training


def check_network(
    name: str,  # Of a network
    data: Data,  # What it is for
) -> str:  # A digest of its structure
    "Raise KdfastError, before anything is written, where the network cannot be built and filled, trained on the data, or kept."
    n_classes, size = len(data.classes), tuple(data.shape)
    named = fit_to_size(name, n_classes, size)
    with torch.random.fork_rng([]):
        return examine(
            build_network(str(named), n_classes, size=size), create_network(named, n_classes, size), name, data
        )


def structure_of(name, data):
    "The digest that `probe` gives"
    return structure(
        create_network(fit_to_size(name, len(data.classes), data.shape), len(data.classes), tuple(data.shape))
    )
