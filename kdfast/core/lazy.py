"Names that a package offers before their modules are imported: reading results then loads no torch."

from importlib import import_module


def lazy_name(
    places: dict,  # Each name of the package, with the module that defines it: MODULE or MODULE:OTHER_NAME
    name: str,  # The one that is asked for
):
    "Import what a name of a package stands for. Raises AttributeError, as Python does, for a name that it has not."
    if name not in places:
        raise AttributeError(f'no {name} here; there are {", ".join(places)}')
    module, _, other = places[name].partition(':')
    return getattr(import_module(module), other or name)
