"The help of commands is short and complete, and appears without heavy imports."

import inspect
import json
import os
import subprocess
import sys

import pytest
from typer.main import get_command

from kdfast import cli
from kdfast.cli.options import DataOptions, StudyOptions, changed_flags, expand_groups
from kdfast.core import openmp
from kdfast.runs.options import OPTIMIZERS
from kdfast.runs.recipes import recipe_names

COMMANDS = get_command(cli.app).commands


IMPORTS = """
import sys
from kdfast import cli
try:
    cli.main()
except SystemExit:
    print('imported', *sys.modules)
"""


HEAVY = {'torch', 'fastai', 'numpy', 'pandas', 'sklearn', 'PIL'}


@pytest.mark.parametrize(
    'arguments',
    [[], ['ls'], ['compare'], ['run'], ['run', 'exp1', '--help'], ['run', 'exp1', '--epochs', '0'], ['runn']]
    + [[name, '--help'] for name in sorted(COMMANDS)],
    ids=' '.join,
)
def test_help_and_wrong_input_import_neither_torch_nor_numpy(study, arguments):
    runs = ['--runs', str(study.parent)] if arguments[:1] in (['ls'], ['compare']) and '--help' not in arguments else []
    done = subprocess.run([sys.executable, '-c', IMPORTS, *arguments, *runs], capture_output=True, text=True)
    assert not HEAVY & set(done.stdout.rpartition('imported')[2].split()), done.stderr


@pytest.mark.parametrize(
    'arguments,said',
    [([], 'Results:'), (['run'], 'exp1'), (['--version'], 'kdfast 0.'), (['cp', '--help'], 'Copy a recipe')],
)
def test_help_and_version(kdfast, arguments, said):
    done = kdfast(*arguments)
    assert done.status == 0 and said in done.out and done.err == ''


@pytest.mark.parametrize('name', sorted(COMMANDS))
def test_the_help_of_a_command_is_one_short_line(kdfast, name):
    lines = kdfast('--help').out.splitlines()
    [line] = [line for line in lines if line.split()[:1] == [name]] or ['']
    text = line.partition(name)[2].strip()
    assert COMMANDS[name].hidden or text.endswith('.') and len(text) <= 60


@pytest.mark.parametrize('words', [(), ('run', 'exp1'), *((name,) for name in sorted(COMMANDS))], ids=' '.join)
def test_no_line_of_help_is_cut_off_or_too_wide(kdfast, monkeypatch, words):
    monkeypatch.setenv('COLUMNS', '80')
    lines = kdfast(*words, '--help').out.splitlines()
    assert lines and all(len(line) <= 80 and (not line.endswith('...') or line.startswith('Usage:')) for line in lines)


@pytest.mark.parametrize('given', [{}, dict(OMP_WAIT_POLICY='ACTIVE'), dict(GOMP_SPINCOUNT='0')], ids=str)
def test_threads_give_way_to_other_work_unless_the_user_says_how_they_wait(given):
    environment = dict(given)
    openmp.share_cores(environment)
    assert environment == (given or dict(GOMP_SPINCOUNT=openmp.SPIN_COUNT))


def test_a_program_can_read_what_every_recipe_takes(kdfast, tmp_path):
    listed = json.loads(kdfast('ls', '--json', '--runs', tmp_path).out)['recipes']
    options = {o['name']: o for o in listed['kd']['options']}
    assert listed['kd']['purpose'].startswith('Knowledge distillation') and listed.keys() == set(recipe_names())
    assert options['alpha'] == dict(
        name='alpha',
        type='float',
        default=0.9,
        help='Weight of the soft loss; the hard loss has weight 1 - alpha',
        range='from 0 to 1',
    )
    assert options['optimizer']['range'] == ' or '.join(OPTIMIZERS) and options['epochs']['type'] == 'int'


@pytest.mark.parametrize('given', [{}, dict(GOMP_SPINCOUNT='7'), dict(OMP_WAIT_POLICY='PASSIVE')], ids=str)
def test_how_threads_wait_is_decided_before_torch_is_there(given):
    "By importing any of kdfast: also in notebooks, and for the command line"
    code = 'import os, sys, kdfast; print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)'
    environment = {name: value for name, value in os.environ.items() if name not in openmp.WAIT_SETTINGS} | given
    printed = subprocess.run([sys.executable, '-P', '-c', code], env=environment, stdout=subprocess.PIPE, text=True)
    expected = given.get('GOMP_SPINCOUNT') if given else openmp.SPIN_COUNT
    assert printed.stdout.split() == [str(expected), 'False']


def test_a_group_of_options_becomes_its_fields():
    def command(path: str, *, images: DataOptions, training: StudyOptions):
        return path, images, training

    options = inspect.signature(expand_groups(command, without=['data'])).parameters
    assert list(options) == ['path', *list(vars(DataOptions()))[1:], *vars(StudyOptions())]
    made = expand_groups(command, without=['data'])(path='x', size=32, seeds=3)
    assert made == ('x', DataOptions(size=32), StudyOptions(seeds=3))
    assert changed_flags(made[1]) == ['--size', '32'] and changed_flags(made[2], only=['runs']) == []
