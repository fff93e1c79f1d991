"Distinguish files of installed packages from the user's own. Imports no torch."

import sysconfig
from functools import lru_cache
from importlib.metadata import Distribution
from pathlib import Path, PurePath

OWN = Path(__file__).resolve().parents[1]
STANDARD = [Path(sysconfig.get_path(kind)).resolve() for kind in ('stdlib', 'platstdlib')]
INSTALLED = {'site-packages', 'dist-packages'}  # names of directories that hold installed packages


def is_installed(
    path: str | Path,  # A file
) -> bool:
    "Return whether a file belongs to Python, to kdfast or to an installed package."
    path = Path(path).resolve()
    if INSTALLED & set(path.parts):
        return True
    if any(path.is_relative_to(place) for place in (OWN, OWN.parent / 'recipes', *STANDARD)):
        return True
    return any(path.relative_to(folder).parts[0] in installed_names(folder) for folder in path.parents)


@lru_cache(None)
def installed_names(
    folder: Path,  # Any directory
) -> set[str]:
    "Return the top-level names that pip has installed in a directory, by --target or otherwise."
    return {
        PurePath(file).parts[0] for info in folder.glob('*.dist-info') for file in Distribution.at(info).files or ()
    }
