"""The state of objects as JSON and tensors: what a checkpoint holds.

`Take` walks through an object and everything that it holds. Nothing is pickled, and no class is named to be made: kdfast.training.restore
walks through the same objects, made by the same program in another process, and gives them the state back. What is held in several
places is written once. Whatever can neither be written nor made anew raises Unkept.
"""

import random

import numpy as np
import torch
from fastai.basics import Callback
from torch import nn

from kdfast.training.kinds import (
    CONTAINERS,
    PLAIN,
    SERIES,
    VALUES,
    attributes,
    code_text,
    generator_type,
    held_by,
    kind_of,
    type_text,
)

PACKED = 64  # numbers from which on a list is a tensor


DTYPES = {
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
}


class Unkept(Exception):
    "Something whose state cannot be kept."

    def __init__(
        self,
        where: str,  # How it is reached
        what: str,  # What it is
    ):
        where = where.rpartition(':')[2].removeprefix('learner.')
        super().__init__(f'{where} is {what}')


class Take:
    """Take the state of values, and of what they hold.

    `tensors` are those met, by name; `fixed` the places of objects that cannot be made from their state, and what is there: a process
    that restores must have the same.
    """

    def __init__(
        self,
        series=None,  # Keeps lists that grow with every step in a file of their own; without it they are as other lists
    ):
        self.series, self.tensors, self.fixed = series, {}, {}
        self.numbers, self.alive, self.extents, self.growing = {}, [], {}, set()

    def __call__(self, x, where: str = ''):
        "The state of `x` as JSON"
        if type(x) in PLAIN:
            return x
        if id(x) in self.numbers:
            return dict(kind='ref', n=self.numbers[id(x)])
        kind = kind_of(x)
        if kind is None:
            raise Unkept(where, f'a {type_text(x)}')
        n = self.numbers[id(x)] = len(self.alive)
        self.alive.append(x)  # so that no other object gets its id
        if isinstance(x, Callback):
            where = f'{where}:{type(x).__name__}'
        return dict(kind=kind, n=n) | getattr(self, kind)(x, where)

    def named(self, values, where):
        return [[name, self(value, f'{where}.{name}')] for name, value in values.items()]

    def store(self, tensor):
        name = f'{len(self.tensors)}'
        self.tensors[name] = tensor
        return name

    # Numbers

    def tensor(self, x, where):
        grad = x.grad if x.is_leaf else None
        for t in (x, grad):
            if t is not None and (
                t.layout is not torch.strided or t.is_quantized or t.is_meta or t.dtype not in DTYPES
            ):
                raise Unkept(where, f'a {t.layout} tensor of {t.dtype}')
        about = dict(type=type(x).__name__, requires_grad=x.requires_grad and x.is_leaf)
        if grad is not None:
            about['grad'] = self.laid_out(grad) if grad.any() else None
        if x.numel() and (view := self.view(x, where)):
            return about | view
        return about | self.laid_out(x)

    def laid_out(self, x):
        "Its values, and the order of its dimensions in memory"
        x = x.detach().as_subclass(torch.Tensor)
        order = sorted(range(x.dim()), key=lambda d: -x.stride(d))
        return dict(data=self.store(x.permute(order).contiguous()), order=order, device=str(x.device))

    def view(self, x, where):
        "Of which tensor met before it is a part, if of any"
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
            raise Unkept(where, 'a tensor that shares its memory with a part of itself')
        known.append((start, stop, x))
        return None

    def array(self, x, where):
        return dict(
            data=self.store(torch.from_numpy(np.array(x, order='C', ndmin=1))),
            shape=list(x.shape),
            scalar=isinstance(x, np.generic),
        )

    def generator(self, x, where):
        get = (
            x.getstate
            if isinstance(x, random.Random)
            else x.get_state
            if isinstance(x, np.random.RandomState | torch.Generator)
            else lambda: x.bit_generator.state
        )
        about = type(x.bit_generator).__name__ if isinstance(x, np.random.Generator) else str(getattr(x, 'device', ''))
        return dict(type=generator_type(x), about=about, state=self(get(), where))

    def value(self, x, where):
        type_, (write, _) = next((t, how) for t, how in VALUES.items() if isinstance(x, t))
        return dict(type=type_.__name__, text=write(x))

    # Containers

    def container(self, x, where):
        exact = type(x).__name__ if CONTAINERS.get(type(x).__name__) is type(x) else None
        if exact is None:
            self.fixed[where] = type_text(x)
        about = dict(type=exact or type_text(x))
        if id(x) in self.growing and self.series and (kept := self.series.keep(x)):
            return about | dict(series=kept)
        if isinstance(x, dict):
            return about | dict(
                pairs=[
                    [self(key, where), self(value, f'{where}.{place(key, i)}')]
                    for i, (key, value) in enumerate(x.items())
                ]
            )
        items = list(x)
        if len(items) >= PACKED and (packed := pack(items)) is not None:
            return about | dict(data=self.store(packed))
        states = [self(item, f'{where}.{i}') for i, item in enumerate(items)]
        self.fixed |= {
            f'{where}.{i}': 'inert'
            for i, state in enumerate(states)
            if isinstance(state, dict) and state['kind'] == 'inert'
        }
        return about | dict(items=states, maxlen=getattr(x, 'maxlen', None))

    # Objects

    def object(self, x, where):
        self.fixed[where] = type_text(x)
        names = set().union(*(names for t, names in SERIES.items() if isinstance(x, t)))
        for lists in (vars(x).get(name) for name in names):
            self.growing |= {id(held) for held in (lists.values() if isinstance(lists, dict) else [lists])}
        return dict(type=type_text(x), attributes=self.named(attributes(x), where))

    def stateful(self, x, where):
        self.fixed[where] = type_text(x)
        return dict(type=type_text(x), state=self(x.state_dict(), where))

    def own(self, x, where):
        "A callback of kdfast's: what it says, what it trains, and functions of the user's that it was given"
        self.fixed[where] = type_text(x)
        given = {
            name: value
            for name, value in vars(x).items()
            if callable(value) and not isinstance(value, nn.Module | Callback) and name not in ('_learn', 'learn')
        }
        trained = getattr(x, 'trained', None)
        state = x.state_dict() if hasattr(type(x), 'state_dict') else None
        return dict(
            type=type_text(x),
            attributes=self.named(given, where),
            trained=self(trained, where),
            state=self(state, where),
        )

    def module(self, x, where):
        parts = {part: list(vars(x)[part]) for part in ('_parameters', '_buffers', '_modules')}
        self.fixed[where] = f'{type_text(x)} of {[name for names in parts.values() for name in names]}'
        return dict(
            type=type_text(x),
            parts=[self.named(vars(x)[part], where) for part in parts],
            attributes=self.named(attributes(x), where),
        )

    def code(self, x, where):
        "A function, a class or a constant, which stays what it is; what it holds may change"
        self.fixed[where] = text = code_text(x)
        return dict(text=text, held=self.named(held_by(x), where))

    def file(self, x, where):
        "What was written to it so far"
        x.flush()
        self.fixed[where] = type_text(x)
        with open(x.name, 'rb') as f:
            content = f.read()
        return dict(
            data=self.store(torch.frombuffer(bytearray(content or b'\n'), dtype=torch.uint8)), size=len(content)
        )

    def inert(self, x, where):
        return {}


def place(key, i):
    return key if type(key) in PLAIN else i


def pack(numbers):
    "A tensor of them, if they are all of one kind"
    kinds = {type(number) for number in numbers}
    if kinds == {float}:
        return torch.tensor(numbers, dtype=torch.float64)
    return torch.tensor(numbers) if kinds == {int} and max(map(abs, numbers)) < 2**63 else None
