"Commands that read runs: ls, compare, confusion, check."

import csv
import io
import json
import shlex
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from conftest import make
from rich.console import Console

from kdfast.cli.against import choice_flags
from kdfast.report.summary import run_summary
from kdfast.runs.find import find_runs
from kdfast.runs.recipes import find_recipe
from kdfast.runs.unfinished import diverged_advice


def test_compare_is_the_reports_table(study, kdfast):
    done = kdfast('compare', '--runs', study.parent)
    header = next(line for line in done.out.splitlines() if 'teacher  ' in line).split()
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


@pytest.fixture
def pairs(tmp_path):
    "Two seeds of three recipes, with other matrices and predictions for each; seed 1 differs from seed 0"
    for recipe, n in (('teacher', 9), ('kd', 8), ('baseline', 6)):
        for seed in (0, 1):
            right = n - seed
            images = dict(right=[1] * right + [0] * (10 - right), confusion=[[right, 10 - right], [0, 0]])
            make(tmp_path, recipe, seed, **images)
    return tmp_path


def paired(kdfast, *arguments):
    "Return the first numbers of both matrices"
    done = kdfast('confusion', *arguments, '--json')
    assert done.status == 0, done.err
    found = json.loads(done.out)
    return found['confusion'][0][0], found['against_confusion'][0][0]


def test_the_other_run_has_the_seed_of_a_path(pairs, kdfast, monkeypatch):
    path = pairs / 'pets' / 'kd' / '1'
    assert paired(kdfast, path, '--against', 'teacher', '--runs', pairs) == (7, 8)
    assert paired(kdfast, 'kd', '--against', path, '--runs', pairs) == (8, 7)
    monkeypatch.chdir(path)
    for own in ('.', '../1', '../../kd/1', './'):
        assert paired(kdfast, own, '--against', '../../baseline/0', '--runs', pairs) == (7, 6)
        assert paired(kdfast, own, '--against', 'teacher', '--runs', pairs) == (7, 8)
    monkeypatch.chdir('..')
    shown = kdfast('confusion', '0', '--against', '../baseline/1').out
    assert 'kd, seed 0: rows are' in shown and 'baseline, seed 1' in shown
    path.rename(pairs / 'mine')  # a run directory of another name is what its result says
    assert paired(kdfast, pairs / 'mine', '--against', 'teacher', '--runs', pairs) == (7, 8)


@pytest.mark.parametrize('option', [('--seed', 1), ('--data', 'nosuch'), ('--seed', 0), ('--data', 'pets')])
@pytest.mark.parametrize('command', [['confusion'], ['export', '--to', 'x.onnx'], ['predict']])
def test_a_path_is_refused_beside_what_chooses_a_run(pairs, kdfast, command, option):
    name, *others = command
    image = ['x.png'] if name == 'predict' else []
    done = kdfast(name, pairs / 'pets' / 'kd' / '0', *image, *others, *option, '--runs', pairs)
    assert done.status == 2 and f'{option[0]} {option[1]} chooses among runs' in done.err, done.err


def test_an_exported_file_is_refused_beside_what_chooses_a_run(kdfast):
    assert '--seed 1 chooses among runs' in kdfast('predict', 'x.onnx', 'x.png', '--seed', 1).err


@pytest.mark.parametrize('file', ['predictions.npz', 'confusion.csv'])
@pytest.mark.parametrize('recipe', ['kd', 'baseline'])
def test_a_lost_file_is_called_missing(pairs, kdfast, file, recipe):
    (pairs / 'pets' / recipe / '0' / file).unlink()
    done = kdfast('confusion', 'kd', '--against', 'baseline', '--runs', pairs)
    assert done.status == 2 and f'{recipe}/0/{file} is missing: remove' in done.err, done.err
    old = json.loads((pairs / 'pets' / recipe / '0' / 'run.json').read_text())
    (pairs / 'pets' / recipe / '0' / 'run.json').write_text(json.dumps(old | dict(files={})))
    done = kdfast('confusion', 'kd', '--against', 'baseline', '--runs', pairs)
    assert f'{recipe}/0/{file} is missing: remove' in done.err, done.err  # a record of no files: it classified


def test_names_that_are_no_seeds_are_no_runs(pairs, kdfast):
    for name in ('²', 'x', '٣'):
        shutil.copytree(pairs / 'pets' / 'kd' / '0', pairs / 'pets' / 'kd' / name)
    assert len(json.loads(kdfast('ls', '--json', '--runs', pairs).out)['runs']) == 6


@pytest.mark.parametrize('network', [None, 'my nets/net.py:tiny', "it's (a=1).py:x"])
@pytest.mark.parametrize('data', [['pets'], ['pets', 'my zoo']])
@pytest.mark.parametrize('where', ['runs', 'my runs', 'other'])
def test_the_proposed_comparison_works(tmp_path, kdfast, monkeypatch, network, data, where):
    monkeypatch.chdir(tmp_path)
    for recipe in ('baseline', 'kd'):
        found = find_recipe(recipe)
        arguments = found.resolve(dict(student=network) if network else {})
        for name in data:
            for seed in (0, 1):
                run = make(Path(where), found.folder_name(arguments), seed, name, valid_accuracy=0.8, params=1)
    told = kdfast('compare', *([] if where == 'runs' else ['--runs', where])).out
    summary = Console(width=300, record=True, file=io.StringIO())
    others = find_runs(Path(where), run.data)
    summary.print(run_summary(run, others, flags=choice_flags(Path(where), run.data), width=300))
    lines = [*told.splitlines(), *summary.export_text().splitlines()]
    proposed = [line.partition(' tells ')[0].strip() for line in lines if ' tells ' in line]
    assert len(proposed) == len(data) + 1
    for name, command in zip([*sorted(data), run.data], proposed):
        program, *words = shlex.split(command)
        done = kdfast(*words)
        assert program == 'kdfast' and done.status == 0 and '+0.00' in done.out, (command, done.err)
        assert done.out.split('\n')[1] == name if len(data) > 1 else '--data' not in command


@pytest.mark.parametrize('exists', [False, True])
def test_check_without_arguments_and_runs_says_how_to_start(kdfast, tmp_path, monkeypatch, exists):
    monkeypatch.chdir(tmp_path)
    if exists:
        Path('runs').mkdir()
    done = kdfast('check')
    assert done.status == 2 and 'no runs yet; start with: kdfast run exp1' in done.err


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


@pytest.mark.parametrize('state', ['interrupted', 'failed', 'diverged', 'running', 'killed'])
@pytest.mark.parametrize('checkpoints', [True, False])
def test_check_counts_an_unfinished_run_apart(kdfast, tmp_path, state, checkpoints):
    make(tmp_path, 'kd', 0)
    folder = make(tmp_path, 'kd', 1, status='running' if state == 'killed' else state)
    if checkpoints:
        (folder / 'resume').mkdir()
        (folder / 'resume' / '01').write_text('')
    with folder.locked() if state == 'running' else nullcontext():
        done = kdfast('check', tmp_path)
        facts = json.loads(kdfast('check', tmp_path, '--json').out)
    does = 'a process is training it' if state == 'running' else f'{"resumes" if checkpoints else "starts"} it'
    if state == 'diverged':  # the same command repeats that
        does = f'the same command diverges again, {diverged_advice(folder).partition(", ")[2]}'
    [line] = [line for line in done.out.splitlines() if 'kd/1: ' in line]
    assert done.status == 0 and line.endswith(does) and 'delete' not in done.out + done.err, done.err
    assert '1 of 2 runs are not finished' in done.err and list(map(bool, facts.values())) == [False, True]


@pytest.mark.parametrize('content', ['', '{}', '[]', '{"status": 5'])
def test_check_goes_on_after_a_damaged_record(kdfast, tmp_path, content):
    for seed in range(3):
        make(tmp_path, 'kd', seed)
    make(tmp_path, 'kd', 3, status='interrupted')
    (tmp_path / 'pets' / 'kd' / '1' / 'run.json').write_text(content)
    done = kdfast('check', tmp_path)
    assert done.status == 2 and '1 of 4 runs are damaged' in done.err and '1 of 4 runs are not finished' in done.err
    assert done.out.count('complete') == 2


def test_check_of_a_data_set(kdfast, images, tmp_path):
    done = kdfast('check', images)
    assert done.status == 0 and '72 training and 36 validation images of 8×8 in 3 classes' in done.out
    held = kdfast('check', images, '--holdout', 0.25)
    assert held.status == 0 and '54 training and 18 validation images' in held.out
    assert kdfast('check', tmp_path, '--holdout', 0.25).status == 2
    assert kdfast('check', tmp_path / 'nowhere').status == 2 and kdfast('check', tmp_path).status == 2
