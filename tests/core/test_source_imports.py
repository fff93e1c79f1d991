"Imports within the user's code: modules of equal names, and every way to import a module beside it."

import inspect
import pickle
import shutil
import sys

import pytest
import written_projects
from written_projects import BLOCKS, NET, build, write

from kdfast.core.projects import project_of_package
from kdfast.models.saved import build_for, load_network_file, save_network
from kdfast.runs import trust

project = pytest.fixture(written_projects.project)


# Modules of one name


def test_files_of_equal_names_in_two_folders_are_separate_modules(tmp_path, project):
    other = write(tmp_path / 'other', nets=NET, blocks=BLOCKS.format(size=5))
    sizes = [build(f'{folder}/nets.py:tiny')[0].kernel_size for folder in (project, other, project)]
    assert sizes == [(3, 3), (5, 5), (3, 3)] and 'blocks' not in sys.modules


def test_a_module_beside_a_file_hides_an_installed_one_only_from_that_file(tmp_path):
    write(
        tmp_path,
        nets='import colorsys\nfrom torch import nn\ndef net(n): return nn.Linear(colorsys.size, n)\n',
        colorsys='size = 7\n',
    )
    assert build(f'{tmp_path}/nets.py:net').in_features == 7
    import colorsys

    assert hasattr(colorsys, 'rgb_to_hsv')


def test_a_folder_without_a_package_hides_nothing(tmp_path):
    (tmp_path / 'json').mkdir()
    write(tmp_path, nets='import json\nfrom torch import nn\ndef net(n): return nn.Linear(json.loads("7"), n)\n')
    assert build(f'{tmp_path}/nets.py:net').in_features == 7


def test_changed_files_are_imported_again_and_built_networks_stay(project):
    before = build(project / 'nets.py:tiny')
    assert type(build(project / 'nets.py:tiny')) is type(before)
    (project / 'blocks.py').write_text(BLOCKS.format(size=5))  # of the same length, within the same second
    assert build(project / 'nets.py:tiny')[0].kernel_size == (5, 5) and before[0].kernel_size == (3, 3)


# Ways to import


@pytest.mark.parametrize(
    'files,name',
    [
        (
            {
                'nets': 'from torch import nn\ndef net(n):\n'
                '    from late import width\n    return nn.Linear(width, n)\n',
                'late': 'width = 7\n',
            },
            'nets.py:net',
        ),
        (
            {
                'nets': 'import parts.a.b as b\nfrom torch import nn\ndef net(n): return nn.Linear(b.width, n)\n',
                'parts/__init__': '',
                'parts/a/__init__': '',
                'parts/a/b': 'width = 7\n',
            },
            'nets.py:net',
        ),
        (
            {
                'nets': 'import parts.b\nfrom torch import nn\ndef net(n): return nn.Linear(parts.b.width, n)\n',
                'parts/b': 'width = 7\n',
            },
            'nets.py:net',
        ),
        (
            {
                'pkg/__init__': '',
                'pkg/nets': 'from .b import width\nfrom torch import nn\ndef net(n): return nn.Linear(width, n)\n',
                'pkg/b': 'width = 7\n',
            },
            'pkg/nets.py:net',
        ),
        (
            {
                'pkg/__init__': '',
                'pkg/nets': 'from pkg.b import width\nfrom torch import nn\ndef net(n): return nn.Linear(width, n)\n',
                'pkg/b': 'width = 7\n',
            },
            'pkg/nets.py:net',
        ),
        (
            {
                'pkg/__init__': '',
                'pkg/nets': 'from b import *\nfrom torch import nn\ndef net(n): return nn.Linear(width, n)\n',
                'pkg/b': 'width = 7\n',
            },
            'pkg/nets.py:net',
        ),
        (
            {
                'my-nets': 'from b import width\nfrom torch import nn\ndef net(n): return nn.Linear(width, n)\n',
                'b': 'import typing\nwidth = 7\n',
            },
            'my-nets.py:net',
        ),
        (
            {
                'nets.v2': 'from b import width\nfrom torch import nn\ndef net(n): return nn.Linear(width, n)\n',
                'b': 'width = 7\n',
            },
            'nets.v2.py:net',
        ),
    ],
    ids=[
        'late',
        'package',
        'folder',
        'relative',
        'absolute',
        'script in a package',
        'name with a dash',
        'name with a dot',
    ],
)
def test_every_way_to_import_what_lies_beside(tmp_path, data, files, name):
    "And it all is kept: the network is built again from the copy, when the originals are gone"
    write(tmp_path / 'mine', files)
    network, project = build_for(f'{tmp_path}/mine/{name}', data)
    assert network.in_features == 7 and len(project.hashes) == len(files)
    trust.save_sources(project.sources, tmp_path)
    trust.accept(network.build_info)
    save_network(network, tmp_path / 'weights.safetensors')
    shutil.rmtree(tmp_path / 'mine')
    assert (load_network_file(tmp_path / 'weights.safetensors').weight == network.weight).all()


def test_a_package_of_the_users_is_kept_and_an_installed_one_is_not(tmp_path, data, monkeypatch):
    write(
        tmp_path,
        {
            'mine/__init__': '',
            'mine/nets': 'from .b import width\nfrom mine import b\nfrom torch import nn\n'
            'def net(n): return nn.Linear(b.width, n)\n',
            'mine/b': 'width = 7\n',
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    network, project = build_for('mine.nets:net', data)
    assert (
        set(network.build_info['source']) == {'mine/__init__.py', 'mine/nets.py', 'mine/b.py'}
        and network.build_info['network'] == 'mine.nets:net'
    )
    assert project_of_package('torch.nn') is None and project_of_package('kdfast.models.study_networks') is None
    with pytest.raises(ModuleNotFoundError):
        project_of_package('no.such')


def test_dataclasses_annotations_pickles_and_the_source_work_as_in_any_module(tmp_path):
    write(
        tmp_path,
        nets='''from __future__ import annotations
from dataclasses import dataclass
from typing import get_type_hints
from torch import nn

@dataclass
class Config:
    width: int = 7

class Net(nn.Linear):
    def __init__(self, n, config:Config):
        super().__init__(config.width, n)

def net(n):
    assert get_type_hints(Config) == dict(width=int)
    return Net(n, Config())
''',
    )
    network = build(f'{tmp_path}/nets.py:net')
    assert (pickle.loads(pickle.dumps(network)).weight == network.weight).all()
    assert 'class Net' in inspect.getsource(type(network))
