import csv
import io
import json

import pytest
from conftest import make
from rich.console import Console

from kdfast.analysis.differences import differences_from
from kdfast.core.errors import KdfastError
from kdfast.report.differences import difference_remarks, difference_table
from kdfast.runs.find import find_runs
from kdfast.stats.intervals import over_images, over_seeds

A, B = [True] * 80 + [False] * 20, [True] * 70 + [False] * 30


def test_runs_of_one_seed_are_pairs(tmp_path):
    "Seed 7 has no partner, and says nothing"
    for seed, (base, kd) in {0: (0.80, 0.83), 1: (0.70, 0.72), 2: (0.75, 0.79)}.items():
        make(tmp_path, 'baseline', seed, valid_accuracy=base)
        make(tmp_path, 'kd', seed, valid_accuracy=kd)
    make(tmp_path, 'kd', 7, valid_accuracy=0.1)
    [row] = differences_from(find_runs(tmp_path), 'baseline', 0.008)
    expected = over_seeds([0.03, 0.02, 0.04])
    assert row['seeds'] == [0, 1, 2] and row['recipe'] == 'kd' and row['of'] == 'seeds'
    assert (row['difference'], row['low'], row['high']) == pytest.approx((expected.mean, expected.low, expected.high))
    assert row['verdict'] == 'undecided' and row['seeds_to_settle'] == 4  # 3.18·.01/√4 < .022


def test_one_seed_takes_the_interval_of_its_images(tmp_path):
    make(tmp_path, 'baseline', 0, right=B)
    make(tmp_path, 'kd', 0, right=A)
    [row] = differences_from(find_runs(tmp_path), 'baseline', 0.008)
    expected = over_images(A, B)
    assert (row['of'], row['n'], row['low'], row['high']) == ('images', 100, expected.low, expected.high)
    assert row['p_value'] == pytest.approx(2 * 0.5**10) and row['verdict'] == 'better'
    assert any('another seed may differ by more' in remark for remark in difference_remarks([row]))


def test_what_has_no_result_takes_no_part(tmp_path):
    for seed in (0, 1):
        make(tmp_path, 'baseline', seed, valid_accuracy=0.8)
        make(tmp_path, 'kd', seed, status='diverged')
    make(tmp_path, 'exp1', 5, valid_accuracy=0.9)
    make(tmp_path, 'hint', 0)
    [row] = differences_from(find_runs(tmp_path), 'baseline', 0.008)
    assert row['recipe'] == 'exp1' and row['verdict'] is None and row['seeds'] == []
    with pytest.raises(KdfastError, match='no finished run kd on pets to compare with; there are baseline, exp1'):
        differences_from(find_runs(tmp_path), 'kd', 0.008)


def test_long_names_leave_room_for_the_verdict(tmp_path):
    far = 'epochs=22,optimizer=muon,teacher=runs_cifar10-images_teacher_epochs=14_optimizer=muon_0'
    make(tmp_path, 'baseline,epochs=22', 0, right=[1] * 50 + [0] * 50)
    make(tmp_path, f'kd,{far}', 0, right=[1] * 55 + [0] * 45)
    console = Console(width=80, record=True, file=open('/dev/null', 'w'))
    console.print(
        difference_table(differences_from(find_runs(tmp_path), 'baseline', 0.008))
    )  # the only baseline that there is
    text = console.export_text()
    assert (
        'undecided:' in text
        and '…' not in text.replace(' … ', '')
        and all(part in ''.join(text.split()) for part in ('kd,epochs=22,optimizer=muon,', 'optim', 'muon_0'))
    ), text


def test_compare_against(kdfast, tmp_path):
    for seed in (0, 1):
        make(tmp_path, 'baseline', seed, valid_accuracy=0.8 + seed / 1000)
        make(tmp_path, 'kd', seed, valid_accuracy=0.8001 + seed / 1000)
    done = kdfast('compare', '--against', 'baseline', '--runs', tmp_path)
    assert done.status == 0 and '+0.01' in done.out and 'alike' in done.out
    [row] = json.loads(kdfast('compare', '--against', 'baseline', '--json', '--runs', tmp_path).out)
    [line] = csv.DictReader(io.StringIO(kdfast('compare', '--against', 'baseline', '--csv', '--runs', tmp_path).out))
    assert (
        row['data'] == line['data'] == 'pets'
        and float(line['low']) == row['low']
        and row['verdict'] == line['verdict'] == 'alike'
    )
    assert 'better' in kdfast('compare', '--against', 'baseline', '--margin', 0, '--runs', tmp_path).out
    wrong = kdfast('compare', '--against', 'baseline', '--margin', 'inf', '--runs', tmp_path)
    assert wrong.status == 2 and 'expected a number of percentage points' in wrong.err
