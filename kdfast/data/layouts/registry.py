"""Find the layout of a data set.

A layout is a module of this package with two functions: `matches(source)` returns whether the files have the layout,
and `read(source)` returns a `Listing` of all images. The first layout that matches reads the source. A module
sets `PRIORITY` (lower is tried first; a number that no other layout has) with a comment that gives the reason.
Without one it is 50; modules of one priority are tried in alphabetical order.
"""

import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType

from kdfast.data import layouts as package
from kdfast.data.layouts.base import Listing, Source

DEFAULT_PRIORITY = 50


@cache
def all_layouts() -> tuple[ModuleType, ...]:
    "Return the modules that define `matches` and `read`, in the order in which they are tried."
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    modules = [
        import_module(f'{package.__name__}.{name}') for name in names if f'{package.__name__}.{name}' != __name__
    ]
    layouts = [module for module in modules if hasattr(module, 'matches') and hasattr(module, 'read')]
    return tuple(sorted(layouts, key=lambda layout: getattr(layout, 'PRIORITY', DEFAULT_PRIORITY)))


def read(
    source: Source,  # Files of the data set
) -> Listing:
    "List the images of a source by the first layout that matches. Raises KdfastError."
    layout = next(layout for layout in all_layouts() if layout.matches(source))
    return layout.read(source)
