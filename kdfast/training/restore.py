"""The state that kdfast.training.snapshot took, back in the objects that held it.

`Put` walks through objects that the same program made anew, in the same order, and fills them in place. It makes numbers, tensors and
plain containers, and nothing else: no file can choose a class or a function.
"""

import random
from types import FunctionType

import numpy as np
import torch
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.training.kinds import (
    CONTAINERS,
    PLAIN,
    VALUES,
    attributes,
    code_text,
    generator_type,
    held_by,
    kind_of,
    slots_of,
    type_text,
)
from kdfast.training.snapshot import place

NOTHING = object()  # what is where the other process has something


class Put:
    """Put states back. Raises KdfastError where an object is not what it was when its state was taken.

    Calling it with a state and what is in its place gives what belongs there: mostly the same object, filled.
    """

    def __init__(
        self,
        tensors: dict,  # Of Take
        series=None,  # Of Take, too
    ):
        self.tensors, self.series, self.made, self.filled, self.memory = tensors, series, {}, {}, set()

    def __call__(self, state, old, where: str = ''):
        if type(state) in PLAIN:
            return state
        if state['kind'] == 'ref':
            return self.made[state['n']]
        return self.keep(state, getattr(self, f"put_{state['kind']}")(state, old, where))

    def keep(self, state, x):
        self.made[state['n']] = x
        return x

    def fill(self, state, old, where):
        "An object that is there and that no other state has filled; from now on the one that is meant"
        if type_text(old) != state['type'] or id(old) in self.filled:
            raise other(where, state['type'], old)
        self.filled[id(old)] = old
        return self.keep(state, old)

    # Numbers

    def put_tensor(self, state, old, where, in_place=False):
        if 'of' in state:
            x = self.part(state, old)
        else:
            x = self.values(state)
            if (in_place or isinstance(old, nn.Parameter)) and old is not NOTHING and old is not None:
                x = self.overwritten(old, x)
        x = self.typed(x, state)
        if 'grad' in state:
            x.grad = torch.zeros_like(x) if state['grad'] is None else self.values(state['grad'])
        elif x.is_leaf:
            x.grad = None
        if x.is_leaf and x.is_floating_point():
            x.requires_grad_(state['requires_grad'])
        return x

    def values(self, state):
        "New, its dimensions in the order in memory that they had"
        stored = self.tensors[state['data']]
        x = torch.empty_permuted(
            [stored.shape[state['order'].index(d)] for d in range(stored.dim())],
            state['order'],
            dtype=stored.dtype,
            device=state['device'],
        )
        return x.copy_(stored.permute([state['order'].index(d) for d in range(stored.dim())]))

    def overwritten(self, old, x):
        "What a module or an optimizer holds stays the same tensor"
        place = old.device, old.untyped_storage().data_ptr(), old.storage_offset()
        if old.shape == x.shape and old.dtype == x.dtype and not (old.numel() and place in self.memory):
            self.memory.add(place)
            old.detach().copy_(x)
            return old
        if not isinstance(old, nn.Parameter):
            return x
        old.data = x
        return old

    def part(self, state, old):
        "Of a tensor made before; the one that is there, if it is that part already"
        base = self.made[state['of']]
        x = base.detach().as_strided(state['size'], state['stride'], base.storage_offset() + state['offset'])
        return (
            old
            if isinstance(old, torch.Tensor)
            and (old.data_ptr(), old.shape, old.stride()) == (x.data_ptr(), x.shape, x.stride())
            else x
        )

    def typed(self, x, state):
        if type(x).__name__ == state['type']:
            return x
        types = {t.__name__: t for t in subclasses(torch.Tensor)}
        return nn.Parameter(x, False) if state['type'] == 'Parameter' else x.as_subclass(types[state['type']])

    def put_array(self, state, old, where):
        x = self.tensors[state['data']].numpy().copy().reshape(state['shape'])
        return x[()] if state['scalar'] else x

    def put_generator(self, state, old, where):
        numpys = {t.__name__: t for t in np.random.BitGenerator.__subclasses__()}
        make = {
            'Random': random.Random,
            'RandomState': np.random.RandomState,
            'np.Generator': lambda: np.random.Generator(numpys[state['about']]()),
            'torch.Generator': lambda: torch.Generator(state['about']),
        }[state['type']]
        x, value = old if generator_type(old) == state['type'] else make(), self(state['state'], NOTHING)
        if isinstance(x, random.Random):
            x.setstate(value)
        elif isinstance(x, np.random.Generator):
            x.bit_generator.state = value
        else:
            x.set_state(value)
        return x

    def put_value(self, state, old, where):
        read = next(read for t, (_, read) in VALUES.items() if t.__name__ == state['type'])
        return read(state['text'])

    # Containers

    def put_container(self, state, old, where):
        make = CONTAINERS.get(state['type'])
        usable = (
            make is None or type(old) is make and id(old) not in self.filled and not issubclass(make, tuple | frozenset)
        )
        if usable:
            x = self.fill(state | dict(type=type_text(old) if make else state['type']), old, where)
        else:
            x = self.keep(state, make() if state.get('maxlen') is None else make(maxlen=state['maxlen']))
        before = list(old) if isinstance(old, list | tuple | CONTAINERS['L']) else []
        if 'pairs' in state:
            return self.pairs(state, x, dict(old) if isinstance(old, dict) else {}, where)
        items = (
            self.series.values(state['series'], x)
            if 'series' in state
            else self.tensors[state['data']].tolist()
            if 'data' in state
            else [
                self(item, before[i] if i < len(before) else NOTHING, f'{where}.{i}')
                for i, item in enumerate(state['items'])
            ]
        )
        if make is None and isinstance(x, tuple):
            return type(x)(*items)  # a namedtuple
        if isinstance(x, tuple | frozenset):
            return type(x)(items)
        x.clear()
        x.update(items) if isinstance(x, set) else x.extend(items)
        return x

    def pairs(self, state, x, before, where):
        constants = {code_text(key): key for key in before if type(key) not in PLAIN and kind_of(key) == 'code'}
        found = []
        for i, (key, value) in enumerate(state['pairs']):
            if isinstance(key, dict) and key['kind'] == 'code':
                key = self.keep(key, constants[key['text']])
            else:
                key = self(key, NOTHING)
            found.append((key, self(value, before.get(key, NOTHING), f'{where}.{place(key, i)}')))
        x.clear()
        for key, value in found:
            x[key] = value
        return x

    # Objects

    def named(self, states, held, where):
        return {name: self(state, held.get(name, NOTHING), f'{where}.{name}') for name, state in states}

    def put_object(self, state, old, where):
        self.fill(state, old, where)
        self.set_attributes(state, old, where)
        return old

    def set_attributes(self, state, x, where):
        held = attributes(x)
        for name in held.keys() - {name for name, _ in state['attributes']}:
            delattr(x, name)
        for name, value in self.named(state['attributes'], held, where).items():
            if value is NOTHING:
                continue  # what has no state
            if name in slots_of(x):
                object.__setattr__(x, name, value)
            else:
                vars(x)[name] = value

    def put_stateful(self, state, old, where):
        self.fill(state, old, where).load_state_dict(self(state['state'], NOTHING, where))
        return old

    def put_own(self, state, old, where):
        self.fill(state, old, where)
        self.named(state['attributes'], vars(old), where)
        self(state['trained'], getattr(old, 'trained', None), where)
        own = self(state['state'], NOTHING, where)
        if own is not None:
            old.load_state_dict(own)
        return old

    def put_module(self, state, old, where):
        self.fill(state, old, where)
        for part, states in zip(('_parameters', '_buffers', '_modules'), state['parts'], strict=True):
            held = vars(old)[part]
            if [name for name, _ in states] != list(held):
                raise other(where, f'{state["type"]} of {", ".join(name for name, _ in states)}', old)
            for name, value in states:
                held[name] = self.registered(value, held[name], f'{where}.{name}')
        self.set_attributes(state, old, where)
        return old

    def registered(self, state, old, where):
        if isinstance(state, dict) and state['kind'] == 'tensor':
            return self.keep(state, self.put_tensor(state, old, where, in_place=True))
        return self(state, old, where)

    def put_code(self, state, old, where):
        if old is NOTHING or code_text(old) != state['text']:
            raise other(where, state['text'], old)
        self.keep(state, old)
        values = self.named(state['held'], held_by(old), where)
        if isinstance(old, FunctionType):
            for name, cell in zip(old.__code__.co_freevars, old.__closure__ or ()):
                if name in values:
                    cell.cell_contents = values[name]
        return old

    def put_file(self, state, old, where):
        "Written to as far as it was"
        content = self.tensors[state['data']].numpy().tobytes()[: state['size']]
        old.flush()
        old.seek(0)
        old.truncate()
        raw = getattr(old, 'buffer', old)
        raw.write(content)
        old.flush()
        return old

    def put_inert(self, state, old, where):
        return old


def other(where, held, old):
    found = 'nothing' if old is NOTHING else code_text(old) if kind_of(old) == 'code' else type_text(old)
    return KdfastError(
        f'the checkpoint holds the state of {held} at {where}, where this run has {found}: '
        'the recipe does not do the same again. Remove the run to start over'
    )


def subclasses(t):
    return {t}.union(*(subclasses(s) for s in t.__subclasses__()))
