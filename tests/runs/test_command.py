"The command that trains a run again is read back as the options that the run recorded."

import shlex
from dataclasses import asdict, fields

import pytest
from conftest import make, seal

from kdfast.cli.options import DataOptions
from kdfast.cli.recipes import recipe_command
from kdfast.report.provenance import provenance
from kdfast.runs.command import command_note, reproduce_command
from kdfast.runs.find import changed_arguments
from kdfast.runs.lookup import next_recipe
from kdfast.runs.options import DATA_DEFAULTS, given_options
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


@pytest.mark.parametrize('seed', [0, 1])
def test_the_seed_of_a_split_is_that_of_the_run(seed):
    assert given_options(dict(holdout=0.2, grow=1.0, size=None, resplit=seed)) == dict(holdout=0.2, resplit=True)


def test_other_recipes_and_earlier_versions(tmp_path):
    folder = make(tmp_path, 'kd', 0)
    assert reproduce_command(folder) is None
    folder.set_status('finished', images=dict(source='digits'), recipe='mine')
    assert reproduce_command(folder).startswith('kdfast run ./mine.py --data digits --seed 0')


OLD = '"Old."\ndef main(run, epochs: int = 32, optimizer: str = "sgd", gone: int = 1):\n    pass\n'


def old_run(runs, recipe='baseline', seed=0, **arguments):
    "Of a version with other defaults, which are not in the name"
    folder = make(runs, recipe, seed, valid_accuracy=0.8)
    (folder / 'recipe.py').write_text(OLD)
    seal(folder)
    recorded = folder.run['arguments'] | dict(epochs=32, optimizer='sgd', gone=1) | arguments
    folder.set_status('finished', arguments=recorded, images=dict(source='digits'))
    return folder


@pytest.mark.parametrize('recipe', ['baseline', 'kd', 'teacher', 'at'])
def test_defaults_of_then_are_options_of_today(tmp_path, recipe):
    "And the command says that the code is another"
    folder = old_run(tmp_path, recipe)
    command = f'kdfast run {recipe} --data digits --seed 0 --epochs 32 --optimizer sgd'
    assert reproduce_command(folder) == command and read_back(command)[3]['epochs'] == 32
    note = command_note(folder)
    assert note.startswith(f'The code of {recipe} has changed since') and '; it no longer has --gone.' in note
    [found] = provenance([folder])
    assert (found['command'], found['note']) == (command, note)


def test_defaults_of_today_that_were_given_then_are_left_out(tmp_path):
    folder = old_run(tmp_path, 'baseline,epochs=6', epochs=6, optimizer='muon')
    assert reproduce_command(folder) == 'kdfast run baseline --data digits --seed 0'


def test_the_same_code_needs_no_note(tmp_path):
    folder = make(tmp_path, 'kd', 0)
    assert command_note(folder) == ''
    (folder / 'recipe.py').write_text('# a comment\n' + (folder / 'recipe.py').read_text())
    seal(folder)
    assert command_note(folder) == ''
    mine = make(tmp_path, 'mine', 0)
    (mine / 'recipe.py').write_text(OLD)
    seal(mine)
    assert command_note(mine) == ''
    (folder / 'recipe.py').unlink()
    assert command_note(folder) == ''


def test_the_next_recipe_has_the_defaults_of_then(tmp_path):
    "And an old teacher is named by its folder, as today's default is another"
    folder, teacher = old_run(tmp_path), old_run(tmp_path, 'teacher')
    shared = dict(epochs=32, optimizer='sgd')
    assert next_recipe(folder, [folder]) == ('kd', shared)
    found = next_recipe(folder, [folder, teacher])
    assert found == ('kd', dict(teacher=str(teacher)) | shared)
