import csv
import io
import json

import pytest
from conftest import make
from rich.console import Console
from scipy.stats import norm, t

from kdfast.analysis.confusion import confusion_summary
from kdfast.analysis.differences import differences_from
from kdfast.analysis.metrics import ACCURACY, paired_image_values
from kdfast.core.errors import KdfastError
from kdfast.report.differences import difference_remarks, difference_table
from kdfast.report.figures import differences
from kdfast.runs.find import find_runs
from kdfast.stats.intervals import over_images, over_seeds

M = [[80, 20], [0, 0]]
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


def several(folder, recipes, seeds=3):
    "Differences from the baseline that vary by one point from seed to seed"
    for seed in range(seeds):
        make(folder, 'baseline', seed, valid_accuracy=0.8)
        for recipe in recipes:
            make(folder, recipe, seed, valid_accuracy=0.82 + 0.01 * seed)
    return find_runs(folder)


@pytest.mark.parametrize('recipes', [['kd'], ['kd', 'exp1'], ['kd', 'exp1', 'exp2', 'at', 'dkd']])
def test_intervals_of_several_recipes_hold_together(tmp_path, recipes):
    "Of m recipes each spends 5 % / m; a recipe without a common seed does not count"
    make(tmp_path, 'crd', 7, valid_accuracy=0.9)
    rows = [row for row in differences_from(several(tmp_path, recipes), 'baseline', 0.008) if row['verdict']]
    half = t.ppf(1 - 0.025 / len(recipes), 2) * 0.01 / 3**0.5
    for row in rows:
        assert (row['low'], row['high']) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-6)
        assert row['confidence'] == 1 - 0.05 / len(recipes) and row['comparisons'] == len(recipes)
        n = row['seeds_to_settle']
        wide = [t.ppf(1 - 0.025 / len(recipes), k - 1) * 0.01 / k**0.5 for k in (n - 1, n)]
        assert wide[1] < 0.022 <= wide[0] if n > 3 else wide[1] < 0.022
    said = ' '.join(difference_remarks(rows))
    assert ('simultaneous intervals' in said) == (len(recipes) > 1) and 'until-decided' in said


def test_one_seed_is_corrected_for_the_number_of_recipes(tmp_path):
    make(tmp_path, 'baseline', 0, right=B)
    for recipe in ('kd', 'exp1'):
        make(tmp_path, recipe, 0, right=A)
    rows = differences_from(find_runs(tmp_path), 'baseline', 0.008)
    half = norm.ppf(0.9875) * (10 - 100 * 0.1**2 + 4) ** 0.5 / 100
    assert [row['high'] for row in rows] == pytest.approx([0.1 + half] * 2, rel=1e-5)


def test_uncorrected_intervals_are_those_of_each_recipe_alone(tmp_path):
    [alone] = differences_from(several(tmp_path / 'one', ['kd']), 'baseline', 0.008)
    rows = differences_from(several(tmp_path / 'two', ['kd', 'exp1']), 'baseline', 0.008, uncorrected=True)
    assert [(row['low'], row['confidence']) for row in rows] == [(alone['low'], 0.95)] * 2
    assert 'uncorrected: each of these 2 verdicts' in ' '.join(difference_remarks(rows))


def test_the_command_line_corrects_and_can_be_told_not_to(tmp_path, kdfast):
    several(tmp_path, ['kd', 'exp1', 'exp2'])
    against = ('compare', '--against', 'baseline', '--runs', tmp_path)
    table = kdfast(*against).out
    said = ' '.join(table.split())
    assert '98.33 % interval' in table and 'among these 3' in said and 'kdfast study … --until-decided' in said
    assert all(len(line) <= 80 for line in table.splitlines())
    for line in csv.DictReader(io.StringIO(kdfast(*against, '--csv').out)):
        assert float(line['confidence']) == pytest.approx(1 - 0.05 / 3) and line['comparisons'] == '3'
    plain = kdfast(*against, '--uncorrected')
    assert '95 % interval' in plain.out and 'uncorrected: each of these 3' in plain.out
    assert {row['confidence'] for row in json.loads(kdfast(*against, '--uncorrected', '--json').out)} == {0.95}
    assert 'needs --against' in kdfast('compare', '--uncorrected', '--runs', tmp_path).err


def test_what_verdicts_are_about(tmp_path):
    usual = differences_from(several(tmp_path / 'one', ['kd']), 'baseline', 0.008)
    assert any(remark.startswith('verdicts are about these') for remark in difference_remarks(usual))
    for seed in range(3):
        recorded = dict(drawn_from='all', data_sha256=f'split {seed}')
        make(tmp_path / 'two', 'baseline', seed, recorded=recorded, valid_accuracy=0.8)
        make(tmp_path / 'two', 'kd', seed, recorded=recorded, valid_accuracy=0.82)
    [row] = differences_from(find_runs(tmp_path / 'two'), 'baseline', 0.008)
    assert row['resplit'] and not usual[0]['resplit'] and row['differ_in'] == ''
    assert any('a new split per seed' in remark for remark in difference_remarks([row]))


PROMISE = 'at most 5 % of studies have a wrong verdict among'


@pytest.mark.parametrize('uncorrected', [False, True])
@pytest.mark.parametrize('seeds', [(1,), (2,), (1, 1), (2, 2), (1, 2), (1, 1, 2), (1, 2, 2)])
def test_what_is_said_of_one_seed_and_of_several(tmp_path, seeds, uncorrected):
    "The recipes have these numbers of seeds: only those of several are about studies"
    for seed in range(max(seeds)):
        make(tmp_path, 'baseline', seed, right=B)
    for name, n in zip(('kd', 'exp1', 'exp2'), seeds):
        for seed in range(n):
            make(tmp_path, name, seed, right=A)
    rows = differences_from(find_runs(tmp_path), 'baseline', 0.008, uncorrected=uncorrected)
    said = difference_remarks(rows)
    several = sum(n > 1 for n in seeds)
    [one] = [remark for remark in said if 'about these weights' in remark] or ['']
    [more] = [remark for remark in said if 'about these validation images' in remark] or ['']
    assert bool(one) == (1 in seeds) and bool(more) == bool(several)
    assert more.startswith('with several seeds, ' if one else 'verdicts are about these') or not more
    [rate] = [remark for remark in said if 'simultaneous' in remark or 'uncorrected: ' in remark] or ['']
    assert bool(rate) == (len(seeds) > 1) and ('of studies' in rate) == (several > 0 and len(seeds) > 1)
    assert ('simultaneous' in rate) == (not uncorrected and len(seeds) > 1)
    assert (PROMISE in rate) == (several > 0 and 'simultaneous' in rate)
    assert ('several seeds' in rate) == (0 < several < len(seeds))


STATES = 'diverged', 'failed', 'interrupted'


@pytest.mark.parametrize('recipe', ['exp1', 'kd', 'baseline'])
def test_runs_without_a_result_are_listed_beside_differences(tmp_path, kdfast, recipe):
    "exp1 has some, kd has nothing else, the baseline has some"
    for seed in range(5):
        for name in ('baseline', 'exp1', 'kd'):
            ended = dict(status=STATES[seed - 2]) if name == recipe and seed > 1 else {}
            if name != 'kd' or ended:
                make(tmp_path, name, seed, **ended, valid_accuracy=0.8 + seed / 100)
    said = [f'not in the table: {recipe}, seed {seed}: {STATES[seed - 2]} (no luck)' for seed in (2, 3, 4)]
    shown = ' '.join(kdfast('compare', '--against', 'baseline', '--runs', tmp_path).out.split())
    assert all(remark in shown and remark in differences(tmp_path).html for remark in said)


@pytest.mark.parametrize('lacking', [dict(status='interrupted'), dict(status='finished')])
def test_a_data_set_without_the_reference_is_left_out(tmp_path, kdfast, lacking):
    several(tmp_path, ['kd'])
    make(tmp_path, 'exp1', 0, data='zebras', **lacking, valid_accuracy=0.8)
    against = ('compare', '--runs', tmp_path, '--against')
    for form in ([], ['--csv'], ['--json']):
        done = kdfast(*against, 'baseline', *form)
        assert done.status == 0 and 'left out: no finished run baseline on zebras' in done.err and 'kd' in done.out
    alone = kdfast(*against, 'baseline', '--data', 'zebras')
    none = kdfast(*against, 'exp9')
    assert alone.status == none.status == 2 and alone.out == none.out == ''
    assert 'exp9 on pets' in none.err and 'exp9 on zebras' in none.err


@pytest.mark.parametrize('recipe', ['kd', 'baseline'])
def test_a_lost_file_leaves_out_what_needs_it(tmp_path, kdfast, recipe):
    "Of one seed the images; another recipe has several"
    for name in ('baseline', 'kd'):
        make(tmp_path, name, 0, right=A if name == 'kd' else B)
    for seed in (0, 1):
        make(tmp_path, 'exp1', seed, valid_accuracy=0.9), seed and make(tmp_path, 'baseline', seed, right=B)
    [alone] = differences_from([f for f in find_runs(tmp_path) if f.recipe != 'kd'], 'baseline', 0.008)
    (tmp_path / 'pets' / recipe / '0' / 'predictions.npz').unlink()
    rows = {row['recipe']: row for row in differences_from(find_runs(tmp_path), 'baseline', 0.008)}
    assert rows['exp1'] == alone and rows['kd']['verdict'] is None
    done = kdfast('compare', '--against', 'baseline', '--runs', tmp_path)
    lost = f'{tmp_path}/pets/{recipe}/0/predictions.npz is missing: remove'.replace(' ', '')
    assert done.status == 0 and 'a file is missing' in done.out and lost in ''.join(done.out.split())


def test_runs_of_other_splits_are_no_pairs(tmp_path):
    "Their labels agree, their images do not"
    folders = [
        make(tmp_path, 'kd', seed, recorded=dict(drawn_from='all', data_sha256=f'split {seed}'), right=A, confusion=M)
        for seed in (0, 1)
    ]
    with pytest.raises(KdfastError, match='different images'):
        paired_image_values(ACCURACY, folders)
    with pytest.raises(KdfastError, match='different images'):
        confusion_summary(*folders)


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
