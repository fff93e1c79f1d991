"""The state of objects as JSON and tensors: the content of a checkpoint.

`StateSaver` visits an object and everything it refers to. Nothing is pickled, and a file never names a class to be
created: kdfast.training.restore visits the same objects, created by the same program in another process, and restores
their state. An object with several references is written once. A value that can be neither written nor created raises
UnsupportedState.
"""

import torch
from fastai.basics import Callback
from torch import nn

from kdfast.training.kinds import attributes, code_text, contents_of_code, kind_of, type_text
from kdfast.training.save_values import UnsupportedState, ValueSaver
from kdfast.training.value_types import CONTAINERS, PLAIN, SERIES

PACKED = 64  # lists of at least so many numbers are saved as a tensor


class StateSaver(ValueSaver):
    """Save the state of a value and of everything it refers to; call it with the value.

    `save_{kind}(x, where)` returns the state of a value of that kind as JSON; `where` is the path of attributes to it.
    `tensors` are the tensors by name. `fixed` are paths and descriptions of the objects that cannot be created from
    their state: the process that restores must have the same.
    """

    def __init__(
        self,
        series=None,  # Series, which saves lists that grow with every step in a file of their own
    ):
        super().__init__()
        self.series = series
        self.fixed = {}
        self.alive = []  # the objects, so that no other object gets the same id
        self.growing = set()  # ids of lists that go to `series`

    def __call__(
        self,
        x,  # Any value
        where: str = '',  # Path of attributes to it
    ):  # JSON
        "Return the state of a value. Raises UnsupportedState."
        if type(x) in PLAIN:
            return x
        if id(x) in self.numbers:
            return dict(kind='ref', n=self.numbers[id(x)])
        kind = kind_of(x)
        if kind is None:
            raise UnsupportedState(where, f'a {type_text(x)}')
        n = self.numbers[id(x)] = len(self.alive)
        self.alive.append(x)
        if isinstance(x, Callback):
            where = f'{where}:{type(x).__name__}'
        return dict(kind=kind, n=n) | getattr(self, f'save_{kind}')(x, where)

    def save_named(
        self,
        values,  # By name
        where,  # Path of attributes to their owner
    ):
        "Return [name, state] of each value."
        return [[name, self(value, f'{where}.{name}')] for name, value in values.items()]

    # Containers

    def save_container(
        self,
        x,  # List, tuple, set or dictionary
        where,  # Path of attributes to it
    ):
        "Save the items of a container."
        exact = type(x).__name__ if CONTAINERS.get(type(x).__name__) is type(x) else None
        if exact is None:
            self.fixed[where] = type_text(x)
        about = dict(type=exact or type_text(x))
        if id(x) in self.growing and self.series and (kept := self.series.keep(x)):
            return about | dict(series=kept)
        if isinstance(x, dict):
            items = enumerate(x.items())
            return about | dict(
                pairs=[[self(key, where), self(value, f'{where}.{item_name(key, i)}')] for i, (key, value) in items]
            )
        items = list(x)
        if len(items) >= PACKED and (packed := pack(items)) is not None:
            return about | dict(data=self.store(packed))
        states = [self(item, f'{where}.{i}') for i, item in enumerate(items)]
        for i, state in enumerate(states):
            if isinstance(state, dict) and state['kind'] == 'inert':
                self.fixed[f'{where}.{i}'] = 'inert'
        return about | dict(items=states, maxlen=getattr(x, 'maxlen', None))

    # Objects

    def save_object(
        self,
        x,  # Object
        where,  # Path of attributes to it
    ):
        "Save the attributes of an object."
        self.fixed[where] = type_text(x)
        for name in set().union(*(names for t, names in SERIES.items() if isinstance(x, t))):
            lists = vars(x).get(name)
            self.growing |= {id(numbers) for numbers in (lists.values() if isinstance(lists, dict) else [lists])}
        return dict(type=type_text(x), attributes=self.save_named(attributes(x), where))

    def save_stateful(
        self,
        x,  # Object with state_dict and load_state_dict
        where,  # Path of attributes to it
    ):
        "Save the state dict of an object."
        self.fixed[where] = type_text(x)
        return dict(type=type_text(x), state=self(x.state_dict(), where))

    def save_own(
        self,
        x,  # Callback of kdfast
        where,  # Path of attributes to it
    ):
        "Save a callback of kdfast: state dict, loss module, and functions that the user gave it."
        self.fixed[where] = type_text(x)
        functions = {
            name: value
            for name, value in vars(x).items()
            if callable(value) and not isinstance(value, nn.Module | Callback) and name not in ('_learn', 'learn')
        }
        module = getattr(x, 'loss_module', None)
        state = x.state_dict() if hasattr(type(x), 'state_dict') else None
        return dict(
            type=type_text(x),
            attributes=self.save_named(functions, where),
            trained=self(module, where),
            state=self(state, where),
        )

    def save_module(
        self,
        x,  # Module
        where,  # Path of attributes to it
    ):
        "Save parameters, buffers, children and attributes of a module."
        parts = {part: list(vars(x)[part]) for part in ('_parameters', '_buffers', '_modules')}
        self.fixed[where] = f'{type_text(x)} of {[name for names in parts.values() for name in names]}'
        return dict(
            type=type_text(x),
            parts=[self.save_named(vars(x)[part], where) for part in parts],
            attributes=self.save_named(attributes(x), where),
        )

    def save_code(
        self,
        x,  # Function, class or constant
        where,  # Path of attributes to it
    ):
        "Save the name of a function, class or constant, and the values that it can change."
        self.fixed[where] = text = code_text(x)
        return dict(text=text, held=self.save_named(contents_of_code(x), where))

    def save_file(
        self,
        x,  # Open file
        where,  # Path of attributes to it
    ):
        "Save what was written to a file so far."
        x.flush()
        self.fixed[where] = type_text(x)
        with open(x.name, 'rb') as f:
            content = f.read()
        data = torch.frombuffer(bytearray(content or b'\n'), dtype=torch.uint8)
        return dict(data=self.store(data), size=len(content))

    def save_inert(
        self,
        x,  # Object without state
        where,  # Path of attributes to it
    ):
        "Save nothing."
        return {}


def item_name(
    key,  # Of an item of a dictionary
    i: int,  # Position of the item
):
    "Return the name of an item in paths: its key if that is plain, else its position."
    return key if type(key) in PLAIN else i


def pack(
    numbers: list,  # Any values
) -> torch.Tensor | None:
    "Return a tensor of numbers that are all float or all int64; None for other values."
    types = {type(number) for number in numbers}
    if types == {float}:
        return torch.tensor(numbers, dtype=torch.float64)
    return torch.tensor(numbers) if types == {int} and max(map(abs, numbers)) < 2**63 else None


def check_known(
    fixed: dict,  # Of StateSaver, now
    before: dict,  # Of StateSaver, when training began
):
    "Raise UnsupportedState if there are objects that did not exist when training began."
    for where, what in fixed.items():
        if before.get(where) != what:
            raise UnsupportedState(where, f'a {what} since training began')
