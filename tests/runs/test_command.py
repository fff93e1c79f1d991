"The command that trains a run again is read back as the options that the run recorded."

import shlex
from dataclasses import asdict, fields

import pytest
from conftest import make

from kdfast.cli.options import DataOptions
from kdfast.cli.recipes import recipe_command
from kdfast.runs.command import DATA_DEFAULTS, reproduce_command
from kdfast.runs.find import changed_arguments
from kdfast.runs.recipes import find_recipe


def read_back(command):
    "What the command line passes on: recipe, data options, run options, arguments"
    program, run, name, *words = shlex.split(command)
    assert (program, run) == ('kdfast', 'run')
    found = []
    recipe_command(find_recipe(name), lambda *parsed: found.extend(parsed))(words, standalone_mode=False)
    return found


CHANGED = dict(
    source="/data/my 'pets'", size=32, grow=1.5, holdout=0.3, augment='flip', columns='a,b', range='0,255',
    batch_size=48, skip_broken=True, labels='tags',
)  # fmt: skip


@pytest.mark.parametrize(
    'images', [dict(source='digits', holdout=0.0, grow=1.0, skip_broken=False, size=None), CHANGED]
)
@pytest.mark.parametrize(
    'name', ['exp1,epochs=3,lr=0.1,optimizer=muon,precision=float32', 'hint,matrix=True', 'kd,T=2.5,alpha=0.25']
)
def test_it_is_read_back_as_what_was_recorded(tmp_path, name, images):
    folder = make(tmp_path, name, 3)
    folder.set_status('finished', images=images, device='cpu', threads=2)
    recipe, read, options, arguments = read_back(reproduce_command(folder))
    wanted = dict(images, data=images['source'])
    assert recipe.name == name.split(',')[0] and options.seed == 3 and options.threads == 2
    assert asdict(read) == {f.name: wanted.get(f.name, f.default) for f in fields(DataOptions)}
    given = changed_arguments(folder)
    assert given and {key: arguments[key] for key in given} == given


def test_defaults_are_those_of_the_options():
    defaults = {f.name: f.default for f in fields(DataOptions) if f.name != 'data'}
    assert {name: value for name, value in defaults.items() if value not in (None, False) or name == 'holdout'} == (
        DATA_DEFAULTS
    )


def test_other_recipes_and_earlier_versions(tmp_path):
    folder = make(tmp_path, 'kd', 0)
    assert reproduce_command(folder) is None
    folder.set_status('finished', images=dict(source='digits'), recipe='mine')
    assert reproduce_command(folder).startswith('kdfast run ./mine.py --data digits --seed 0')
