"Load a state dict into a network: match names, skip other classifiers, reject what does not fit."

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.core.format import shape_text
from kdfast.core.suggest import short_list
from kdfast.models.inference import unwrapped
from kdfast.models.weight_names import is_tensor, match_names, rename_as_torchvision, select, without_auxiliary


class Filled(NamedTuple):
    "What happened when weights were loaded."

    note: str  # For the user; may be empty
    new: list[str]  # Parameters that the weights did not have, or had for other classes


def fill(
    network: nn.Module,  # Changed in place
    state: dict,  # State dict, as `weight_files.read` returns it or another network's
    name: str,  # Of the network, for messages
    for_others: Callable,  # Builds the same network for another number of classes
) -> Filled:
    """Load weights by their names, without a prefix that all of them have.

    A classifier for other classes is skipped. Raises KdfastError, naming the keys, if the weights do not fit.
    """
    network = unwrapped(network)
    own = network.state_dict()
    state, notes = match_names(own, rename_as_torchvision(network, state), name)
    state, auxiliary = without_auxiliary(network, state)
    other_shape = [key for key in own if key in state and is_tensor(own[key]) and own[key].shape != state[key].shape]
    for key in own:
        check_dtype(name, key, own[key], state.get(key))
    missing, unknown = load(network, select(state, lambda key: key not in other_shape), name)
    missing = [key for key in own if key in missing and key not in other_shape]
    heads = class_dimensions(own, for_others().state_dict()) if other_shape or missing else {}
    check_keys(name, [key for key in missing if key not in heads], unknown)
    check_shapes(name, own, state, [key for key in other_shape if not is_head(heads.get(key), state[key].shape)])
    if auxiliary:
        notes.append(f'auxiliary heads ({short_list(auxiliary)}) are left out')
    if other_shape:
        n_classes = number_of_classes(heads[other_shape[0]], state[other_shape[0]].shape)
        notes.append(f'{names_are(other_shape)} for {n_classes} classes and left new')
    if missing:
        notes.append(f'{names_are(missing)} not among the weights and left new')
    return Filled(f'{name}: {"; ".join(notes)}' if notes else '', other_shape + missing)


def names_are(
    names: list[str],  # At least one
) -> str:
    "Join names, followed by the verb."
    return f'{", ".join(names)} {"are" if len(names) > 1 else "is"}'


def load(
    network: nn.Module,  # Changed in place
    state: OrderedDict,  # State dict
    name: str,  # Of the network, for the error
) -> tuple[set[str], list[str]]:  # Missing keys, unknown keys
    """Load a state dict. Without metadata, both the oldest and the current versions of modules are tried.

    `num_batches_tracked`, which old versions did not save, is not missing. Raises KdfastError as PyTorch's errors say.
    """
    if hasattr(state, '_metadata'):
        versions = [state._metadata]
    else:
        versions = [None, getattr(network.state_dict(), '_metadata', None)]
    found, error = [], None
    for version in versions:
        state._metadata = version
        if version is None:
            del state._metadata
        try:
            missing, unknown = network.load_state_dict(state, strict=False)
        except (RuntimeError, ValueError, KeyError, AttributeError) as e:
            error = e  # the state is not of this version
        else:
            found.append(({key for key in missing if not key.endswith('num_batches_tracked')}, unknown))
        if found and not any(found[-1]):
            break
    if not found:
        raise KdfastError(
            f'the weights of {name} are not of this network: {str(error).strip().splitlines()[-1]}'
        ) from error
    return min(found, key=lambda pair: len(pair[0]) + len(pair[1]))


def check_dtype(
    name: str,  # Of the network, for the error
    key: str,  # Of the tensor
    own: object,  # The network's tensor or extra state
    found: object,  # That of the weights; None if missing
):
    "Raise KdfastError for weights that are not floating-point, which load_state_dict would accept."
    if is_tensor(own) and is_tensor(found) and own.is_floating_point() and not found.is_floating_point():
        raise KdfastError(
            f'the weights of {name} are not of this network: {key} holds {found.dtype}, expected {own.dtype}'
        )


def check_keys(
    name: str,  # Of the network, for the error
    missing: list[str],  # Keys that the weights lack
    unknown: list[str],  # Keys that the network does not have
):
    "Raise KdfastError if there are missing or unknown keys."
    if missing or unknown:
        raise KdfastError(
            f'the weights of {name} are not of this network: missing {short_list(missing)}, '
            f'unexpected {short_list(unknown)}'
        )


def check_shapes(
    name: str,  # Of the network, for the error
    own: dict,  # State dict of the network
    state: dict,  # State dict of the weights
    keys: list[str],  # Of tensors with other shapes
):
    "Raise KdfastError if there are tensors with other shapes."
    if keys:
        found, expected = shape_text(state[keys[0]].shape), shape_text(own[keys[0]].shape)
        raise KdfastError(f'the weights of {name} are not of this network: {keys[0]} is {found}, expected {expected}')


def class_dimensions(
    own: dict,  # State dict of the network
    other: dict,  # State dict of the same network for another number of classes
) -> dict[str, list[tuple[int, bool]]]:  # By key: of each dimension, its length and whether it depends on the classes
    "Find the tensors whose shapes depend on the number of classes."
    return {
        key: [(n, n != m) for n, m in zip(tensor.shape, other[key].shape)]
        for key, tensor in own.items()
        if key in other and is_tensor(tensor) and tensor.shape != other[key].shape and tensor.dim() == other[key].dim()
    }


def is_head(
    dimensions: list[tuple[int, bool]]
    | None,  # Of `class_dimensions`; None if the shape does not depend on the classes
    shape: torch.Size,  # Of the weights
) -> bool:
    "Return whether a shape is that of a classifier for another number of classes."
    if dimensions is None or len(dimensions) != len(shape):
        return False
    return all(varies or n == m for (n, varies), m in zip(dimensions, shape))


def number_of_classes(
    dimensions: list[tuple[int, bool]],  # Of `class_dimensions`
    shape: torch.Size,  # Of the weights
) -> int:
    "Return the number of classes that a classifier's weights are for."
    return next(m for (_, varies), m in zip(dimensions, shape) if varies)
