"Keep what an object holds, and give it back: tensors in place, with all that refers to them."

import random
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdfast.core.errors import KdfastError


def keep(
    value: object,  # A module, a tensor, or a container of such; other objects keep what they hold
    seen: dict | None = None,  # Values that are kept already, by id
) -> Iterator[Callable]:  # Each gives something back
    "Yield the functions that restore a value, the outer first. Raises KdfastError for lazy weights."
    seen = {} if seen is None else seen
    if id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, nn.Module):
        value = vars(value)
    if isinstance(value, dict):
        yield keep_items(value, value.update)
    elif isinstance(value, list | deque):
        yield keep_items(value, value.extend)
    elif isinstance(value, set):
        yield keep_items(value, value.update)
    elif restore := keep_leaf(value):
        yield restore
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list | deque | tuple):
        for item in [*inner]:
            yield from keep(item, seen)


def keep_items(
    container: dict | list | deque | set,  # What is emptied
    fill: Callable,  # Its method that takes all items
) -> Callable:
    "Return a function that gives a container its items of now."
    items = container.copy()

    def restore():
        container.clear()
        fill(items)

    return restore


def keep_leaf(
    value: object,  # Of any type
) -> Callable | None:  # None for what holds nothing that changes, or is unknown
    "Return a function that gives a tensor, an array or a random generator its content of now."
    if isinstance(value, Tensor):
        if is_lazy(value):
            raise KdfastError('lr_find cannot restore a loss with lazy parameters: call the loss once before')
        copied = value.detach().clone()
        return lambda: value.data.copy_(copied)
    if isinstance(value, np.ndarray):
        array = value.copy()
        return lambda: np.copyto(value, array)
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, random.Random):
        position = value.getstate()
        return lambda: value.setstate(position)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator.state
        return lambda: setattr(value.bit_generator, 'state', bits)
    return None
