"What compared runs differ in, besides what their names say, is said; runs on other images are refused."

from types import SimpleNamespace

import pytest
from conftest import make, seal

from kdfast.analysis.aggregate import aggregate
from kdfast.analysis.comparability import differing_settings
from kdfast.analysis.differences import differences_from
from kdfast.core.errors import KdfastError
from kdfast.report.differences import difference_remarks
from kdfast.report.tables import default_remarks, run_remarks
from kdfast.report.worth import remarks as worth_remarks
from kdfast.runs.command import command_note
from kdfast.runs.find import find_runs
from kdfast.runs.recipes import find_recipe, recipe_names
from kdfast.runs.resume_check import default_changes, resume_record
from kdfast.runs.run_dir import RunDir
from kdfast.training.lifecycle import check_identity

HOW = dict(precision='float32', device='cpu', threads=1, batch_size=128, data_sha256='a', packages=dict(timm='1'))
HOW |= dict(versions=dict(kdfast='0.1', torch='2.9'), recipe_sources={'my.py': '0'}, sources={'net.py': 'x' * 64})
HOW |= dict(class_weights=dict(a=1.0, b=2.0), unlabeled_sha256='0', processes=1)
OTHER = {  # name in the remark, and another record
    'precision': dict(precision='bfloat16'),
    'device': dict(device='H100'),
    'processes': dict(processes=2),
    'batch size': dict(batch_size=64),
    'torch': dict(versions=dict(kdfast='0.1', torch='2.8')),
    'kdfast': dict(versions=dict(kdfast='0.2', torch='2.9')),
    'timm': dict(packages=dict(timm='2')),
    'net.py': dict(sources={'net.py': 'x' * 63 + 'y'}),
    'kd.py': dict(recipe_sources={'my.py': '1'}),
    'class weights': dict(class_weights=dict(a=1.0, b=3.0)),
    'images without labels': dict(unlabeled_sha256='1'),
    'epochs': dict(arguments=dict(epochs=32)),
    'T': dict(arguments=dict(T=5.0)),
}


def trained(runs, recipe, seed, code='', arguments={}, teacher=None, **how):
    folder = make(runs, recipe, seed, recorded=HOW | how, valid_accuracy=0.8 + seed / 100, teacher_sha256=teacher)
    if code:
        (folder / 'recipe.py').write_text((folder / 'recipe.py').read_text() + code)
        seal(folder)
    folder.set_status('finished', arguments=folder.run['arguments'] | arguments)
    return folder


def said(runs, against='baseline'):
    "Remarks of both tables on what runs differ in"
    found = find_runs(runs)
    both = [*run_remarks(found), *difference_remarks(differences_from(found, against, 0.008))]
    return [remark for remark in both if ' differ in ' in remark or 'teachers' in remark]


def test_runs_that_differ_in_what_their_names_say_need_no_remark(tmp_path):
    "Also with other threads for some seeds, and comments"
    for seed in range(3):
        for recipe in ('baseline', 'kd', 'kd,epochs=30,T=2.0', 'exp2,student=matched', 'kd,optimizer=sgd'):
            code = '\n# changed\n' if seed else ''
            trained(
                tmp_path, recipe, seed, code, teacher=None if recipe == 'baseline' else f't{seed}', threads=1 + seed
            )
    assert said(tmp_path) == said(tmp_path, 'kd') == []


def test_the_recipes_of_kdfast_with_their_defaults_need_no_remark(tmp_path):
    for recipe in recipe_names():
        trained(tmp_path, recipe, 0)
    assert not differing_settings(find_runs(tmp_path))


@pytest.mark.parametrize('what', OTHER)
def test_seeds_of_a_row_that_differ_are_said(tmp_path, what):
    for seed in range(4):
        trained(tmp_path, 'baseline', seed)
        trained(tmp_path, 'kd', seed, **OTHER[what] if seed > 1 else {})
    assert f'the seeds of kd differ in {what}, which may affect the results' in said(tmp_path)
    assert differences_from(find_runs(tmp_path), 'baseline', 0.008)[0]['differ_in'] == what


@pytest.mark.parametrize('what', sorted(OTHER.keys() - {'T', 'kd.py'}))  # those are what a recipe is about
def test_rows_that_differ_are_said(tmp_path, what):
    for seed in range(2):
        trained(tmp_path, 'baseline', seed)
        trained(tmp_path, 'kd', seed, **OTHER[what])
    table, difference = said(tmp_path)
    assert table.startswith(f'runs of the same seed differ in {what}, ') and 'baseline; ' in table
    assert difference == f'some of the compared runs also differ in {what}, which may affect the results'


def test_other_code_of_one_recipe_is_said_in_a_row_and_between_rows(tmp_path):
    trained(tmp_path, 'kd', 0), trained(tmp_path, 'kd,T=2.0', 0, 'CHANGED = True\n')
    trained(tmp_path, 'exp1', 0), trained(tmp_path, 'exp1', 1, 'CHANGED = True\n')
    runs = find_runs(tmp_path)
    assert list(differing_settings(runs)) == ['kd.py']
    assert 'the seeds of exp1 differ in exp1.py, which may affect the results' in run_remarks(runs)


@pytest.mark.parametrize(
    'one,other,expected',
    [
        (('baseline', {}), ('mine', dict(epochs=6)), False),
        (('baseline', {}), ('mine', dict(epochs=20)), True),  # its default, which no name tells
        (('baseline', {}), ('mine,epochs=20', dict(epochs=20)), False),
        (('baseline,epochs=30', {}), ('mine', dict(epochs=20)), False),
        (('baseline', dict(epochs=32)), ('kd', {}), True),  # the default of then
        (('baseline', dict(epochs=32)), ('kd,epochs=20', {}), True),
        (('baseline', dict(epochs=32)), ('kd', dict(epochs=32)), False),
        (('baseline', {}), ('teacher', dict(epochs=9)), False),
    ],
)
def test_an_argument_is_said_if_neither_name_nor_default_tells_it(tmp_path, one, other, expected):
    for recipe, arguments in (one, other):
        trained(tmp_path, recipe, 0, arguments=arguments)
    assert list(differing_settings(find_runs(tmp_path))) == ['epochs'] * expected


def test_different_teachers_are_said_once_for_all_seeds_and_with_a_difference(tmp_path):
    for seed in range(3):
        trained(tmp_path, 'baseline', seed)
        trained(tmp_path, 'kd', seed, teacher='one'), trained(tmp_path, 'exp2', seed, teacher='two')
    difference = 'some of the compared runs also differ in teacher, which may affect the results'
    table = 'the students of seeds 0 to 2 had 2 different teachers: do not compare their accuracies'
    assert said(tmp_path, 'kd') == [table, difference] and said(tmp_path) == [table]


def test_the_answer_of_worth_says_it_too(tmp_path):
    for seed in range(3):
        trained(tmp_path, 'baseline', seed, arguments=dict(epochs=32)), trained(tmp_path, 'kd', seed)
    rows = differences_from(find_runs(tmp_path), 'baseline', 0.008)
    assert worth_remarks(dict(recipes=rows, looks=[3]))[-1].startswith(
        'some of the compared runs also differ in epochs'
    )


@pytest.mark.parametrize('recipes', [('kd', 'kd'), ('baseline', 'kd')])
@pytest.mark.parametrize('drawn', [{}, dict(drawn_from='all')])
def test_runs_on_different_images_are_not_compared(tmp_path, kdfast, recipes, drawn):
    "Neither in one row nor in two; of splits drawn from the same images, each seed has its own"
    seeds = (0, 1) if recipes == ('kd', 'kd') else (0, 0)
    for recipe, seed, images in zip(recipes, seeds, 'ab'):
        trained(tmp_path, recipe, seed, data_sha256=images, **drawn)
    found = find_runs(tmp_path)
    if drawn and seeds == (0, 1):
        assert len(aggregate(found)) == 1
        return
    with pytest.raises(KdfastError, match='were trained on different images'):
        aggregate(found)
    done = kdfast('compare', '--against', 'kd', '--runs', tmp_path)
    assert done.status == 2 and 'keep them in different directories' in done.err


def test_a_contrast_of_different_images_is_refused(tmp_path):
    "Whatever the number of seeds"
    for seed in range(3):
        trained(tmp_path, 'baseline', seed), trained(tmp_path, 'kd', seed, data_sha256='b')
    with pytest.raises(KdfastError, match='were trained on different images'):
        differences_from(find_runs(tmp_path), 'baseline', 0.008)


@pytest.mark.parametrize('against', [[], ['--against', 'baseline']])
@pytest.mark.parametrize('name,old', [('epochs', 16), ('T', 9.0), ('student', 'matched')])
@pytest.mark.parametrize('seeds', [[0, 1], [1]])
def test_defaults_that_have_changed_are_said_with_both_values(tmp_path, kdfast, against, name, old, seeds):
    for seed in (0, 1):
        trained(tmp_path, 'baseline', seed)
        trained(tmp_path, 'kd', seed, arguments={name: old} if seed in seeds else {})
    now = next(option.default for option in find_recipe('kd').options if option.name == name)
    some = '' if len(seeds) == 2 else ' for seed 1'
    shown = ' '.join(kdfast('compare', '--runs', tmp_path, *against).out.split())
    assert f'kd was trained with defaults that are others today: {name}={old} (now {now}){some}' in shown, shown


def test_arguments_that_the_name_tells_are_no_old_defaults(tmp_path):
    for recipe in ('kd,epochs=16', 'kd,T=9.0', 'kd', 'mine'):
        trained(tmp_path, recipe, 0)
    assert not default_remarks(find_runs(tmp_path))


def test_a_version_of_other_defaults_names_them(tmp_path):
    now = find_recipe('kd').source
    options = {option.name: option.default for option in find_recipe('kd').options}
    old = now.replace(f' epochs: int = {options["epochs"]}', ' epochs: int = 99').replace('T: float = ', 'T: float = 1')
    said = f' (epochs was 99, is {options["epochs"]}; T was 1{options["T"]}, is {options["T"]})'
    assert default_changes(old, now) == said and default_changes(f'{now}# x', now) == ''
    assert default_changes('', now) == default_changes('def main(', now) == default_changes('main = 5', now) == ''
    assert default_changes('def main(run, epochs=99, own=3): pass', now) == f' (epochs was 99, is {options["epochs"]})'
    folder = trained(tmp_path, 'kd', 0)
    (folder / 'recipe.py').write_text(old)
    seal(folder)
    assert f'The code of kd has changed since{said}: the command trains' in command_note(RunDir(folder.path))
    with pytest.raises(KdfastError) as found:
        check_identity(folder, find_recipe('kd'), SimpleNamespace(fingerprint='a'), folder.run['arguments'])
    assert f'was trained with another version of kd.py{said}: ' in found.value.message
    folder.set_status('interrupted')
    (folder / 'resume').mkdir()
    (folder / 'resume' / '01').write_text('')
    with pytest.raises(KdfastError) as found:
        resume_record(folder, 'interrupted', {}, now)
    assert f'its recipe is another version{said}' in found.value.message
