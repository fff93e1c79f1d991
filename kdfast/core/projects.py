"Find the project of a user's file, package or function. Imports no torch."

import importlib.util
import os
import sys
from functools import partial
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.core.installed import is_installed
from kdfast.core.names import NETWORKS, Name, parse
from kdfast.core.source import Project, projects


def project_of_file(
    path: str | Path,  # FILE.py
) -> Project:
    "Return the project of a file; it is loaded again only if one of its files has changed."
    return latest_project(str(path), roots_of_file(Path(path)))


def project_of_package(
    name: str,  # PACKAGE.MODULE
) -> Project | None:  # None if the package is installed or kdfast's own
    "Return the project of a user's package. Raises ImportError if there is no such package."
    roots = roots_of_package(name)
    return latest_project(name, roots) if roots else None


def saved_project(
    main: str,  # FILE.py or PACKAGE.MODULE, relative to `folder`
    folder: Path,  # The directory of the saved files
    sources: dict[str, bytes],  # The files that may be executed, by name
) -> Project:
    "Load a project from files that were saved with weights."
    folder = Path(os.path.abspath(folder))
    if main.endswith('.py') and main not in sources:
        raise KdfastError(f'{folder / main} was not saved with the network')
    if not main.endswith('.py'):
        return Project(main, [folder], sources)
    return Project(str(folder / main), list(dict.fromkeys(((folder / main).parent, folder))), sources)


def latest_project(
    main: str,  # FILE.py or PACKAGE.MODULE
    roots: list[Path],  # Directories of its modules
) -> Project:
    "Return the project that was loaded last, or load it again if its files have changed."
    loaded = [
        project
        for project in projects.values()
        if project.saved is None and project.roots == roots and project.main == main and hasattr(project, 'module')
    ]
    return loaded[-1] if loaded and loaded[-1].unchanged else Project(main, roots)


def roots_of_file(
    file: Path,  # FILE.py
) -> list[Path]:
    "Return the directories of a file's modules: its own, and the parent of the package that it is in."
    top = folder = Path(os.path.abspath(file)).parent
    while (top / '__init__.py').is_file() and top.name.isidentifier() and not is_installed(file):
        top = top.parent
    return list(dict.fromkeys((folder, top)))


def roots_of_package(
    name: str,  # PACKAGE.MODULE
) -> list[Path]:  # Empty if the package is installed
    "Return the directory of a user's package. Raises ModuleNotFoundError if there is none."
    top = name.partition('.')[0]
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(f'No module named {top!r}')
    places = list(spec.submodule_search_locations or ([spec.origin] if spec.has_location else []))
    return [] if not places or is_installed(places[0]) else [Path(os.path.abspath(places[0])).parent]


def project_root(
    main: str,  # FILE.py or PACKAGE.MODULE
) -> Path:
    "Return the directory that the names of a project's files are relative to."
    return (roots_of_file(Path(main)) if str(main).endswith('.py') else roots_of_package(main) or [Path()])[-1]


def saved_name(
    main: str,  # FILE.py or PACKAGE.MODULE
) -> str:
    "Return the name of a main module among the saved files of its project."
    return Path(os.path.abspath(main)).relative_to(project_root(main)).as_posix() if main.endswith('.py') else main


def named_function(
    function,  # Of a module, or a `functools.partial` of it with keyword arguments
) -> tuple[str | None, Project | None]:  # (None, None) if no name leads to it
    "Return the network name that leads to a function again, and the user's project that it belongs to."
    arguments, plain = {}, function
    if isinstance(function, partial) and not function.args:
        arguments, plain = function.keywords, function.func
    module_name, name = getattr(plain, '__module__', ''), getattr(plain, '__qualname__', '')
    module, project = sys.modules.get(module_name), projects.get(module_name.partition('.')[0])
    if getattr(module, name, None) is not plain:
        return None, None
    if not (project or is_installed(getattr(module, '__file__', None) or '')):
        return None, None
    where = module_name
    if project:
        where = Path(module.__file__).relative_to(project.roots[-1]).as_posix()
    elif module_name == 'kdfast.models.study_networks' and name in NETWORKS:
        where = ''
    network_name = str(Name(where, name, tuple(arguments.items())))
    return (network_name, project) if can_be_parsed(network_name) else (None, None)


def can_be_parsed(
    name: str,  # Of a network
) -> bool:
    "Return whether parsing a name and joining its parts gives the same name."
    try:
        return str(parse(name)) == name
    except KdfastError:
        return False
