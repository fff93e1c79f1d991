"The architecture: one direction of imports, no cycles, packaging, fast commands, small modules and functions."

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'kdfast'
LEVELS = [  # each package imports packages of earlier levels only
    ['core'],
    ['stats', 'runs'],
    ['data'],
    ['models'],
    ['distill'],
    ['training', 'analysis'],
    ['study', 'report', 'export'],
    ['cli'],
]
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
WITHOUT_TORCH = ['core', 'stats', 'runs', 'analysis', 'study', 'report']
OLD_PATHS = {'decode', 'hint', 'loader', 'networks'}  # modules for scripts of version 0.1
TOP = OLD_PATHS | {'kdfast', 'all', '__main__'}  # modules outside the packages
MAX_MODULE, MAX_FUNCTION = 259, 40  # lines


def module_name(file):
    return '.'.join(file.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


TREES = {module_name(file): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob('*.py'))}
FILES = {module_name(file): file for file in sorted(PACKAGE.rglob('*.py'))}


def imported(name, node):
    "The modules that an import statement, at any depth of a module, imports"
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ''
    if node.level:
        package = name.split('.') if FILES[name].name == '__init__.py' else name.split('.')[:-1]
        base = '.'.join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
    modules = [f'{base}.{alias.name}' for alias in node.names]
    return [module if module in TREES else base for module in modules]


def imports(name):
    nodes = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {module for node in nodes for module in imported(name, node)}


GRAPH = {name: {module for module in imports(name) if module in TREES} for name in TREES}


def package_of(name):
    return (name.split('.') + ['kdfast'])[1] if '.' in name else 'kdfast'


def test_every_package_has_a_level():
    assert {package_of(name) for name in TREES} <= LEVEL.keys() | TOP


@pytest.mark.parametrize('name', [name for name in TREES if package_of(name) not in TOP])
def test_imports_go_one_way(name):
    own = package_of(name)
    for module in GRAPH[name] - {'kdfast'}:
        other = package_of(module)
        assert other not in TOP, f'{name} imports {module}, an old path or a star import'
        assert other == own or LEVEL[other] < LEVEL[own], f'{name} imports {module}, of the same level or a later one'


def test_there_are_no_cycles():
    done = set()

    def visit(name, path):
        assert name not in path, f'import cycle: {" > ".join([*path[path.index(name) :], name])}'
        if name not in done:
            for module in sorted(GRAPH[name]):
                visit(module, [*path, name])
            done.add(name)

    for name in TREES:
        visit(name, [])


def test_every_package_is_installed():
    "A directory that setup.cfg does not list is missing from the wheel, although all tests in a checkout pass"
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    listed = set(config['options']['packages'].split())
    directories = {file.parent for file in PACKAGE.rglob('*.py')}
    assert {module_name(directory / '__init__.py') for directory in directories} == listed - {'kdfast.recipes'}
    assert all((directory / '__init__.py').is_file() for directory in directories)


@pytest.mark.parametrize('package', WITHOUT_TORCH)
def test_packages_for_results_import_no_torch(package):
    modules = [name for name in TREES if package_of(name) == package]
    code = f'import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n'
    code += 'print(*{"torch", "torchvision", "fastai"} & sys.modules.keys())'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), f'imported: {done.stdout}{done.stderr}'


def too_long():
    found = {name for name, file in FILES.items() if len(file.read_text().splitlines()) > MAX_MODULE}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.end_lineno - node.lineno + 1 > MAX_FUNCTION:
                    found.add(f'{name}:{node.name}')
    return found


def test_modules_and_functions_are_short():
    assert not too_long()
