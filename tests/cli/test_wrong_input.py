"Wrong input is refused in one line with status 2, before anything is made."

import pytest
from conftest import draw, recipe

from kdfast.core.errors import KdfastError


@pytest.mark.parametrize(
    'arguments,said',
    [
        (['exq1'], 'no recipe exq1; did you mean exp1?'),
        (['kd', '--bs', '3'], 'bs is not an option of kd; did you mean --batch-size?'),
        (['kd', '--zzz', '3'], '--student, --wd, --precision, --class-weights, --data'),
        (['exp1', '--temprature', '3'], 'temprature is not an option of exp1; did you mean --T?'),
        (['exp1', '--epochs', '0'], '--epochs 0 of exp1 is out of range: expected at least 1'),
        (['exp1', '--epochs', '1.5'], "Invalid value for '--epochs'"),
        (['exp1', '--lr', 'nan'], '--lr nan of exp1 is out of range: expected a finite number'),
        (['exp1', '--seed', '-1'], '--seed -1: expected 0 or more'),
        (['exp1', '--data', 'nowhere'], 'no data at nowhere'),
        (['exp1', '--data', 'empty'], 'found no images, it is empty; expected <class>/<image>'),
        (['teacher', '--data', 'few'], '6 training images are fewer than the smallest batch, 8'),
        (['./no.py'], 'no recipe file at ./no.py'),
    ],
)
def test_bad_input_is_one_line_and_status_2_before_anything_is_made(kdfast, tmp_path, monkeypatch, arguments, said):

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    draw(tmp_path / 'few' / 'train', 2, seed=0)
    draw(tmp_path / 'few' / 'valid', 2, seed=1)
    done = kdfast('run', *arguments)
    errors = [line for line in done.err.splitlines() if not line.startswith(('kdfast: reading', 'kdfast: training'))]
    assert done.status == 2 and done.out == '' and len(errors) == 1
    assert errors[0].startswith('kdfast: error: ') and said in errors[0]
    assert not (tmp_path / 'runs').exists()


def test_no_argument_leads_out_of_the_runs_folder(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / 'mine.py', 'pass', 'words:str="a"')
    for words in ('../../../canary', 'a/b', 'C:\\b', 'x' * 300):
        assert 'trained nothing' in kdfast('run', './mine.py', '--words', words, '--data', images).err
    assert {f.name for f in tmp_path.iterdir()} <= {'mine.py', 'runs'} and [
        f.name for f in (tmp_path / 'runs').iterdir()
    ] == ['tiny']
    done = kdfast('run', './mine.py', '--words', 'a\x1b[31m', '--data', images)
    assert done.status == 2 and 'trained nothing' in done.err and '\x1b' not in done.err


@pytest.mark.parametrize(
    'arguments,said',
    [
        (['runn'], 'runn'),
        (['compare', '--jsn'], '--jsn'),
        (['confusion'], 'Missing argument'),
        (['run', 'exp1', '--epochs'], '--epochs'),
    ],
)
def test_usage_errors_are_one_line_too(kdfast, arguments, said):
    done = kdfast(*arguments)
    assert (
        done.status == 2 and done.err.startswith('kdfast: error: ') and said in done.err and done.err.count('\n') == 1
    )


def test_nothing_to_compare(kdfast, tmp_path):
    done = kdfast('compare', '--runs', tmp_path)
    assert done.status == 2 and 'start with: kdfast run exp1' in done.err


@pytest.mark.parametrize(
    'arguments,said', [(['exp9'], 'no finished run exp9'), (['hint'], 'its recipe classifies nothing')]
)
def test_confusion_of_what_is_not_there(study, kdfast, arguments, said):
    done = kdfast('confusion', *arguments, '--runs', study.parent)
    assert done.status == 2 and said in done.err


@pytest.mark.parametrize(
    'arguments,said',
    [
        (['exp1', 'there.py'], 'exists already'),
        (['exp1', 'exp1.py'], 'has the name of a recipe of kdfast'),
        (['exp1', 'mine'], 'a recipe is a Python file'),
        (['exp9', 'mine.py'], 'no recipe exp9'),
    ],
)
def test_cp_refuses(kdfast, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'there.py').write_text('kept')
    done = kdfast('cp', *arguments)
    assert done.status == 2 and said in done.err and (tmp_path / 'there.py').read_text() == 'kept'
    assert [f.name for f in tmp_path.iterdir()] == ['there.py']


def test_networks_that_cannot_process_small_images_are_refused(kdfast, images, tmp_path):
    (tmp_path / 'nets.py').write_text(
        'from torch import nn\ndef flat(n_classes): return nn.Sequential(nn.Flatten(), nn.Linear(192, n_classes))\n'
    )
    asked = [
        'run',
        'baseline',
        '--student',
        f'{tmp_path}/nets.py:flat',
        '--data',
        images,
        '--runs',
        tmp_path / 'runs',
        '--epochs',
        1,
    ]
    refused = kdfast(*asked, '--grow', 0.5)
    assert (
        refused.status == 2
        and 'flat cannot process images of 4×4' in refused.err
        and 'begins at that size with --grow 0.5' in refused.err
        and not (tmp_path / 'runs').exists()
    )
    assert kdfast(*asked).status == 0


def test_a_regressor_for_images_of_one_size_is_refused_where_they_grow(kdfast, images, tmp_path):
    refused = kdfast('run', 'hint', '--hint', 'stage3:stage2', '--data', images, '--grow', 0.5, '--runs', tmp_path)
    assert refused.status == 2 and '--grow 0.5: the regressor between' in refused.err and 'of 2×2' in refused.err, (
        refused.err
    )


def test_an_option_that_was_mistyped_is_named_as_it_is_typed(kdfast):
    refused = kdfast('run', 'kd', '--bachsize', 4)
    assert refused.status == 2 and 'did you mean --batch-size?' in refused.err


def text_parameters():
    "Every option and argument of every command that takes a value, with the words of the command line before it"
    from typer.main import get_command

    from kdfast.cli import app

    group = get_command(app)
    commands = {(name,): command for name, command in group.commands.items() if name not in ('run', 'lr-find', 'cache')}
    for name in ('run', 'lr-find'):
        commands[name, 'kd'] = group.commands[name].get_command(None, 'kd')
        commands[name, 'pretrain'] = group.commands[name].get_command(None, 'pretrain')
    commands |= {('cache', name): command for name, command in group.commands['cache'].commands.items()}
    for words, command in commands.items():
        for parameter in command.params:
            if parameter.param_type_name == 'argument':
                yield words, parameter
                words += ('x',)
        for parameter in command.params:
            if (
                parameter.param_type_name == 'option'
                and not getattr(parameter, 'is_flag', False)
                and parameter.name != 'help'
            ):
                yield words, parameter


EMPTY = {'': 'is empty', '  ': "is '  ', which is blank", '\t': "is '\\t', which is blank"}


@pytest.mark.parametrize('value', EMPTY)
def test_an_empty_value_is_refused_by_every_option_of_every_command(kdfast, tmp_path, monkeypatch, value):
    "Where it would mean the default, or the current directory"
    monkeypatch.chdir(tmp_path)
    tried = set()
    for words, parameter in text_parameters():
        is_option = parameter.param_type_name == 'option'
        name = parameter.opts[0] if is_option else parameter.name.upper()
        done = kdfast(*words, *([name, value] if is_option else [value]))
        assert done.status == 2 and f'{name} {EMPTY[value]}: give it a value' in done.err, (words, name, done.err)
        assert done.err.count('\n') == 1 and done.out == ''
        tried.add(name)
    assert {'--metric', '--against', '--data', '--runs', '--teacher', '--out', '--unlabeled', 'RUN', 'PATH'} <= tried
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('words', [['--metric='], ['--metric', ''], ['--against', 'kd', '--runs=']])
def test_an_empty_value_is_refused_however_it_is_written(kdfast, words):
    assert 'is empty: give it a value, or leave it out' in kdfast('compare', *words).err


@pytest.mark.parametrize('value', EMPTY)
@pytest.mark.parametrize('command', ['run', 'lr-find'])
def test_an_empty_name_of_a_recipe_is_refused(kdfast, command, value):
    for words in ([value], [value, '--data', 'digits']):
        done = kdfast(command, *words)
        assert done.status == 2 and done.err == f'kdfast: error: RECIPE {EMPTY[value]}: give it a value\n'


def test_an_empty_text_is_a_value_of_an_own_recipe(tmp_path):
    from kdfast.cli.recipes import recipe_command
    from kdfast.runs.recipes import read_recipe

    given = {}
    made = recipe_command(
        read_recipe(recipe(tmp_path / 'mine.py', 'pass', 'words:str="a", teacher:str="deep"')),
        lambda recipe, images, options, found: given.update(found),
    )
    made(['--words', ''], standalone_mode=False)
    assert given['words'] == ''
    with pytest.raises(KdfastError, match='--teacher is empty'):
        made(['--teacher', ''], standalone_mode=False)
