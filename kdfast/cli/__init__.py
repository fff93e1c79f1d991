"""The command line of kdfast.

Every module of this package adds its commands to `app`: a new command is a new module and its test.
"""

from importlib import import_module
from pkgutil import iter_modules

from kdfast.cli.app import app
from kdfast.cli.entry import main

__all__ = ['app', 'main']

for module in iter_modules(__path__):
    import_module(f'{__name__}.{module.name}')
