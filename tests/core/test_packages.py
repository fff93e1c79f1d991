"Packages import only what the table in CONTRIBUTING.md allows; the paths of version 0.1 still lead somewhere."

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r'^\| `kdfast\.(\w+)` \|.*\| (.+) \|$', (ROOT / 'CONTRIBUTING.md').read_text(), re.M)
ALLOWED = {package: set(re.findall(r'\w+', imported)) for package, imported in ROWS}


def imports(file):
    "The packages of kdfast that a module imports, wherever in it"
    for node in ast.walk(ast.parse(file.read_text())):
        names = [node.module or ''] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split('.')[1] for name in names if name.startswith('kdfast.'))


@pytest.mark.parametrize('package', ALLOWED)
def test_imports_point_down(package):
    imported = {(file.name, name) for file in (ROOT / 'kdfast' / package).rglob('*.py') for name in imports(file)}
    assert ALLOWED[package] == {'all'} or {name for _, name in imported} <= ALLOWED[package] | {package}, imported


def test_every_package_is_in_the_table_and_no_two_import_each_other():
    assert set(ALLOWED) == {file.parent.name for file in (ROOT / 'kdfast').glob('*/__init__.py')}
    assert not [(a, b) for a, allowed in ALLOWED.items() for b in allowed & set(ALLOWED) if a in ALLOWED[b]]


@pytest.mark.parametrize(
    'path',
    ['decode.decoded', 'hint.front', 'loader.loaders', 'networks.build', 'runs.Folder', 'distill.folded'],
)
def test_paths_of_version_0_1_lead_somewhere(path):
    module, name = path.split('.')
    assert callable(getattr(import_module(f'kdfast.{module}'), name))
