"""Restore tensors, arrays, random generators and values that are saved as text."""

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from kdfast.training.kinds import generator_type
from kdfast.training.value_types import VALUES

NOTHING = object()  # this process has no object where the checkpoint has one


class ValueRestorer:
    """Create the values of a checkpoint; tensors of modules and optimizers are filled in place.

    `restore_{kind}(state, old, where)` returns the value of a state; `old` is the value in its place, `where` the
    path of attributes to it.
    """

    def __init__(
        self,
        tensors: dict,  # Of StateSaver
        moved: Mapping[str, str],  # Device in place of another, as of `devices_moved`
    ):
        self.tensors = tensors
        self.moved = moved
        self.created = {}  # restored objects, by their number in the checkpoint
        self.memory = set()  # memory of tensors that were filled in place

    def restore_tensor(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
        in_place=False,  # Fill the existing tensor if it fits
    ):
        "Return a tensor with its gradient."
        if 'of' in state:
            x = self.view(state, old)
        else:
            x = self.values(state)
            if (in_place or isinstance(old, nn.Parameter)) and old is not NOTHING and old is not None:
                x = self.copy_into(old, x)
        x = self.with_type(x, state)
        if 'grad' in state:
            x.grad = torch.zeros_like(x) if state['grad'] is None else self.values(state['grad'])
        elif x.is_leaf:
            x.grad = None
        if x.is_leaf and x.is_floating_point():
            x.requires_grad_(state['requires_grad'])
        return x

    def values(
        self,
        state,  # Of a tensor
    ):
        "Return a new tensor with the saved order of dimensions in memory."
        stored = self.tensors[state['data']]
        x = torch.empty_permuted(
            [stored.shape[state['order'].index(d)] for d in range(stored.dim())],
            state['order'],
            dtype=stored.dtype,
            device=self.place_of(state['device']),
        )
        return x.copy_(stored.permute([state['order'].index(d) for d in range(stored.dim())]))

    def place_of(
        self,
        device: str,  # In the process that saved
    ) -> str:
        "Return the device in this process."
        return self.moved.get(device, device)

    def copy_into(
        self,
        old,  # Tensor of this process
        x,  # Restored values
    ):
        "Fill a tensor of a module or optimizer if shape and type match; return the tensor to use."
        place = old.device, old.untyped_storage().data_ptr(), old.storage_offset()
        if old.shape == x.shape and old.dtype == x.dtype and not (old.numel() and place in self.memory):
            self.memory.add(place)
            old.detach().copy_(x)
            return old
        if not isinstance(old, nn.Parameter):
            return x
        old.data = x
        return old

    def view(
        self,
        state,  # Of the view
        old,  # Tensor in its place
    ):
        "Return a view of a tensor that was restored before; the existing one if it is that view already."
        base = self.created[state['of']]
        x = base.detach().as_strided(state['size'], state['stride'], base.storage_offset() + state['offset'])
        if not isinstance(old, torch.Tensor):
            return x
        same = (old.data_ptr(), old.shape, old.stride()) == (x.data_ptr(), x.shape, x.stride())
        return old if same else x

    def with_type(
        self,
        x,  # Any tensor
        state,  # Of the tensor
    ):
        "Return a tensor as the saved subclass of Tensor."
        if type(x).__name__ == state['type']:
            return x
        if state['type'] == 'Parameter':
            return nn.Parameter(x, False)
        types = {t.__name__: t for t in subclasses(torch.Tensor)}
        return x.as_subclass(types[state['type']])

    def restore_array(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Return an array or a number of NumPy."
        x = self.tensors[state['data']].numpy().copy().reshape(state['shape'])
        return x[()] if state['scalar'] else x

    def restore_generator(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Return a random generator in its saved state; an existing one if it has the same type."
        same = generator_type(old) == state['type']
        x = old if same else new_generator(state['type'], self.place_of(state['about']))
        value = self(state['state'], NOTHING)
        if isinstance(x, random.Random):
            x.setstate(value)
        elif isinstance(x, np.random.Generator):
            x.bit_generator.state = value
        else:
            x.set_state(value)
        return x

    def restore_value(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Return a value that was saved as text."
        kind, read = next((t, read) for t, (_, read) in VALUES.items() if t.__name__ == state['type'])
        return read(self.place_of(state['text']) if kind is torch.device else state['text'])


def devices_moved(
    saved: str | None,  # Device of the training that saved; None if it is not known
    now: torch.device,  # Device of this process
) -> dict[str, str]:  # The latter by the former, if they differ
    """Return which device takes the place of which.

    The GPU of a process may have another number than that of the process that saved, and a GPU may be missing. What was
    on the CPU stays there: some of it always is.
    """
    return {} if saved in (None, 'cpu', str(now)) else {saved: str(now)}


def new_generator(
    type_: str,  # From `generator_type`
    about: str,  # Bit generator of NumPy, or device of PyTorch
):
    "Create a random generator. Raises KeyError for an unknown type."
    if type_ == 'np.Generator':
        bit_generators = {t.__name__: t for t in np.random.BitGenerator.__subclasses__()}
        return np.random.Generator(bit_generators[about]())
    if type_ == 'torch.Generator':
        return torch.Generator(about)
    return {'Random': random.Random, 'RandomState': np.random.RandomState}[type_]()


def subclasses(
    t: type,  # Any class
) -> set[type]:
    "Return a class and all its subclasses."
    return {t}.union(*(subclasses(s) for s in t.__subclasses__()))
