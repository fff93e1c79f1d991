"""The kinds of values in a checkpoint, and what each value contains.

kdfast.training.snapshot saves the state of a value by its kind, kdfast.training.restore restores it.
"""

import io
import weakref
from collections import deque
from enum import Enum
from functools import partial
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
)

import numpy as np
import torch
from fastai.basics import Callback, L, Learner
from fastai.optimizer import _BaseOptimizer
from torch import nn

from kdfast.distill.fit import FitCallback
from kdfast.models.random_states import GENERATORS
from kdfast.training.value_types import (
    CODE,
    INERT,
    INERT_MODULES,
    LEFT_OUT,
    LIBRARIES,
    PLAIN,
    POINTER,
    VALUES,
)

IN_MEMORY = io.StringIO | io.BytesIO
WEAK = weakref.WeakKeyDictionary | weakref.WeakValueDictionary | weakref.WeakSet


def kind_of(
    x,  # Any value that is not plain
) -> str | None:  # `save_{kind}` and `restore_{kind}` are methods of StateSaver and StateRestorer
    "Return the kind of a value, which determines how its state is saved; None if that is unsupported."
    if isinstance(x, torch.Tensor):
        return 'tensor'
    if isinstance(x, INERT):
        return 'inert'
    if isinstance(x, np.ndarray | np.generic):
        plain = type(x) is np.ndarray or isinstance(x, np.generic)  # a subclass has more state, such as a mask
        return 'array' if plain and x.dtype.kind in 'biufc' else None
    if isinstance(x, GENERATORS):
        return 'generator'
    if isinstance(x, tuple(VALUES)):
        return 'value'
    if isinstance(x, CODE) or x is Ellipsis:
        return 'code'
    if isinstance(x, IN_MEMORY | WEAK):
        return None
    if isinstance(x, io.IOBase):
        return 'file' if is_written(x) else 'inert'
    if isinstance(x, nn.Module):
        return 'module'
    return kind_of_object(x)


def kind_of_object(
    x,  # Any other value
) -> str | None:
    "Return the kind of a callback, container or object; None if its state cannot be saved."
    if isinstance(x, FitCallback) and from_module(x, ('kdfast',)):
        return 'own'
    if is_stateful(x):
        return 'stateful'
    if isinstance(x, Callback | Learner):
        return 'object'
    if from_module(x, INERT_MODULES):
        return 'inert'
    if isinstance(x, list | tuple | set | frozenset | dict | deque | L):
        return 'container' if isinstance(x, L) or not getattr(x, '__dict__', None) else None
    return 'object' if has_attributes(x) else None


def from_module(
    x,  # Any object
    names: tuple,  # Of modules
) -> bool:
    "Return whether the class of an object is defined in one of the modules."
    return in_modules(type(x).__module__, names)


def in_modules(
    module: str,  # Name of a module
    names: tuple,  # Of modules
) -> bool:
    "Return whether a module is one of `names` or inside one; kdfast's recipes count as the user's."
    if module.startswith('kdfast.recipes'):
        return False
    return any(module == name or module.startswith(f'{name}.') for name in names)


def is_stateful(
    x,  # Any object
) -> bool:
    """Return whether the class has `state_dict` and `load_state_dict`.

    Optimizers are excluded: their state dicts are not exact for every type of value.
    """
    has_methods = all(callable(getattr(type(x), name, None)) for name in ('state_dict', 'load_state_dict'))
    return has_methods and not isinstance(x, torch.optim.Optimizer | _BaseOptimizer)


def has_attributes(
    x,  # Any object
) -> bool:
    """Return whether an object consists of its attributes alone.

    That is Python's own rule for objects that it pickles without a custom method (`object.__reduce_ex__`): the object
    is as large as its attributes, and none of its classes pickles itself in C code.
    """
    t = type(x)
    n_slots = len(set(slots_of(x)) - {'__weakref__'})
    size = object.__basicsize__ + POINTER * (n_slots + (t.__dictoffset__ > 0) + (t.__weakrefoffset__ > 0))
    return (
        t is not object
        and t.__itemsize__ == 0
        and t.__basicsize__ <= size
        and not any(reduced_in_c(c) for c in t.__mro__)
    )


def reduced_in_c(
    c: type,  # Any class
) -> bool:
    "Return whether a class defines a pickle method in C."
    methods = [vars(c)[name] for name in ('__reduce__', '__reduce_ex__') if name in vars(c)]
    return c not in (object, SimpleNamespace) and not all(isinstance(method, FunctionType) for method in methods)


def attributes(
    x,  # Any object
) -> dict:  # By name
    "Return the attributes that are state; an optimizer's `state` comes last: its keys are parameters."
    found = {name: getattr(x, name) for name in slots_of(x) if hasattr(x, name)} | getattr(x, '__dict__', {})
    left_out = set().union(*(names for t, names in LEFT_OUT.items() if isinstance(x, t)))
    if isinstance(x, nn.Module) and from_module(x, ('torch',)):  # its other attributes are settings
        left_out |= {
            n for n, value in found.items() if type(value) not in PLAIN and not isinstance(value, torch.Tensor)
        }
    if isinstance(x, Learner):  # callbacks, which a Learner also stores under their names
        left_out |= {name for name, value in found.items() if isinstance(value, Callback)}
    kept = [(name, value) for name, value in found.items() if name not in left_out]
    return dict(sorted(kept, key=lambda item: item[0] == 'state'))


def slots_of(
    x,  # Any object
) -> list[str]:
    "Return the names in `__slots__` of all classes of an object."
    slots = [vars(t).get('__slots__', ()) for t in type(x).__mro__]
    return [name for names in slots for name in ([names] if isinstance(names, str) else names) if name != '__dict__']


def is_written(
    file: io.IOBase,  # Any stream
) -> bool:
    "Return whether a stream is a file on disk that is open for writing."
    try:
        return not file.closed and file.writable() and file.seekable() and Path(str(file.name)).is_file()
    except (AttributeError, OSError):
        return False


def generator_type(
    x,  # A random generator
) -> str:
    "Return the name of the generator's type; those called Generator with their library."
    if isinstance(x, np.random.Generator | torch.Generator):
        return f"{'np' if isinstance(x, np.random.Generator) else 'torch'}.Generator"
    return type(x).__name__


def code_text(
    x,  # A function, class or constant
) -> str:
    "Return the name of a function, class or constant, with its module and, for functions, its line."
    if isinstance(x, partial | MethodType | MethodWrapperType):
        return type(x).__name__
    if isinstance(x, FunctionType):
        return f'{x.__module__}.{x.__qualname__}:{x.__code__.co_firstlineno}'
    if hasattr(x, '__qualname__') and not isinstance(x, Enum):
        return f"{getattr(x, '__module__', '')}.{x.__qualname__}"
    return repr(x)


def contents_of_code(
    x,  # A function, class or constant
) -> dict:  # By name
    """Return the values that a function can change: closure, defaults and attributes of a user's function.

    For a partial its function and arguments, for a method its function and owner; for others nothing.
    """
    if isinstance(x, partial):
        return dict(func=x.func, args=x.args, keywords=x.keywords)
    if isinstance(x, MethodType):
        return dict(function=x.__func__, owner=x.__self__)
    if isinstance(x, BuiltinFunctionType | MethodWrapperType):
        name = dict(name=x.__qualname__)
        return name if isinstance(x.__self__, ModuleType | type | None) else name | dict(owner=x.__self__)
    if not isinstance(x, FunctionType) or in_modules(x.__module__, LIBRARIES):
        return {}
    cells = {
        name: cell.cell_contents
        for name, cell in zip(x.__code__.co_freevars, x.__closure__ or ())
        if cell != CellType()
    }
    return cells | dict(defaults=x.__defaults__, keyword_defaults=x.__kwdefaults__, attributes=vars(x))


def type_text(
    x,  # Any object
) -> str:
    "Return the name of an object's class, with its module."
    return f'{type(x).__module__}.{type(x).__qualname__}'
