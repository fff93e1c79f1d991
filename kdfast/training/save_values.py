"""Save tensors, arrays, random generators and values that become text."""

import random

import numpy as np
import torch

from kdfast.training.kinds import generator_type
from kdfast.training.value_types import DTYPES, VALUES


class UnsupportedState(Exception):
    "A value whose state cannot be saved."

    def __init__(
        self,
        where: str,  # Path of attributes to the value
        what: str,  # Description of the value
    ):
        where = where.rpartition(':')[2].removeprefix('learner.')
        super().__init__(f'{where} is {what}')


class ValueSaver:
    """Save the values of a checkpoint.

    `save_{kind}(x, where)` returns the state of a value of that kind as JSON; `where` is the path of attributes to it.
    `tensors` are the tensors by name.
    """

    def __init__(self):
        self.tensors = {}
        self.numbers = {}  # by id of an object
        self.extents = {}  # start, end and tensor, by storage

    def store(
        self,
        tensor,  # Contiguous
    ):
        "Add a tensor to `tensors`; return its name."
        name = f'{len(self.tensors)}'
        self.tensors[name] = tensor
        return name

    def save_tensor(
        self,
        x,  # Tensor
        where,  # Path of attributes to it
    ):
        "Save a tensor with its gradient."
        grad = x.grad if x.is_leaf else None
        for t in (x, grad):
            if t is not None and not is_supported(t):
                raise UnsupportedState(where, f'a {t.layout} tensor of {t.dtype}')
        about = dict(type=type(x).__name__, requires_grad=x.requires_grad and x.is_leaf)
        if grad is not None:
            about['grad'] = self.save_values(grad) if grad.any() else None
        if x.numel() and (view := self.save_view(x, where)):
            return about | view
        return about | self.save_values(x)

    def save_values(
        self,
        x,  # Tensor
    ):
        "Save the values of a tensor, and the order of its dimensions in memory."
        x = x.detach().as_subclass(torch.Tensor)
        order = sorted(range(x.dim()), key=lambda d: -x.stride(d))
        return dict(data=self.store(x.permute(order).contiguous()), order=order, device=str(x.device))

    def save_view(
        self,
        x,  # Tensor with values
        where,  # Path of attributes to it
    ):
        "Return how a tensor is a view of one that was saved before, or None."
        start = x.storage_offset() * x.element_size()
        stop = start + (sum((size - 1) * stride for size, stride in zip(x.shape, x.stride())) + 1) * x.element_size()
        known = self.extents.setdefault((x.device, x.untyped_storage().data_ptr()), [])
        for first, last, base in known:
            if stop <= first or last <= start:
                continue
            if first <= start and stop <= last and base.dtype == x.dtype:
                return dict(
                    of=self.numbers[id(base)],
                    size=list(x.shape),
                    stride=x.stride(),
                    offset=x.storage_offset() - base.storage_offset(),
                )
            raise UnsupportedState(where, 'a tensor that shares its memory with a part of itself')
        known.append((start, stop, x))
        return None

    def save_array(
        self,
        x,  # Array or number of NumPy
        where,  # Path of attributes to it
    ):
        "Save an array of NumPy."
        values = torch.from_numpy(np.array(x, order='C', ndmin=1))
        return dict(data=self.store(values), shape=list(x.shape), scalar=isinstance(x, np.generic))

    def save_generator(
        self,
        x,  # Random generator
        where,  # Path of attributes to it
    ):
        "Save the state of a random generator."
        if isinstance(x, random.Random):
            state = x.getstate()
        elif isinstance(x, np.random.RandomState | torch.Generator):
            state = x.get_state()
        else:
            state = x.bit_generator.state
        about = type(x.bit_generator).__name__ if isinstance(x, np.random.Generator) else str(getattr(x, 'device', ''))
        return dict(type=generator_type(x), about=about, state=self(state, where))

    def save_value(
        self,
        x,  # One of VALUES
        where,  # Path of attributes to it
    ):
        "Save a value as text."
        type_, (write, _) = next((t, functions) for t, functions in VALUES.items() if isinstance(x, t))
        return dict(type=type_.__name__, text=write(x))


def is_supported(
    tensor: torch.Tensor,  # Any tensor
) -> bool:
    "Return whether the values of a tensor can be saved."
    strided = tensor.layout is torch.strided and not tensor.is_quantized
    return strided and not tensor.is_meta and tensor.dtype in DTYPES
