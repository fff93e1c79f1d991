"""The kinds of values that a checkpoint tells apart: how each is kept, and which are left out.

kdfast.training.snapshot takes the state of a value by its kind, kdfast.training.restore puts it back.
"""

import io
import operator
import random
import re
import struct
import tempfile
import weakref
from collections import Counter, OrderedDict, deque
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)

import numpy as np
import torch
from fastai.basics import Callback, L, Learner, Recorder
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.schedule import LRFinder, ParamScheduler
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.optimizer import _BaseOptimizer
from torch import nn

from kdfast.distill.fit import FitCallback

PLAIN = bool, int, float, str, type(None)  # kept as they are


VALUES = {  # kept as text: how to write it, how to read it
    PurePath: (str, Path),
    torch.device: (str, torch.device),
    torch.dtype: (str, lambda text: {str(t): t for t in vars(torch).values() if isinstance(t, torch.dtype)}[text]),
    torch.Size: (list, torch.Size),
    bytes: (bytes.hex, bytes.fromhex),
    complex: (str, complex),
    slice: (lambda s: [s.start, s.stop, s.step], lambda parts: slice(*parts)),
    range: (lambda r: [r.start, r.stop, r.step], lambda parts: range(*parts)),
}


CONTAINERS = {  # whose items are kept; made anew where there is none to fill
    t.__name__: t for t in (list, tuple, set, frozenset, dict, OrderedDict, Counter, deque, L)
}


CODE = (
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
    partial,
    type,
    Enum,
    np.dtype,
    np.ufunc,
    re.Pattern,
    operator.attrgetter,
    operator.itemgetter,
    operator.methodcaller,
    type(lru_cache(abs)),
)


GENERATORS = random.Random, np.random.RandomState, np.random.Generator, torch.Generator
LIBRARIES = 'torch', 'torchvision', 'timm', 'fastai', 'fastcore', 'numpy', 'kdfast'  # whose functions hold no state


# What shows, stores or connects, and does not decide how training goes on: a resumed run has its own
INERT = (
    ModuleType,
    weakref.ReferenceType,
    tempfile.TemporaryDirectory,
    np.memmap,
    DataLoader,
    DataLoaders,
    torch.utils.data.DataLoader,
    torch.utils.data.Dataset,
)


INERT_MODULES = (
    '_thread',
    'accelerate',
    'comet_ml',
    'fastai.callback.hook',
    'fastai.data',
    'fastprogress',
    'kdfast',
    'logging',
    'matplotlib',
    'rich',
    'tensorboard',
    'threading',
    'torch.cuda.streams',
    'torch.utils.hooks',
    'torch.utils.tensorboard',
    'tqdm',
    'wandb',
)


# Attributes that are no state: what the Learner is made of, one batch's values, the time, hooks
LEFT_OUT = {
    Callback: {'learn', '_learn'},
    LRFinder: {'tmp_d', 'tmp_p'},
    Learner: {
        'dls',
        'path',
        'model_dir',
        'lock',
        'logger',
        'splitter',
        'opt_func',
        'create_mbar',
        'validation_context',
        'tta',
        'cbs',
        'watchers',
        'xb',
        'yb',
        'pred',
        'loss_grad',
        'dl',
        'iter',
        'n_iter',
        'checkpoints',
    },
    Recorder: {'start_epoch'},
    nn.Module: set(vars(nn.Module())) - {'training'},
    torch.optim.Optimizer: {
        '_optimizer_step_pre_hooks',
        '_optimizer_step_post_hooks',
        '_optimizer_state_dict_pre_hooks',
        '_optimizer_state_dict_post_hooks',
        '_optimizer_load_state_dict_pre_hooks',
        '_optimizer_load_state_dict_post_hooks',
        '_zero_grad_profile_name',
    },
    object: {'__stored_args__', '__weakref__'},
}


POINTER = struct.calcsize('P')  # bytes of an attribute
SERIES = {
    Recorder: {'lrs', 'losses', 'hps'},
    ParamScheduler: {'hps'},
    MixedPrecision: {'scales'},
}  # lists that grow with every step


def kind_of(
    x,  # Any value but a plain one
) -> str | None:  # Name of a method of Take and of Put; None: its state cannot be kept
    "How the state of `x` is kept."
    if isinstance(x, torch.Tensor):
        return 'tensor'
    if isinstance(x, INERT):
        return 'inert'
    if isinstance(x, np.ndarray | np.generic):
        return 'array' if x.dtype.kind in 'biufc' else None
    if isinstance(x, GENERATORS):
        return 'generator'
    if isinstance(x, tuple(VALUES)):
        return 'value'
    if isinstance(x, CODE) or x is Ellipsis:
        return 'code'
    if isinstance(x, io.IOBase):
        return 'file' if is_written(x) else 'inert'
    if isinstance(x, nn.Module):
        return 'module'
    if isinstance(x, FitCallback) and from_module(x, ('kdfast',)):
        return 'own'
    if is_stateful(x):
        return 'stateful'
    if isinstance(x, Callback | Learner):
        return 'object'
    if from_module(x, INERT_MODULES):
        return 'inert'
    if isinstance(x, list | tuple | set | frozenset | dict | deque | L):
        return 'container'
    return 'object' if has_attributes(x) else None


def from_module(x, names):
    return in_modules(type(x).__module__, names)


def in_modules(module, names):
    "Whether a module is one of these or inside of them; a recipe is a user's, also kdfast's own"
    return not module.startswith('kdfast.recipes') and any(
        module == name or module.startswith(f'{name}.') for name in names
    )


def is_stateful(x):
    "Whether its class says what its state is; optimizers are taken apart, for theirs would not be exact in every type"
    own = all(callable(getattr(type(x), name, None)) for name in ('state_dict', 'load_state_dict'))
    return own and not isinstance(x, torch.optim.Optimizer | _BaseOptimizer)


def has_attributes(x):
    """Whether all that it holds are attributes: it is as large as they are, and no class that it is made of pickles itself by C code.

    Python's own rule for what it may pickle without being told how (`object.__reduce_ex__`).
    """
    t = type(x)
    size = object.__basicsize__ + POINTER * (
        len(set(slots_of(x)) - {'__weakref__'}) + (t.__dictoffset__ > 0) + (t.__weakrefoffset__ > 0)
    )
    return (
        t is not object
        and t.__itemsize__ == 0
        and t.__basicsize__ <= size
        and not any(reduced_by_c(c) for c in t.__mro__)
    )


def reduced_by_c(c):
    own = [vars(c)[name] for name in ('__reduce__', '__reduce_ex__') if name in vars(c)]
    return c not in (object, SimpleNamespace) and not all(isinstance(method, FunctionType) for method in own)


def attributes(x) -> dict:
    "What an object holds, by name; the state of an optimizer, whose keys are parameters, after them."
    held = {name: getattr(x, name) for name in slots_of(x) if hasattr(x, name)} | getattr(x, '__dict__', {})
    left_out = set().union(*(names for t, names in LEFT_OUT.items() if isinstance(x, t)))
    if isinstance(x, nn.Module) and from_module(x, ('torch',)):  # its other attributes are settings
        left_out |= {
            name for name, value in held.items() if type(value) not in PLAIN and not isinstance(value, torch.Tensor)
        }
    if isinstance(x, Learner):
        left_out |= {
            name for name, value in held.items() if isinstance(value, Callback)
        }  # its callbacks, by their names
    return dict(
        sorted(
            ((name, value) for name, value in held.items() if name not in left_out), key=lambda item: item[0] == 'state'
        )
    )


def slots_of(x):
    slots = [vars(t).get('__slots__', ()) for t in type(x).__mro__]
    return [name for names in slots for name in ([names] if isinstance(names, str) else names) if name != '__dict__']


def is_written(file):
    "A file on disk that is open for writing"
    try:
        return not file.closed and file.writable() and file.seekable() and Path(str(file.name)).is_file()
    except (AttributeError, OSError):
        return False


def generator_type(x):
    if isinstance(x, np.random.Generator | torch.Generator):
        return f"{'np' if isinstance(x, np.random.Generator) else 'torch'}.Generator"
    return type(x).__name__


def code_text(x):
    "What a function, a class or a constant is called, and where it stands"
    if isinstance(x, partial | MethodType | MethodWrapperType):
        return type(x).__name__
    if isinstance(x, FunctionType):
        return f'{x.__module__}.{x.__qualname__}:{x.__code__.co_firstlineno}'
    return (
        f"{getattr(x, '__module__', '')}.{x.__qualname__}"
        if hasattr(x, '__qualname__') and not isinstance(x, Enum)
        else repr(x)
    )


def held_by(x) -> dict:
    "What a function of the user's closes over, its defaults and attributes; what a partial or a method is made of"
    if isinstance(x, partial):
        return dict(func=x.func, args=x.args, keywords=x.keywords)
    if isinstance(x, MethodType):
        return dict(function=x.__func__, owner=x.__self__)
    if isinstance(x, BuiltinFunctionType | MethodWrapperType):
        return dict(name=x.__qualname__) | (
            {} if isinstance(x.__self__, ModuleType | type | None) else dict(owner=x.__self__)
        )
    if not isinstance(x, FunctionType) or in_modules(x.__module__, LIBRARIES):
        return {}
    cells = {
        name: cell.cell_contents
        for name, cell in zip(x.__code__.co_freevars, x.__closure__ or ())
        if cell != CellType()
    }
    return cells | dict(defaults=x.__defaults__, keyword_defaults=x.__kwdefaults__, attributes=vars(x))


def type_text(x):
    return f'{type(x).__module__}.{type(x).__qualname__}'
