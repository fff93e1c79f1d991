"""Import the user's code under private names, so that modules with equal names stay separate.

A `Project` is a file or a package of the user's, with the modules that it imports from its own directories. It records
the content of every file that it executes. All other imports work as usual. Imports no torch.
"""

import builtins
import hashlib
import importlib
import importlib.util
import itertools
import os
import re
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from kdfast.core.errors import KdfastError
from kdfast.core.explain import PREFIX, errors_explained
from kdfast.core.suggest import near_names

projects = {}  # by private name; a project is never removed, because its classes stay in use


class Project:
    "A file or a package of the user's, with its modules as they were when they were imported."

    def __init__(
        self,
        main: str,  # FILE.py or PACKAGE.MODULE
        roots: list[Path],  # Directories of its modules; names of its files are relative to the last
        saved: dict | None = None,  # Content by name of a file: only these are executed
    ):
        self.main = main
        self.roots = roots
        self.saved = saved
        self.sources = {}
        self.name = free_name(re.sub(r'\W', '_', Path(main).stem if main.endswith('.py') else main))
        projects[self.name] = self
        package = sys.modules[self.name] = ModuleType(self.name)
        package.__path__ = [str(root) for root in roots]
        self.builtins = vars(builtins) | dict(__import__=self.import_)
        importlib.invalidate_caches()
        with errors_explained(main, self):
            self.module = self.load()

    def load(self) -> ModuleType:
        "Import the main module."
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

    def import_(
        self,
        name: str,  # Of the module to import
        globals: dict | None = None,  # Of the importing module
        locals: dict | None = None,  # Ignored, as by Python
        fromlist: tuple = (),  # Names to import from the module
        level: int = 0,  # Number of leading dots
    ) -> ModuleType:
        "Replace `builtins.__import__` in the modules of this project."
        if level or not self.has(name.partition('.')[0]):
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = importlib.import_module(f'{self.name}.{name}')
        if fromlist:
            return builtins.__import__(module.__name__, globals, locals, fromlist)
        return sys.modules[f'{self.name}.{name.partition(".")[0]}']

    def has(
        self,
        top: str,  # Top-level name of a module
    ) -> bool:
        """Return whether a module is part of this project.

        An installed module has priority over a directory without __init__.py.
        """
        if top == 'kdfast':
            return False
        spec = PathFinder.find_spec(f'{self.name}.{top}', [str(root) for root in self.roots])
        if spec is None or spec.origin is not None:
            return spec is not None and self.may_execute(spec)
        return importlib.util.find_spec(top) is None

    def read(
        self,
        path: str,  # Of a file of this project
    ) -> bytes:
        "Read a file that is to be executed, and record its content."
        name = self.name_of(path)
        self.sources[name] = Path(path).read_bytes() if self.saved is None else self.saved[name]
        return self.sources[name]

    def name_of(
        self,
        path: str,  # Of a file of this project
    ) -> str:
        "Return the name of a file, relative to the last root."
        return Path(path).relative_to(self.roots[-1]).as_posix()

    def may_execute(
        self,
        spec: importlib.machinery.ModuleSpec,  # Of a module found in the roots
    ) -> bool:
        "Return whether a module may be executed: any, or a saved source if there are some."
        return (
            self.saved is None or isinstance(spec.loader, SourceFileLoader) and self.name_of(spec.origin) in self.saved
        )

    def file(
        self,
        name: str,  # As in `sources`
    ) -> Path:
        "Return the path of a file."
        return self.roots[-1] / name

    @property
    def hashes(self) -> dict[str, str]:
        "SHA-256 of every file that was executed, by name."
        return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(self.sources.items())}

    @property
    def unchanged(self) -> bool:
        "Whether all files on the disk are as they were executed."
        return all(sha256_of(self.file(name)) == sha256 for name, sha256 in self.hashes.items())

    def function(
        self,
        name: str,  # Of a function, a class or any other callable
    ):
        "Return a function of the main module. Raises KdfastError, with similar names, if there is none."
        return find_function(self.module, name, self.main)


def free_name(
    stem: str,  # Of the main file or package
) -> str:
    "Return an unused private name; the same in each process, because checkpoints name classes."
    names = (f'{PREFIX}{stem}' + (f'_{n}' if n else '') for n in itertools.count())
    return next(name for name in names if name not in projects)


class Finder:
    "Find the modules of projects; only sources of a project are executed, by its own loader."

    @staticmethod
    def find_spec(
        fullname: str,  # Of a module
        path: list[str] | None = None,  # Of its package
        target: ModuleType | None = None,  # Ignored
    ) -> importlib.machinery.ModuleSpec | None:  # None for modules of no project
        "Implement the protocol of `sys.meta_path`."
        if fullname.partition('.')[0] not in projects:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None:
            return spec  # a directory without __init__.py
        if not projects[fullname.partition('.')[0]].may_execute(spec):
            raise ModuleNotFoundError(
                f'No module named {fullname!r}', name=fullname
            )  # so that no other finder is tried
        if isinstance(spec.loader, SourceFileLoader):
            spec.loader, spec.cached = Loader(fullname, spec.origin), None
        return spec


class Loader(SourceFileLoader):
    "Execute a source as it is on the disk, not its bytecode cache, with the imports of its project."

    def get_code(
        self,
        fullname: str,  # Of a module
    ) -> CodeType:
        "Implement the protocol of loaders."
        return self.source_to_code(projects[fullname.partition('.')[0]].read(self.path), self.path)

    def exec_module(
        self,
        module: ModuleType,  # Of a project
    ):
        "Implement the protocol of loaders."
        vars(module)['__builtins__'] = projects[module.__name__.partition('.')[0]].builtins
        super().exec_module(module)


sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]  # a class with static methods, as importlib's own


def find_function(
    module: ModuleType,  # Where to look
    name: str,  # Of a function, a class or any other callable
    where: str,  # Name of the module, for the error
):
    "Return a function of a module. Raises KdfastError, with similar names, if there is none."
    found = getattr(module, name, None)
    if callable(found):
        return found
    names = [other for other, value in vars(module).items() if callable(value) and not other.startswith('__')]
    raise KdfastError(f'{where} has no function {name}; {near_names(name, names)}')


def sha256_of(
    file: str | Path,  # May be missing
) -> str | None:  # 64 hexadecimal digits; None if the file cannot be read
    "Compute the SHA-256 of a file."
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None
