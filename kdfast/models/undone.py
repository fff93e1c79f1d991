"Undo what forward passes, or training steps, change in a module and in all that it holds."

from collections import deque
from collections.abc import Collection, Iterator, MutableSequence, MutableSet
from contextlib import contextmanager
from copy import copy, deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdfast.models.inference import is_script
from kdfast.models.random_states import GENERATORS, copy_of_generator

CONTAINERS = dict, list, deque, set
COPIES = {nn.Parameter: deepcopy, Tensor: Tensor.clone, np.ndarray: np.ndarray.copy, GENERATORS: copy_of_generator}


class Remembers:
    "Base class of kdfast's own modules whose attributes stay as the pass left them."


@contextmanager
def undone(
    module: nn.Module,  # Any network or loss
    copied: Collection[int] = (),  # Parameters, by id, that are copied, too; the others are the module's own
) -> Iterator[None]:
    """Undo what happens meanwhile to buffers, attributes and random generators of modules.

    Each module computes with copies of its buffers and other tensors, and has its own objects back afterwards, to which
    nothing was written. Parameters are its own, because they are needed for gradients, unless they are `copied`. Hooks
    of the user are called, because some change the outputs or compute weights; what they record elsewhere remains. Lazy
    modules stay initialized.
    """
    saved, copies = [(x, copy(x)) for x in containers(module)], {}
    for container, contents in saved:
        refill(container, contents, lambda value: substitute(value, copies, copied))
    scripted = [
        (t, t.clone())
        for m in module.modules()
        if is_script(m)
        for t in (*m.buffers(recurse=False), *(p for p in m.parameters(recurse=False) if id(p) in copied))
    ]
    try:
        yield
    finally:
        for container, contents in saved:
            refill(container, contents)
        for tensor, value in scripted:
            if tensor.layout is torch.strided and not torch.equal(tensor, value):
                tensor.data.copy_(value)


def containers(
    module: nn.Module,  # Any network or loss
) -> list:  # Each once
    "Return the dictionaries of the attributes of all modules, and the containers in them."
    found, left = {}, [module]
    while left:
        value = left.pop()
        if isinstance(value, nn.Module):
            own = not (isinstance(value, Remembers) or is_script(value) or is_lazy_module(value))
            left += [vars(value)] if own else value.children()
        elif isinstance(value, tuple):
            left += value
        elif isinstance(value, CONTAINERS) and id(value) not in found:
            found[id(value)] = value
            left += value.values() if isinstance(value, dict) else value
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
    copies: dict[int, object],  # Those so far, by id of the original
    copied: Collection[int] = (),  # Parameters, by id, that are copied
) -> object:
    "Return a copy of a tensor, array or random generator; any other value itself."
    if isinstance(value, tuple):
        items = [substitute(item, copies, copied) for item in value]
        changed = any(new is not old for new, old in zip(items, value))
        return (getattr(value, '_make', tuple)(items)) if changed else value
    own = isinstance(value, Tensor) and (isinstance(value, nn.Parameter) or value.requires_grad)
    if own and id(value) not in copied or isinstance(value, np.memmap):
        return value
    for kinds, make_copy in COPIES.items():
        if isinstance(value, kinds):
            return copies.setdefault(id(value), make_copy(value))
    return value
