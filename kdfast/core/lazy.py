"Names that a package offers without importing their modules: reading results imports no torch."

from importlib import import_module


def lazy_name(
    places: dict[str, str],  # MODULE, or MODULE:OTHER_NAME, by name
    name: str,  # The name to import
) -> object:
    "Import a name that a package offers. Raises AttributeError, as Python does, for any other name."
    if name not in places:
        raise AttributeError(f'no {name} here; there are {", ".join(places)}')
    module, _, other = places[name].partition(':')
    return getattr(import_module(module), other or name)
