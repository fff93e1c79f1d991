"The user's code: which modules belong to a run, and errors that name a line."

import json
import shutil

import pytest
import torch
import written_projects
from written_projects import BLOCKS, build, write

from kdfast.core.errors import KdfastError
from kdfast.core.explain import PREFIX
from kdfast.core.installed import is_installed
from kdfast.core.projects import named_function
from kdfast.models.saved import build_for
from kdfast.runs.recipes import find_recipe, recipe_names
from kdfast.training import identity

project = pytest.fixture(written_projects.project)


# Identity


def test_a_run_of_several_modules_is_known_by_all_of_them_and_loads_elsewhere(
    kdfast, images, project, tmp_path, monkeypatch
):
    monkeypatch.chdir(project)
    command = (
        'run',
        'baseline',
        '--student',
        'nets.py:tiny(width=4)',
        '--epochs',
        1,
        '--data',
        images,
        '--runs',
        tmp_path / 'runs',
    )
    done = kdfast(*command)
    assert done.status == 0, done.err
    (folder,) = (tmp_path / 'runs').glob('*/*/0')
    facts = json.loads((folder / 'run.json').read_text())
    assert {'nets.py', 'blocks.py'} == set(facts['sources']['nets.py']) and {
        'source/nets.py',
        'source/blocks.py',
    } <= set(facts['files'])
    assert kdfast(*command).status == 0
    (project / 'blocks.py').write_text(BLOCKS.format(size=3) + '# another\n')
    again = kdfast(*command)
    assert (
        again.status == 2
        and 'was trained with sources that have changed since' in again.err
        and 'blocks.py' in again.err
    )
    shutil.rmtree(project)
    monkeypatch.chdir(tmp_path)
    shutil.move(folder, tmp_path / 'elsewhere')
    image = images / 'valid' / 'bee' / '000.png'
    assert kdfast('predict', tmp_path / 'elsewhere', image).status == 0
    assert (
        kdfast('export', tmp_path / 'elsewhere', '--to', tmp_path / 'x.safetensors').status == 0
        and (tmp_path / 'source' / 'blocks.py').exists()
    )
    assert kdfast('predict', tmp_path / 'x.safetensors', image).status == 0
    (tmp_path / 'source' / 'blocks.py').write_text(BLOCKS.format(size=3) + '# another\n')
    assert (
        'blocks.py is not the file that the network was trained with'
        in kdfast('predict', tmp_path / 'x.safetensors', image).err
    )
    done = kdfast(
        'run', 'kd', '--teacher', tmp_path / 'elsewhere', '--epochs', 1, '--data', images, '--runs', tmp_path / 'runs'
    )
    assert done.status == 0, done.err


def test_what_a_network_reads_elsewhere_shows_in_its_structure(kdfast, images, tmp_path):
    write(
        tmp_path,
        nets=f'''from pathlib import Path
from torch import nn
def net(n):
    width = int(Path({str(tmp_path / 'width.txt')!r}).read_text())
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n))
''',
    )
    (tmp_path / 'width.txt').write_text('4')
    command = (
        'run',
        'baseline',
        '--student',
        f'{tmp_path}/nets.py:net',
        '--epochs',
        1,
        '--data',
        images,
        '--runs',
        tmp_path / 'runs',
    )
    assert [kdfast(*command).status for _ in range(2)] == [0, 0]
    (tmp_path / 'width.txt').write_text('5')
    again = kdfast(*command)
    assert again.status == 2 and 'another network' in again.err


RECIPE = '''"Mine, with a loss beside it."
from __future__ import annotations
from dataclasses import dataclass
from kdfast.all import *
from my_losses import loss

@dataclass
class Config: width: int = 4

def small(n, width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n))

def main(run:Run, epochs:int=1, width:int=4):
    learn = run.learner(run.build(partial(small, width=Config(width).width)), loss_func=loss)
    learn.fit_one_cycle(epochs, .1)
    return learn
'''


def test_a_recipes_own_modules_belong_to_its_run_and_its_own_network_loads_again(kdfast, images, tmp_path):
    write(
        tmp_path / 'mine',
        mine=RECIPE,
        my_losses='from fastai.basics import CrossEntropyLossFlat\nloss = CrossEntropyLossFlat()\n',
    )
    command = ('run', tmp_path / 'mine' / 'mine.py', '--data', images, '--runs', tmp_path / 'runs')
    done = kdfast(*command)
    assert done.status == 0, done.err
    folder = tmp_path / 'runs' / 'tiny' / 'mine' / '0'
    facts = json.loads((folder / 'run.json').read_text())
    assert set(facts['recipe_sources']) == {'my_losses.py'} and {'source/mine.py', 'source/my_losses.py'} <= set(
        facts['files']
    )
    assert kdfast('predict', folder, images / 'valid' / 'bee' / '000.png').status == 0
    with (tmp_path / 'mine' / 'my_losses.py').open('a') as f:
        f.write('# another\n')
    again = kdfast(*command)
    assert again.status == 2 and 'my_losses.py' in again.err


def test_initial_weights_follow_from_the_seed_whatever_was_loaded_before(tmp_path, data):
    write(tmp_path, nets='import torch\nfrom torch import nn\ntorch.rand(5)\ndef net(n): return nn.Linear(3, n)\n')

    def weights(name):
        torch.manual_seed(3)
        return next(build_for(name, data)[0].parameters())

    for name in (f'{tmp_path}/nets.py:net', 'timm:test_vit2'):
        assert (weights(name) == weights(name)).all()


# Errors


@pytest.mark.parametrize(
    'text,said',
    [
        ('import no_such_module\n', 'nets.py: No module named \'no_such_module\' (nets.py, line 1)'),
        ('from torch import nn\n\nx = dict(a=1)["b"]\n', "nets.py: KeyError: 'b' (nets.py, line 3)"),
        (
            'def net(n):\n    return other(n)\ndef other(n):\n    return n.no\n',
            "nets.py:net could not be built for 3 classes: AttributeError: 'int' object has no attribute 'no' "
            '(nets.py, line 4)',
        ),
        (
            'import argparse\nargparse.ArgumentParser().parse_args(["--no"])\n',
            'nets.py: SystemExit: 2 (nets.py, line 2)',
        ),
        (
            'import blocks\ndef net(n): return blocks.wrong(n)\n',
            'could not be built for 3 classes: ZeroDivisionError: division by zero (blocks.py, line 1)',
        ),
        ('import broken\n', 'broken.py, line 1: '),
        ('from torch import nn\nfrom blocks import *\n', 'nets.py has no function net; did you mean nest?'),
        ('net = 5\n', 'nets.py has no function net'),
    ],
)
def test_what_a_users_code_raises_names_the_function_and_the_line(tmp_path, text, said):
    write(tmp_path, nets=text, blocks='def wrong(n): return 1/0\ndef nest(n): pass\n', broken='def (\n')
    with pytest.raises(KdfastError) as error:
        build(f'{tmp_path}/nets.py:net')
    assert said in error.value.message and '\n' not in error.value.message and PREFIX not in error.value.message


def test_an_interrupt_is_none_of_its_errors(tmp_path):
    write(tmp_path, nets='def net(n): raise KeyboardInterrupt\n')
    with pytest.raises(KeyboardInterrupt):
        build(f'{tmp_path}/nets.py:net')


def test_functions_that_can_be_found_again_have_a_name():
    from functools import partial

    from kdfast.models.study_networks import thin, wide

    assert named_function(wide) == ('wide', None) and named_function(partial(thin)) == ('thin', None)
    for nameless in (lambda n: None, partial(wide, 3), write, partial(thin, size=torch.zeros(3))):
        assert named_function(nameless) == (None, None)


def test_every_recipe_of_kdfast_is_executed_as_it_is_and_is_no_source_of_a_users():
    assert all(
        find_recipe(name).main().__name__ == 'main' and not identity.recipe_modules(find_recipe(name))
        for name in recipe_names()
    )


def test_what_pip_puts_into_any_folder_is_installed_and_what_lies_beside_it_is_not(tmp_path):
    "As with pip install --target"
    (tmp_path / 'library').mkdir(), (tmp_path / 'library-1.0.dist-info').mkdir()
    (tmp_path / 'library-1.0.dist-info' / 'RECORD').write_text(
        'library/__init__.py,,\nlibrary-1.0.dist-info/RECORD,,\n'
    )
    for file in ('library/__init__.py', 'nets.py'):
        (tmp_path / file).write_text('')
    assert is_installed(tmp_path / 'library' / '__init__.py') and not is_installed(tmp_path / 'nets.py')
