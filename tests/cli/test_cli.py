import csv
import inspect
import io
import json
import shutil
import subprocess
import sys

import pytest
from conftest import draw, make, recipe
from safetensors.torch import load_file
from typer.main import get_command

from kdfast import cli
from kdfast.cli.options import DataOptions, StudyOptions, changed_flags, expand_groups
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
def test_looking_and_mistyping_import_nothing_heavy(study, arguments):
    runs = ['--runs', str(study.parent)] if arguments[:1] in (['ls'], ['compare']) and '--help' not in arguments else []
    done = subprocess.run([sys.executable, '-c', IMPORTS, *arguments, *runs], capture_output=True, text=True)
    assert not HEAVY & set(done.stdout.rpartition('imported')[2].split()), done.stderr


@pytest.mark.parametrize(
    'arguments,said',
    [
        (['exq1'], 'no recipe exq1; did you mean exp1?'),
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
    from conftest import draw

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
    [([], 'Results:'), (['run'], 'exp1'), (['--version'], 'kdfast 0.'), (['cp', '--help'], 'Copy a recipe')],
)
def test_help_and_version(kdfast, arguments, said):
    done = kdfast(*arguments)
    assert done.status == 0 and said in done.out and done.err == ''


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


def test_compare_is_the_reports_table(study, kdfast):
    done = kdfast('compare', '--runs', study.parent)
    header = next(line for line in done.out.splitlines() if 'teacher' in line).split()
    assert header == ['teacher', 'baseline', 'kd', 'hint', 'exp1', 'exp2']
    for label in (
        'training loss',
        'training accuracy',
        'validation accuracy',
        'fit loss',
        'soft loss',
        'hard loss',
        'parameters',
        'multiply-adds',
        'epochs',
        'training time',
    ):
        assert label in done.out
    accuracy = json.loads((study / 'exp1' / '0' / 'result.json').read_text())['valid_accuracy']
    assert f'{100 * accuracy:.2f} %' in done.out and 'one seed per recipe: differences may be due to chance' in done.out


def test_compare_for_scripts(study, kdfast):
    rows = json.loads(kdfast('compare', '--json', '--runs', study.parent).out)
    table = list(csv.DictReader(io.StringIO(kdfast('compare', '--csv', '--runs', study.parent).out)))
    accuracy = json.loads((study / 'exp1' / '0' / 'result.json').read_text())['valid_accuracy']
    assert next(r for r in rows if r['recipe'] == 'exp1')['valid_accuracy'] == dict(
        mean=accuracy, sd=None, values=[accuracy]
    )
    assert float(next(r for r in table if r['recipe'] == 'exp1')['valid_accuracy']) == accuracy


def test_nothing_to_compare(kdfast, tmp_path):
    done = kdfast('compare', '--runs', tmp_path)
    assert done.status == 2 and 'start with: kdfast run exp1' in done.err


def test_a_reason_is_text_and_no_markup(kdfast, tmp_path):
    make(tmp_path, 'kd', 0, valid_accuracy=0.8)
    make(tmp_path, 'kd', 1).set_status('failed', reason="KeyError: '[/x]'")
    done = kdfast('compare', '--runs', tmp_path)
    assert done.status == 0 and "kd, seed 1: failed (KeyError: '[/x]')" in done.out, done.err


def test_ls(study, kdfast):
    done = kdfast('ls', '--runs', study.parent)
    assert 'Experiment 1' in done.out and 'finished' in done.out
    listed = json.loads(kdfast('ls', '--json', '--runs', study.parent).out)
    assert {r['status'] for r in listed['runs']} == {'finished'} and 'exp2' in listed['recipes']


def test_confusion_beside_another(study, kdfast):
    done = kdfast('confusion', 'exp2', '--against', 'teacher', '--runs', study.parent)
    assert done.status == 0 and 'most confused' in done.out and 'points' in done.out
    facts = json.loads(kdfast('confusion', 'exp2', '--against', 'teacher', '--json', '--runs', study.parent).out)
    matrix = facts['confusion']
    assert (
        facts['class_accuracy']['bee'] == matrix[1][1] / sum(matrix[1])
        and sum(map(sum, facts['against_confusion'])) == 36
    )


@pytest.mark.parametrize(
    'arguments,said', [(['exp9'], 'no finished run exp9'), (['hint'], 'its recipe classifies nothing')]
)
def test_confusion_of_what_is_not_there(study, kdfast, arguments, said):
    done = kdfast('confusion', *arguments, '--runs', study.parent)
    assert done.status == 2 and said in done.err


def test_a_copied_recipe_runs_as_ones_own(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert kdfast('cp', 'baseline', 'mine.py').status == 0
    source = (tmp_path / 'mine.py').read_text()
    (tmp_path / 'mine.py').write_text(
        source.replace('epochs: int = 32', 'epochs: int = 1').replace('Baseline', 'My own')
    )
    done = kdfast('run', './mine.py', '--data', images, '--json')
    assert done.status == 0, done.err
    assert json.loads(done.out)['epochs'] == 1
    assert (tmp_path / 'runs' / 'tiny' / 'mine' / '0' / 'recipe.py').read_text() == (tmp_path / 'mine.py').read_text()
    (tmp_path / 'mine.py').write_text(source)
    changed = kdfast('run', './mine.py', '--data', images)
    assert changed.status == 2 and 'another version of mine.py' in changed.err


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


def test_other_images_of_the_same_name_have_runs_of_their_own(study, kdfast, tmp_path):
    from conftest import draw

    shutil.copytree(study, tmp_path / 'runs' / 'tiny')
    draw(tmp_path / 'tiny' / 'train', 24, seed=5)
    draw(tmp_path / 'tiny' / 'valid', 12, seed=6)

    def others():
        return sorted(f.name for f in (tmp_path / 'runs').iterdir() if f.name != 'tiny')

    done = kdfast('run', 'baseline', '--epochs', 1, '--data', tmp_path / 'tiny', '--runs', tmp_path / 'runs')
    assert (
        done.status == 0
        and 'has runs on other images; runs on these are in' in done.err
        and len(others()) == 1
        and others()[0].startswith('tiny-')
    ), done.err
    assert (
        'nothing to train'
        in kdfast('run', 'baseline', '--epochs', 1, '--data', tmp_path / 'tiny', '--runs', tmp_path / 'runs').err
        and len(others()) == 1
    )


def test_an_unfinished_run_is_begun_anew(kdfast, images, tmp_path):
    folder = tmp_path / 'tiny' / 'baseline,epochs=1' / '0'
    folder.mkdir(parents=True)
    (folder / 'run.json').write_text('{"status": "running"}')
    (folder / 'left.over').write_text('x')
    assert kdfast('run', 'baseline', '--epochs', 1, '--data', images, '--runs', tmp_path).status == 0
    assert json.loads((folder / 'run.json').read_text())['status'] == 'finished' and not (folder / 'left.over').exists()


def test_a_failing_recipe_is_on_record_and_its_traceback_is_for_debug(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / 'mine.py', 'raise RuntimeError("no luck")')
    done = kdfast('run', './mine.py', '--data', images)
    assert done.status == 2 and done.err == f'kdfast: error: {tmp_path / "mine.py"}, line 7: RuntimeError: no luck\n'
    state = json.loads((tmp_path / 'runs' / 'tiny' / 'mine' / '0' / 'run.json').read_text())
    assert state['status'] == 'failed' and 'no luck' in state['reason']
    with pytest.raises(RuntimeError, match='no luck'):
        kdfast('run', './mine.py', '--data', images, '--debug')


def test_an_interrupted_run_says_so_and_starts_again(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / 'mine.py', '__import__("signal").raise_signal(2)')
    done = kdfast('run', './mine.py', '--data', images)
    assert done.status == 130 and done.err.endswith('kdfast: error: interrupted; repeat the command to continue\n')
    assert json.loads((tmp_path / 'runs' / 'tiny' / 'mine' / '0' / 'run.json').read_text())['status'] == 'interrupted'


def test_a_holdouts_runs_stay_apart(kdfast, images, tmp_path):
    done = kdfast('run', 'baseline', '--epochs', 1, '--data', images, '--holdout', 0.25, '--runs', tmp_path)
    assert done.status == 0, done.err
    assert (
        json.loads((tmp_path / 'tiny,holdout=0.25' / 'baseline,epochs=1' / '0' / 'result.json').read_text())['data']
        == 'tiny,holdout=0.25'
    )
    assert f'kdfast run teacher --data {images} --holdout 0.25 --runs {tmp_path}' in done.out


def test_images_that_grow(kdfast, images, tmp_path):
    "Training sees 4×4 at first and 8×8 in the end, in every recipe alike; what the teacher said of them is asked once"
    asked = ['--data', images, '--grow', 0.5, '--runs', tmp_path]
    for name in ('kd', 'exp2'):
        done = kdfast('run', name, '--epochs', 2, *asked)
        assert done.status == 0, done.err
        following = f'kdfast run baseline --epochs 2 --data {images} --grow 0.5 --runs {tmp_path}'
        if name == 'kd':
            assert following in done.out
    (outputs,) = (tmp_path / 'tiny,grow=0.5' / 'teacher' / '0' / 'outputs').glob('*.safetensors')
    assert len(load_file(outputs)['batches']) == 2 * 9 + 1
    refused = kdfast('run', 'kd', '--grow', 1.5, '--data', images)
    assert (
        refused.status == 2
        and "--grow 1.5: expected a fraction of height and width, above 0 and up to 1" in refused.err
    )


def test_what_cannot_see_small_images_is_refused_at_once(kdfast, images, tmp_path):
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


def test_check_names_what_is_wrong_with_a_run(study, kdfast, tmp_path):
    from conftest import beside

    beside(study, tmp_path, 'teacher', 'kd')
    whole = kdfast('check', tmp_path)
    assert whole.status == 0 and whole.out.count(': complete') == 2
    weights = tmp_path / 'tiny' / 'kd' / '0' / 'weights.safetensors'
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (tmp_path / 'tiny' / 'kd' / '0' / 'confusion.csv').unlink()
    done = kdfast('check', tmp_path)
    assert (
        done.status == 2
        and 'kd/0: confusion.csv is missing; weights.safetensors has changed since it was written' in done.out
        and '1 of 2 runs' in done.err
    )


def test_check_of_a_data_set(kdfast, images, tmp_path):
    done = kdfast('check', images)
    assert done.status == 0 and '72 training and 36 validation images of 8×8 in 3 classes' in done.out
    held = kdfast('check', images, '--holdout', 0.25)
    assert held.status == 0 and '54 training and 18 validation images' in held.out
    assert kdfast('check', tmp_path, '--holdout', 0.25).status == 2
    assert kdfast('check', tmp_path / 'nowhere').status == 2 and kdfast('check', tmp_path).status == 2


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
    cli.share_cores(environment)
    assert environment == (given or dict(GOMP_SPINCOUNT=cli.SPIN_COUNT))


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


def test_how_threads_wait_is_decided_before_torch_is_there():
    code = 'import sys; from kdfast import cli; cli.share_cores(); assert "torch" not in sys.modules'
    assert subprocess.run([sys.executable, '-P', '-c', code]).returncode == 0


@pytest.mark.parametrize('command', ['export', 'predict'])
@pytest.mark.parametrize('trusted', [False, True])
def test_code_of_a_run_is_trusted_only_where_it_is_asked_for(
    study, kdfast, images, tmp_path, monkeypatch, command, trusted
):
    from kdfast.models import saved

    files = []
    monkeypatch.setattr(saved, 'trust_code', files.append)
    rest = ['--to', tmp_path / 'x.safetensors'] if command == 'export' else [next(images.rglob('*.png'))]
    flags = ['--trust-code'] if trusted else []
    done = kdfast(command, 'teacher', *rest, *flags, '--data', 'tiny', '--runs', study.parent)
    assert done.status == 0, done.err
    assert files == [study / 'teacher' / '0' / 'weights.safetensors'] * trusted


def test_a_group_of_options_becomes_its_fields():
    def command(path: str, *, images: DataOptions, training: StudyOptions):
        return path, images, training

    options = inspect.signature(expand_groups(command, without=['data'])).parameters
    assert list(options) == ['path', *list(vars(DataOptions()))[1:], *vars(StudyOptions())]
    made = expand_groups(command, without=['data'])(path='x', size=32, seeds=3)
    assert made == ('x', DataOptions(size=32), StudyOptions(seeds=3))
    assert changed_flags(made[1]) == ['--size', '32'] and changed_flags(made[2], only=['runs']) == []


def test_an_option_that_was_mistyped_is_named_as_it_is_typed(kdfast):
    refused = kdfast('run', 'kd', '--bachsize', 4)
    assert refused.status == 2 and 'did you mean --batch-size?' in refused.err


def test_a_few_images_train_in_batches_that_they_fill(kdfast, tmp_path):
    for split, n in ('train', 2), ('valid', 1):
        draw(tmp_path / 'few' / split, n, seed=n)
    asked = ['run', 'baseline', '--epochs', 1, '--data', tmp_path / 'few', '--runs', tmp_path / 'runs']
    assert '6 training images are fewer than the smallest batch, 8' in kdfast(*asked).err
    done = kdfast(*asked, '--batch-size', 2)
    assert done.status == 0, done.err
