import json

import pytest
from conftest import make
from rich.console import Console

from kdfast.analysis.aggregate import aggregate
from kdfast.core.format import count_text, percent
from kdfast.report.left_out import unfinished_remarks
from kdfast.report.tables import compare_table, run_remarks, table_cell
from kdfast.runs.find import find_runs, resolve_run_name


def test_means_and_standard_deviations_by_hand(tmp_path):
    for seed, accuracy in enumerate([0.80, 0.82, 0.87]):
        make(tmp_path, 'kd', seed, valid_accuracy=accuracy, epochs=3)
    [row] = aggregate(find_runs(tmp_path))
    assert row['n'] == 3 and row['seeds'] == [0, 1, 2]
    assert row['valid_accuracy']['mean'] == pytest.approx(0.83) and row['valid_accuracy']['sd'] == pytest.approx(
        0.0360555, rel=1e-5
    )
    assert row['fit_loss'] is None and row['epochs']['sd'] == 0
    assert (
        table_cell(row['valid_accuracy'], percent) == '83.00 %\n± 3.61 %'
        and table_cell(row['epochs'], count_text) == '3'
    )


def test_what_failed_or_diverged_is_listed_and_never_averaged(tmp_path):
    make(tmp_path, 'kd', 0, valid_accuracy=0.8)
    make(tmp_path, 'kd', 1, status='diverged')
    [row] = aggregate(find_runs(tmp_path))
    assert row['n'] == 1 and row['valid_accuracy']['values'] == [0.8]
    assert 'not in the table: kd, seed 1: diverged (no luck)' in run_remarks(find_runs(tmp_path))


def test_a_record_without_a_state_is_listed(tmp_path, kdfast):
    make(tmp_path, 'kd', 0, valid_accuracy=0.8)
    (make(tmp_path, 'kd', 1) / 'run.json').write_text('{}')
    shown = kdfast('ls', '--runs', tmp_path), kdfast('compare', '--runs', tmp_path)
    assert all(done.status == 0 and 'unknown state' in done.out for done in shown), shown[0].err


def test_different_teachers_are_said(tmp_path):
    make(tmp_path, 'kd', 0, teacher_sha256='x')
    make(tmp_path, 'exp1', 0, teacher_sha256='y')
    assert any('2 different teachers' in remark for remark in run_remarks(find_runs(tmp_path)))


def test_recipes_come_in_the_reports_order(tmp_path):
    for recipe in ('exp2', 'kd,T=6.0', 'mine', 'teacher', 'kd'):
        make(tmp_path, recipe, 0)
    assert [r['recipe'] for r in aggregate(find_runs(tmp_path))] == ['teacher', 'kd', 'kd,T=6.0', 'exp2', 'mine']


@pytest.mark.parametrize('width', [60, 80, 120])
def test_the_table_fits_its_terminal(tmp_path, width):
    far = 'teacher=runs_cifar10-images_teacher_epochs=14_optimizer=muon_0'  # a long word
    for recipe in ('teacher', 'baseline', f'kd,{far}', 'hint', f'exp1,epochs=22,{far}', 'exp2'):
        for seed in (0, 1):
            make(
                tmp_path,
                recipe,
                seed,
                valid_accuracy=0.8 + seed / 100,
                train_loss=0.1,
                params=308642,
                seconds=1000 + seed,
            )
    console = Console(width=width, record=True, file=open('/dev/null', 'w'))
    for table in compare_table(aggregate(find_runs(tmp_path)), width):
        console.print(table)
    text = console.export_text()
    assert '…' not in text and text.count('80.50 %') == 6 and all(len(line) <= width for line in text.splitlines())


def test_a_damaged_file_is_named(tmp_path):
    folder = make(tmp_path, 'kd', 0)
    (folder / 'result.json').write_text('{"a":')
    assert aggregate([folder]) == []
    [remark] = unfinished_remarks([folder])
    assert 'kd, seed 0: damaged' in remark and 'result.json has changed since it was written' in remark


def test_a_recipe_that_ran_with_another_teacher_optimizer_or_epochs_alone_stands_for_itself(tmp_path):
    for name in (
        'kd,epochs=6',
        'fitnets,optimizer=muon,teacher=runs_pets_teacher_epochs=3_0',
        'exp1,epochs=6',
        'exp1,epochs=8',
        'exp2,epochs=6,T=3.0',
        'baseline',
        'baseline,epochs=6',
    ):
        make(tmp_path, name, 0)
    assert [resolve_run_name(find_runs(tmp_path), name) for name in ('kd', 'exp1', 'exp2', 'baseline', 'teacher')] == [
        'kd,epochs=6',
        None,
        None,
        'baseline',
        None,
    ]
    assert (
        resolve_run_name(find_runs(tmp_path), 'fitnets')
        == 'fitnets,optimizer=muon,teacher=runs_pets_teacher_epochs=3_0'
    )


# Runs without a result


def unfinished_beside(runs):
    "One finished run on pets beside two that are not; none on zebras, another data set"
    make(runs, 'baseline', 0, valid_accuracy=0.8)
    for recipe, seed, status, data in (
        ('baseline', 1, 'failed', 'pets'),
        ('kd', 0, 'interrupted', 'pets'),
        ('kd', 0, 'failed', 'zebras'),
        ('exp1', 3, 'diverged', 'zebras'),
    ):
        make(runs, recipe, seed, data=data, status=status)


ON_PETS = ['baseline, seed 1: failed (no luck)', 'kd, seed 0: interrupted (no luck)']
ON_ZEBRAS = ['kd, seed 0: failed (no luck)', 'exp1, seed 3: diverged (no luck)']


@pytest.mark.parametrize(
    'command',
    [
        ('compare',),
        ('compare', '--json'),
        ('compare', '--csv'),
        ('compare', '--against', 'kd'),
        ('compare', '--against', 'kd', '--json'),
        ('compare', '--against', 'kd', '--csv'),
        ('report',),
        ('confusion', 'kd'),
        ('confusion', 'kd', '--json'),
    ],
)
def test_a_data_set_without_a_finished_run_is_refused_with_their_states(tmp_path, kdfast, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    unfinished_beside(tmp_path / 'runs')
    done = kdfast(*command, '--data', 'zebras')
    assert done.status == 2 and done.out == '' and 'no finished run' in done.err and not list(tmp_path.glob('*.html'))
    assert f'; unfinished: {"; ".join(ON_ZEBRAS)}' in ' '.join(done.err.split()), done.err


@pytest.mark.parametrize('recipe', ['baseline', 'kd', 'exp1', 'exp2', 'kd,T=6.0'])
@pytest.mark.parametrize('chosen', [[], ['--data', 'pets'], ['--seed', 7], ['--data', 'pets', '--seed', 7]])
def test_beside_finished_runs_only_those_asked_for_are_called_unfinished(tmp_path, kdfast, recipe, chosen):
    unfinished_beside(tmp_path)
    done = kdfast('confusion', recipe, *chosen, '--runs', tmp_path)
    if recipe == 'baseline' and '--seed' not in chosen:
        return  # is finished
    found = ON_PETS if '--data' in chosen else [*(f'{text} on pets' for text in ON_PETS), *ON_ZEBRAS]
    there = 'finished seeds: 0' if recipe == 'baseline' else 'there are baseline'
    assert done.status == 2 and there in done.err, done.err
    assert ('with seed 7' in done.err) == ('--seed' in chosen)
    assert (f'{recipe} on pets' in done.err) == ('--data' in chosen)
    for text in found:
        assert (text in done.err) == text.startswith(f'{recipe.split(",")[0]},'), (text, done.err)


@pytest.mark.parametrize('form', [[], ['--json'], ['--csv']])
def test_a_data_set_without_a_finished_run_is_named_beside_others(tmp_path, kdfast, form):
    unfinished_beside(tmp_path)
    done = kdfast('compare', '--runs', tmp_path, *form)
    said = f'no run on zebras is finished: {"; ".join(ON_ZEBRAS)}'
    assert done.status == 0 and said in ' '.join((done.err if form else done.out).split()) and 'baseline' in done.out


def test_rows_for_scripts_have_the_unfinished_runs(tmp_path, kdfast):
    unfinished_beside(tmp_path)
    make(tmp_path, 'exp1', 0, valid_accuracy=0.8)
    expected = [
        dict(recipe='baseline', seed=1, status='failed', reason='no luck'),
        dict(recipe='kd', seed=0, status='interrupted', reason='no luck'),
    ]
    for command in (['compare'], ['compare', '--against', 'baseline']):
        rows = json.loads(kdfast(*command, '--json', '--runs', tmp_path).out)
        assert rows and all(row['data'] == 'pets' and row['unfinished'] == expected for row in rows)
        table = kdfast(*command, '--csv', '--runs', tmp_path)
        assert all(f'not in the table: {text}' in table.err for text in ON_PETS) and 'unfinished' not in table.out


def test_without_a_row_for_scripts_notes_have_the_unfinished_runs(tmp_path, kdfast):
    unfinished_beside(tmp_path)
    done = kdfast('compare', '--against', 'baseline', '--json', '--data', 'pets', '--runs', tmp_path)
    assert json.loads(done.out) == [] and all(f'not in the table: {text}' in done.err for text in ON_PETS)


@pytest.mark.parametrize('form,rows', [('--json', '[]\n'), ('--csv', '')])
def test_scripts_are_told_where_nothing_compares(tmp_path, kdfast, form, rows):
    make(tmp_path, 'baseline', 0, valid_accuracy=0.8)
    done = kdfast('compare', '--against', 'baseline', form, '--runs', tmp_path)
    assert done.status == 0 and done.out == rows
    assert done.err == 'pets: no other recipe than baseline has finished runs\n'
