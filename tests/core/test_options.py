"Options of the command line: what can be turned on can be turned off, and a name means what is said to be meant."

import random

import pytest
from conftest import draw, make

from kdfast.cli.recipes import recipe_command
from kdfast.cli.run import run_recipe
from kdfast.data import load
from kdfast.runs.options import KNOWN_TYPES
from kdfast.runs.recipes import find_recipe
from kdfast.study.tasks import Task

WORDS = ('epochs', 'lr_max', 'mix_up', 'T', 'teacher_epochs', 'lambda_', 'x', 'Alpha_2')
VALUES = (True, False, 0, -3, 7, 1.5, -1e-6, 1e20, '', '-x', '--no-mix-up', 'a b', 'a=b', "it's", 'ä', '[1]', '5')


def generated(tmp_path, seed):
    "A recipe of random parameters, and random arguments for it"
    draw = random.Random(seed)
    names = draw.sample(WORDS, draw.randint(1, 6))
    fitting = {name: [v for v in VALUES if type(v) is KNOWN_TYPES.get(name, type(v))] for name in names}
    defaults = {name: draw.choice(fitting[name]) if name != 'epochs' else 3 for name in names}
    kinds = {name: type(value).__name__ for name, value in defaults.items()}
    (tmp_path / f'r{seed}.py').write_text(
        '"R."\ndef main(run, '
        + ', '.join(f'{name}:{kinds[name]}={value!r}' for name, value in defaults.items())
        + '): pass\n'
    )
    given = {
        name: draw.choice([value for value in VALUES if type(value) is type(defaults[name])])
        for name in names
        if name != 'epochs' and draw.random() < 0.7
    }
    if 'T' in given:
        given['T'] = type(given['T'])(defaults['T'])  # which has a range
    return find_recipe(str(tmp_path / f'r{seed}.py')), given


@pytest.mark.parametrize('seed', range(60))
def test_what_a_study_passes_on_is_what_a_run_reads(tmp_path, seed):
    "Whatever the parameters are called and whatever their values are"
    recipe, given = generated(tmp_path, seed)
    task = Task(recipe, given, 4, None, [])
    words = task.command(['--data', 'pets'])
    command = recipe_command(recipe, run_recipe)
    read = command.make_context('run', words[words.index('run') + 2 :]).params
    assert {o.name: read[o.name] for o in recipe.options} == {
        o.name: given.get(o.name, o.default) for o in recipe.options
    }
    assert all(type(read[o.name]) is o.type for o in recipe.options)


@pytest.mark.parametrize(
    'words,read', [([], True), (['--no-mix-up'], False), (['--mix-up'], True), (['--no-mix-up', '--mix-up'], True)]
)
def test_a_flag_that_is_on_can_be_turned_off(kdfast, tmp_path, words, read):
    (tmp_path / 'mine.py').write_text('"Mine."\ndef main(run, mix_up:bool=True): pass # Mix images\n')
    recipe = find_recipe(str(tmp_path / 'mine.py'))
    assert recipe_command(recipe, run_recipe).make_context('run', words).params['mix_up'] is read
    assert '--no-mix-up' in kdfast('run', tmp_path / 'mine.py', '--help').out


@pytest.mark.parametrize(
    'parameters,said',
    [
        ('mix_up:bool=True, no_mix_up:int=1', '--no-mix-up is already an option'),
        ('help:int=1', '--help is already an option'),
        ('debug:bool=False', '--debug is already'),
    ],
)
def test_parameters_that_hide_each_other_are_refused(kdfast, tmp_path, parameters, said):
    (tmp_path / 'mine.py').write_text(f'"Mine."\ndef main(run, {parameters}): pass\n')
    done = kdfast('run', tmp_path / 'mine.py')
    assert done.status == 2 and said in done.err and done.err.count('\n') == 1


@pytest.mark.parametrize(
    'command',
    [
        ['ls'],
        ['compare'],
        ['compare', '--against', 'kd'],
        ['confusion', 'kd'],
        ['report'],
        ['export', 'kd', '--to', 'x.onnx'],
        ['predict', 'kd', 'x.png'],
    ],
)
@pytest.mark.parametrize('name', ['/data/pets', './pets', 'pets/', '../pets', '*', 'p[e]ts', '~'])
def test_a_path_where_a_name_is_meant_is_one_sentence(kdfast, tmp_path, command, name):
    make(tmp_path, 'kd', 0, valid_accuracy=0.8)
    done = kdfast(*command, '--data', name, '--runs', tmp_path)
    assert (
        done.status == 2
        and done.err
        == f'kdfast: error: --data {name}: expected the name of a data set, as its folder in {tmp_path} has it: pets\n'
    )


def test_ls_of_one_data_set(kdfast, tmp_path):
    make(tmp_path, 'kd', 0, valid_accuracy=0.8, seconds=1)
    make(tmp_path, 'exp1', 0, data='zoo', valid_accuracy=0.8, seconds=1)
    assert (
        'zoo' not in kdfast('ls', '--data', 'pets', '--runs', tmp_path).out
        and 'zoo' in kdfast('ls', '--runs', tmp_path).out
    )


# digits, and a folder called digits


@pytest.fixture
def beside_digits(tmp_path, monkeypatch):
    draw(tmp_path / 'digits' / 'train', 8, seed=0)
    draw(tmp_path / 'digits' / 'valid', 4, seed=1)
    monkeypatch.chdir(tmp_path)


def test_the_built_in_name_means_the_built_in_data_set_and_says_so(beside_digits, capsys):
    data = load('digits')
    assert (
        len(data.classes) == 10
        and data.load_arguments['source'] == 'digits'
        and load(**data.load_arguments).fingerprint == data.fingerprint
    )
    assert (
        capsys.readouterr().err.splitlines()[0]
        == 'kdfast: digits is the built-in data set; write ./digits for the folder or file of that name'
    )


@pytest.mark.parametrize('name', ['./digits', 'digits/', '{}/digits'])
def test_a_path_means_the_folder_and_is_on_record_as_such(beside_digits, tmp_path, capsys, name):
    data = load(name.format(tmp_path))
    assert (
        len(data.classes) == 3
        and data.load_arguments['source'] == str(tmp_path / 'digits')
        and 'built-in' not in capsys.readouterr().err
    )
    assert load(**data.load_arguments).fingerprint == data.fingerprint


def test_a_run_on_the_built_in_data_set_is_exported(beside_digits, kdfast, tmp_path):
    assert kdfast('run', 'baseline', '--epochs', 1, '--student', 'thin', '--data', 'digits').status == 0
    done = kdfast('export', 'baseline,epochs=1', '--to', 'x.safetensors')
    assert done.status == 0 and 'of 1,198 validation images' in done.out, done.err
