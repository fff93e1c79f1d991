"""Tell files of installed packages from the user's own. Imports no torch."""

import sysconfig
from functools import lru_cache
from importlib.metadata import Distribution
from pathlib import Path, PurePath

OWN = Path(__file__).resolve().parents[1]
STANDARD = [Path(sysconfig.get_path(kind)).resolve() for kind in ('stdlib', 'platstdlib')]
INSTALLED = {'site-packages', 'dist-packages'}  # directories of these names hold packages that somebody installed


def is_installed(path):
    "Whether a file is Python's, kdfast's or of an installed package, and no source of the user's"
    path = Path(path).resolve()
    if INSTALLED & set(path.parts) or any(
        path.is_relative_to(place) for place in (OWN, OWN.parent / 'recipes', *STANDARD)
    ):
        return True
    return any(path.relative_to(folder).parts[0] in installed_names(folder) for folder in path.parents)


@lru_cache(None)
def installed_names(folder):
    "Names, in a folder, of what pip has installed there: anywhere, with its --target"
    return {
        PurePath(file).parts[0] for info in folder.glob('*.dist-info') for file in Distribution.at(info).files or ()
    }
