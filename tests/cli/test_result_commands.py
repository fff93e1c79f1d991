"Commands that read runs: ls, compare, confusion, check."

import csv
import io
import json
from contextlib import nullcontext

import pytest
from conftest import make


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
