"""The user's own code: executed privately, so that files of one name in two places never meet, and known file by file.

A `Project` is a file or a package of the user's. What lies beside the file, or in the package, is imported as its part, under a
name that nothing else has; everything else is imported as ever. Imports no torch.
"""

import builtins
import difflib
import hashlib
import importlib
import importlib.util
import itertools
import os
import re
import sys
import traceback
from contextlib import contextmanager
from functools import partial
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

from kdfast.core.errors import KdfastError
from kdfast.core.installed import is_installed
from kdfast.core.names import NETWORKS, Name, parse

PREFIX = 'kdfast_user_'
projects = {}  # by the private name; what was loaded once stays, for its classes are in use


class Project:
    "Modules of the user's that belong together, as they were when they were imported."

    def __init__(
        self,
        main: str,  # FILE.py or PACKAGE.MODULE
        roots: list[Path],  # Where its modules lie; the names of its files are relative to the last
        kept: dict | None = None,  # Content by name of a file: nothing else is executed
    ):
        self.main, self.roots, self.kept, self.sources = main, roots, kept, {}
        self.name = free_name(re.sub(r'\W', '_', Path(main).stem if main.endswith('.py') else main))
        projects[self.name] = self
        package = sys.modules[self.name] = ModuleType(self.name)
        package.__path__ = [str(root) for root in roots]
        self.builtins = vars(builtins) | dict(__import__=self.import_)
        importlib.invalidate_caches()
        with errors_explained(main, self):
            self.module = self.load()

    def load(self):
        if not self.main.endswith('.py'):
            return importlib.import_module(f'{self.name}.{self.main}')
        file = Path(os.path.abspath(self.main))
        if not file.is_file():
            raise KdfastError(f'no file {self.main}')
        inside = file.relative_to(self.roots[-1]).with_suffix('').parts
        if len(inside) > 1:
            importlib.import_module('.'.join((self.name, *inside[:-1])))
        name = '.'.join((self.name, *inside[:-1], inside[-1].replace('.', '_')))
        spec = importlib.util.spec_from_file_location(name, file, loader=Loader(name, str(file)))
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def import_(self, name, globals=None, locals=None, fromlist=(), level=0):
        "What an import statement in its modules does"
        if level or not self.has(name.partition('.')[0]):
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = importlib.import_module(f'{self.name}.{name}')
        if fromlist:
            return builtins.__import__(module.__name__, globals, locals, fromlist)
        return sys.modules[f'{self.name}.{name.partition(".")[0]}']

    def has(self, top):
        "Whether a module of that name is part of it; a folder of files that are no package is not, where something else is called so"
        if top == 'kdfast':
            return False
        spec = PathFinder.find_spec(f'{self.name}.{top}', [str(root) for root in self.roots])
        if spec is None or spec.origin is not None:
            return spec is not None and self.may_execute(spec)
        return importlib.util.find_spec(top) is None

    def content(self, path):
        "Of a file that is to be executed; it is on record from now on"
        name = self.name_of(path)
        self.sources[name] = Path(path).read_bytes() if self.kept is None else self.kept[name]
        return self.sources[name]

    def name_of(self, path):
        return Path(path).relative_to(self.roots[-1]).as_posix()

    def may_execute(self, spec):
        return self.kept is None or isinstance(spec.loader, SourceFileLoader) and self.name_of(spec.origin) in self.kept

    def file(self, name):
        return self.roots[-1] / name

    @property
    def hashes(self):
        "SHA-256 of every file that was executed"
        return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(self.sources.items())}

    @property
    def unchanged(self):
        return all(sha256_of(self.file(name)) == sha256 for name, sha256 in self.hashes.items())

    def function(
        self,
        name: str,  # Of a function, or whatever can be called
    ):
        "Raises KdfastError, with the nearest names, where there is none."
        return find_function(self.module, name, self.main)


def free_name(stem):
    "The same in every process that loads the same files in the same order, for checkpoints name classes"
    return next(name for n in itertools.count() if (name := f'{PREFIX}{stem}' + f'_{n}' * bool(n)) not in projects)


class Finder:
    "Finds the modules of projects; nothing of them is executed but sources, and those by our own loader"

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname.partition('.')[0] not in projects:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None:
            return spec  # a folder
        if not projects[fullname.partition('.')[0]].may_execute(spec):
            raise ModuleNotFoundError(f'No module named {fullname!r}', name=fullname)  # nor may another finder
        if isinstance(spec.loader, SourceFileLoader):
            spec.loader, spec.cached = Loader(fullname, spec.origin), None
        return spec


class Loader(SourceFileLoader):
    "Executes a source as it is now, never a compiled one that may be of before; imports in it are the project's."

    def get_code(self, fullname):
        return self.source_to_code(projects[fullname.partition('.')[0]].content(self.path), self.path)

    def exec_module(self, module):
        module.__builtins__ = projects[module.__name__.partition('.')[0]].builtins
        super().exec_module(module)


sys.meta_path.insert(0, Finder)


# From a name to a project


def of_file(
    path: str | Path,  # FILE.py
) -> Project:
    "The project of a file: as it was loaded before, where none of its files has changed since."
    return newest_file(str(path), roots_of(Path(path)))


def of_package(
    name: str,  # PACKAGE.MODULE, that can be imported
) -> Project | None:  # None where it is installed, or kdfast's own: no source of the user's
    "The project of a package of the user's. Raises ImportError where there is no such package."
    roots = roots_of_package(name)
    return newest_file(name, roots) if roots else None


def kept_project(
    main: str,  # FILE.py or PACKAGE.MODULE, where its files have been kept
    folder: Path,  # Where
    sources: dict[str, bytes],  # The files that may be executed
) -> Project:
    "A project of files that came with weights."
    folder = Path(os.path.abspath(folder))
    if main.endswith('.py') and main not in sources:
        raise KdfastError(f'{folder / main} was not kept with the network')
    if not main.endswith('.py'):
        return Project(main, [folder], sources)
    return Project(str(folder / main), list(dict.fromkeys(((folder / main).parent, folder))), sources)


def newest_file(main, roots):
    same = [
        p for p in projects.values() if p.kept is None and p.roots == roots and p.main == main and hasattr(p, 'module')
    ]
    return same[-1] if same and same[-1].unchanged else Project(main, roots)


def roots_of(file):
    "Where the modules of a file lie: beside it; and where the package lies that it is in, if it is in one. An installed file stands alone"
    top = folder = Path(os.path.abspath(file)).parent
    while (top / '__init__.py').is_file() and top.name.isidentifier() and not is_installed(file):
        top = top.parent
    return list(dict.fromkeys((folder, top)))


def roots_of_package(name):
    top = name.partition('.')[0]
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(f'No module named {top!r}')
    places = list(spec.submodule_search_locations or ([spec.origin] if spec.has_location else []))
    return [] if not places or is_installed(places[0]) else [Path(os.path.abspath(places[0])).parent]


def project_root(main):
    "What the names of a project's files are relative to"
    return (roots_of(Path(main)) if str(main).endswith('.py') else roots_of_package(main) or [Path()])[-1]


def kept_name(main):
    "What FILE.py or PACKAGE.MODULE is where its files have been kept"
    return Path(os.path.abspath(main)).relative_to(project_root(main)).as_posix() if main.endswith('.py') else main


def find_function(module, name, where):
    found = getattr(module, name, None)
    if callable(found):
        return found
    raise KdfastError(
        f'{where} has no function {name}; '
        + near_names(
            name, [other for other, value in vars(module).items() if callable(value) and not other.startswith('__')]
        )
    )


def near_names(name, names):
    "What may have been meant"
    found = difflib.get_close_matches(name, names, n=3)
    return f'did you mean {", ".join(found)}?' if found else f'there are {short_list(names)}'


def short_list(names):
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '') or 'nothing'


def sha256_of(file):
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None


def named_function(
    function,  # Of a module, or a partial one of it
) -> tuple[str | None, Project | None]:
    "The name of a network that leads to it again, and the user's code that it is of; (None, None) where there is no such name."
    arguments, plain = (
        (function.keywords, function.func) if isinstance(function, partial) and not function.args else ({}, function)
    )
    top, name = getattr(plain, '__module__', ''), getattr(plain, '__qualname__', '')
    module, project = sys.modules.get(top), projects.get(top.partition('.')[0])
    if getattr(module, name, None) is not plain or not (
        project or is_installed(getattr(module, '__file__', None) or '')
    ):
        return None, None
    where = (
        Path(module.__file__).relative_to(project.roots[-1]).as_posix()
        if project
        else ''
        if top == 'kdfast.models.study_networks' and name in NETWORKS
        else top
    )
    called = str(Name(where, name, tuple(arguments.items())))
    return (called, project) if parses_as_name(called) else (None, None)


def parses_as_name(name):
    try:
        return str(parse(name)) == name
    except KdfastError:
        return False


# What goes wrong in it


@contextmanager
def errors_explained(
    doing: str,  # What is going on, for the error
    project: Project | None,  # Whose code runs
):
    "Turn whatever the user's code raises into a KdfastError that names the line."
    try:
        yield
    except KdfastError:
        raise
    except SyntaxError as e:
        raise KdfastError(f'{e.filename or doing}, line {e.lineno}: {e.msg}') from e
    except (Exception, SystemExit) as e:
        raise KdfastError(f'{doing}: {error_reason(e)}{error_line(e, project)}') from e


def error_reason(error):
    "The error's first line, or what is announced there, and its kind where that says more"
    lines = re.sub(rf'{PREFIX}\w+\.', '', str(error)).strip().splitlines() or ['']
    message = (lines[1].strip() if lines[0].endswith(':') and lines[1:] else lines[0]).rstrip('.')
    return (
        message
        if message and isinstance(error, ImportError | TypeError | ValueError | RuntimeError | AssertionError)
        else f'{type(error).__name__}: {message}'
    )


def error_line(error, project):
    "Where in the project it was"
    files = {str(project.file(name)): name for name in project.sources} if project else {}
    lines = [
        (files[frame.f_code.co_filename], number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename in files
    ]
    return f' ({lines[-1][0]}, line {lines[-1][1]})' if lines else ''
