"Undo what forward passes change in a network, apart from its parameters."

import random
from collections import deque
from collections.abc import Iterator, MutableSequence, MutableSet
from contextlib import contextmanager
from copy import copy, deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdfast.models.inference import is_script

CONTAINERS = dict, list, deque, set
GENERATORS = random.Random, np.random.Generator, np.random.RandomState


class Remembers:
    "Base class of kdfast's own modules whose attributes stay as the pass left them."


@contextmanager
def undone(
    network: nn.Module,  # Any network
) -> Iterator[None]:
    """Undo what happens meanwhile to buffers, attributes and random generators of modules.

    Each module computes with copies of its buffers and other tensors, and has its own objects back afterwards, to which
    nothing was written. Parameters are its own: they are needed for gradients. Hooks of the user are called, because
    some change the outputs or compute weights; what they record elsewhere remains. Lazy modules stay initialized.
    """
    saved, clones = [(x, copy(x)) for x in containers(network)], {}
    for container, contents in saved:
        refill(container, contents, lambda value: substitute(value, clones))
    scripted = [(b, b.clone()) for m in network.modules() if is_script(m) for b in m.buffers(recurse=False)]
    try:
        yield
    finally:
        for container, contents in saved:
            refill(container, contents)
        for buffer, value in scripted:
            if buffer.layout is torch.strided and not torch.equal(buffer, value):
                buffer.copy_(value)


def containers(
    network: nn.Module,  # Any network
) -> list:  # Each once
    "Return the dictionaries of the modules' attributes, and the containers among the attributes."
    found = {}
    for module in network.modules():
        if isinstance(module, Remembers) or is_script(module) or is_lazy_module(module):
            continue
        attributes = vars(module)
        found |= {id(x): x for x in (attributes, *attributes.values()) if isinstance(x, CONTAINERS)}
    return list(found.values())


def is_lazy_module(
    module: nn.Module,  # Any module
) -> bool:
    "Return whether the first pass initializes a module."
    return any(is_lazy(t) for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)))


def refill(
    container: dict | MutableSequence | MutableSet,  # Filled in place: others may refer to it
    contents: dict | MutableSequence | MutableSet,  # Of the same kind
    changed=lambda value: value,  # Applied to each value
):
    "Replace the contents of a container."
    if isinstance(container, dict):
        new = {key: changed(value) for key, value in contents.items()}
    else:
        new = contents if isinstance(container, set) else [changed(value) for value in contents]
    container.clear()
    (container.extend if isinstance(container, list | deque) else container.update)(new)


def substitute(
    value: object,  # Of a module
    clones: dict[int, object],  # Copies so far, by id of the original
) -> object:
    "Return a copy of a tensor that can be written to, or of a random generator; any other value itself."
    if isinstance(value, Tensor):
        if isinstance(value, nn.Parameter) or value.requires_grad:
            return value
        return clones.setdefault(id(value), value.clone())
    if isinstance(value, GENERATORS):
        return clones.setdefault(id(value), deepcopy(value))
    if isinstance(value, torch.Generator):
        return clones.setdefault(id(value), value.clone_state())
    return value
