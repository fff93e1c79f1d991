"""Optimizers, one module each: `--optimizer NAME` is the first name in `__all__` of the module NAME.

kdfast.runs.options reads the file names, and the first lines of the docstrings for `--help`, without importing torch.
"""

from collections.abc import Callable
from importlib import import_module


def optimizer_named(
    name: str,  # Of a module of this package, such as sgd
) -> Callable:  # A fastai optimizer: function of params, lr, mom and wd
    "Import an optimizer."
    module = import_module(f'{__name__}.{name}')
    return getattr(module, module.__all__[0])
