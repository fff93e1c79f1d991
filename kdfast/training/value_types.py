"""Tables for kinds.py: types that a checkpoint saves as text, as containers, or not at all."""

import operator
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
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
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

PLAIN = bool, int, float, str, type(None)  # saved as they are


VALUES = {  # saved as text: (function that writes, function that reads)
    PurePath: (str, Path),
    torch.device: (str, torch.device),
    torch.dtype: (str, lambda text: {str(t): t for t in vars(torch).values() if isinstance(t, torch.dtype)}[text]),
    torch.Size: (list, torch.Size),
    bytes: (bytes.hex, bytes.fromhex),
    complex: (str, complex),
    slice: (lambda s: [s.start, s.stop, s.step], lambda parts: slice(*parts)),
    range: (lambda r: [r.start, r.stop, r.step], lambda parts: range(*parts)),
}


CONTAINERS = {  # whose items are saved; created if this process has none to fill
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


DTYPES = {  # of tensors that a checkpoint can hold
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


LIBRARIES = 'torch', 'torchvision', 'timm', 'fastai', 'fastcore', 'numpy', 'kdfast'  # their functions have no state


# Objects that display, store or connect, and do not change training: a resumed run keeps its own
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


# Attributes that are not state: parts of the Learner, values of one batch, times, hooks
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
        'chosen',
    },
    Recorder: {'start_epoch'},
    nn.Module: set(vars(nn.Module())) - {'training'},
    _BaseOptimizer: {'state_dict', 'load_state_dict'},
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
SERIES = {  # attributes that are lists which grow with every step
    Recorder: {'lrs', 'losses', 'hps'},
    ParamScheduler: {'hps'},
    MixedPrecision: {'scales'},
}
