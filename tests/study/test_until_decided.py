import csv
import json
import re
from dataclasses import replace
from io import StringIO

import pytest
from conftest import make
from conftest import recipe as write_recipe
from rich.console import Console

from kdfast.analysis.design import Declared, declare, find_designs, parse_looks
from kdfast.analysis.differences import differences_from
from kdfast.analysis.worth import UNDECIDED, answer_of
from kdfast.core.errors import KdfastError
from kdfast.report import figures
from kdfast.report.differences import difference_remarks, difference_table
from kdfast.runs.find import find_runs
from kdfast.stats.sequential import LOOKS, Design, by_union_bound
from kdfast.study.until_decided import run_until_decided

ASKED = Declared('baseline', ('kd', 'exp2'), (2, 4, 6), 0.008)


def train(folder, differences, fails_at=None):
    "Makes runs as a study would: the difference of each recipe from the baseline, alternating a little by seed"
    seen = []

    def to(n):
        for seed in range(len(seen), n):
            base = 0.8 + 0.001 * (seed % 2)
            make(folder, 'baseline', seed, valid_accuracy=base)
            for recipe, difference in differences.items():
                make(folder, recipe, seed, valid_accuracy=base + difference * (1 + 0.01 * (seed % 3)))
            seen.append(seed)
        return ['failed'] if fails_at == n else []

    return to, seen


def rows_of(folder):
    return {row['recipe']: row for row in differences_from(find_runs(folder), 'baseline', 0.008)}


def test_a_study_stops_when_every_recipe_is_decided(tmp_path):
    to, seen = train(tmp_path, dict(kd=0.1, exp2=-0.1))
    told = []
    declared = declare(tmp_path, 'pets', ASKED)
    assert run_until_decided(declared, tmp_path, 'pets', to, told.append) == []
    rows = rows_of(tmp_path)
    assert (rows['kd']['verdict'], rows['exp2']['verdict']) == ('better', 'worse')
    assert len(seen) == rows['kd']['look'] < 6 and len(told) == declared.looks.index(len(seen)) + 1
    assert all(row['next_look'] is None for row in rows.values())


def test_a_study_ends_at_the_last_look(tmp_path):
    to, seen = train(tmp_path, dict(kd=0.1, exp2=0.008))
    run_until_decided(declare(tmp_path, 'pets', ASKED), tmp_path, 'pets', to, lambda _: None)
    assert len(seen) == 6 and rows_of(tmp_path)['exp2']['verdict'] == 'undecided'


def test_a_study_may_stop_when_one_recipe_is_better(tmp_path):
    "As `kdfast worth` does; exp2, on the margin, stays undecided"
    to, seen = train(tmp_path, dict(kd=0.1, exp2=0.008))
    declared = declare(tmp_path, 'pets', ASKED)
    run_until_decided(declared, tmp_path, 'pets', to, lambda _: None, lambda rows: answer_of(rows) != UNDECIDED)
    assert rows_of(tmp_path)['exp2']['verdict'] == 'undecided' and len(seen) < 6


def test_a_failed_run_ends_a_study_until_decided(tmp_path):
    to, seen = train(tmp_path, dict(kd=0.1, exp2=0.008), fails_at=4)
    failed = run_until_decided(declare(tmp_path, 'pets', ASKED), tmp_path, 'pets', to, lambda _: None)
    assert failed == ['failed'] and len(seen) == 4


def test_a_recipe_without_accuracy_is_never_taken_for_decided(tmp_path):
    "The other recipe is decided at the first look"
    to, _ = train(tmp_path, dict(kd=0.1))
    with pytest.raises(KdfastError, match='no accuracy to compare: exp2'):
        run_until_decided(declare(tmp_path, 'pets', ASKED), tmp_path, 'pets', to, lambda _: None)


def test_the_table_has_the_verdicts_of_the_design_and_other_recipes_their_own(tmp_path):
    "Looks 2, 4 and 6 of two recipes: of the 5 %, the second look has a sixth for each"
    declare(tmp_path, 'pets', ASKED)
    to, _ = train(tmp_path, dict(kd=0.02, exp2=0.008, at=0.1))
    to(5)
    rows = rows_of(tmp_path)
    assert rows['exp2']['look'] == 4 and rows['exp2']['next_look'] == 6 and 'look' not in rows['at']
    assert rows['exp2']['confidence'] == pytest.approx(1 - 0.05 * 2 / 6 / 2)
    out = Console(width=100, file=StringIO())
    out.print(difference_table(list(rows.values())))
    assert 'next look at 6 seeds' in out.file.getvalue() and '95 %' not in out.file.getvalue()
    remarks = ' '.join(difference_remarks(list(rows.values())))
    assert 'declared design' in remarks and '99.17 %' in remarks and 'simultaneous' not in remarks


@pytest.fixture
def without_curves(monkeypatch):
    "A page of runs that were never trained"
    monkeypatch.setattr('kdfast.report.page.analysis_sections', lambda _: [])


@pytest.mark.parametrize('margin', [0.0001, 0.003, 0.96])
def test_the_table_is_judged_by_the_margin_of_the_design(tmp_path, kdfast, without_curves, margin):
    "Everywhere, as the study was; a recipe without a design by the default; another margin is asked for and told"
    declared = declare(tmp_path, 'pets', replace(ASKED, margin=margin))
    to, _ = train(tmp_path, dict(kd=0.001, exp2=-0.02, at=0.1))
    told = []
    run_until_decided(declared, tmp_path, 'pets', to, told.append)
    rows = {row['recipe']: row for row in differences_from(find_runs(tmp_path), 'baseline')}
    assert told[-1].endswith(': ' + ', '.join(f'{name} {rows[name]["verdict"]}' for name in ('kd', 'exp2')))
    assert {name: row['margin'] for name, row in rows.items()} == dict(kd=margin, exp2=margin, at=0.008)
    words = ('--against', 'baseline', '--runs', tmp_path)
    found = {name: [row[name] for row in rows.values()] for name in ('verdict', 'margin')}
    printed = ' '.join(kdfast('compare', *words).out.split())
    shown = f'±{100 * margin:g} points (kd, exp2)'
    assert shown in printed and '±0.8 points (at)' in printed and 'judged by' not in printed
    for name, values in found.items():
        assert [row[name] for row in json.loads(kdfast('compare', *words, '--json').out)] == values
        assert [row[name] for row in figures.differences(tmp_path).data] == values
        of_csv = list(csv.DictReader(StringIO(kdfast('compare', *words, '--csv').out)))
        assert [row[name] for row in of_csv] == [str(value) for value in values]
    assert kdfast('report', '--runs', tmp_path, '--out', tmp_path / 'r.html').status == 0
    page = (tmp_path / 'r.html').read_text()
    assert f'Shaded: {shown}' in page
    assert re.findall(r'class="verdict (\w+)', page) == [row['verdict'] for row in rows.values()]


def test_another_margin_than_that_of_the_design_is_judged_as_asked_and_told(tmp_path, kdfast, without_curves):
    to, _ = train(tmp_path, dict(kd=0.02, exp2=0.0))
    declare(tmp_path, 'pets', replace(ASKED, margin=0.96))
    to(2)
    said = 'judged by ±1 points as asked: the design declares 96 points, and its error rate holds for that alone'
    words = ('--against', 'baseline', '--runs', tmp_path)
    for more in ((), ('--margin', 1)):
        assert (said in ' '.join(kdfast('compare', *words, *more).out.split())) == bool(more)
    kdfast('report', '--runs', tmp_path, '--margin', 1, '--out', tmp_path / 'r.html')
    assert said in (tmp_path / 'r.html').read_text() and said in figures.differences(tmp_path, margin=1).html


def test_a_design_is_written_once_and_never_changed(tmp_path):
    first = declare(tmp_path, 'pets', ASKED)
    file = next((tmp_path / 'pets' / 'designs').glob('*.json'))
    content = file.read_bytes()
    assert declare(tmp_path, 'pets', ASKED) == first == find_designs(tmp_path, 'pets')[0] and first.declared
    for other in (replace(ASKED, looks=(2, 4)), replace(ASKED, margin=0.01)):
        with pytest.raises(KdfastError, match='was declared on .* with looks at 2, 4 and 6 seeds'):
            declare(tmp_path, 'pets', other)
    assert file.read_bytes() == content
    declare(tmp_path, 'pets', replace(ASKED, recipes=('kd',), looks=(2, 4)))  # another study
    assert len(find_designs(tmp_path, 'pets')) == 2


def test_a_design_without_looks_has_those_of_its_declaration(tmp_path):
    first = declare(tmp_path, 'pets', ASKED)
    assert declare(tmp_path, 'pets', replace(ASKED, looks=())) == first
    other = declare(tmp_path, 'dogs', replace(ASKED, looks=()))
    assert other.looks == LOOKS and other.confidences == Design(LOOKS, len(ASKED.recipes)).confidences


def test_a_design_of_an_earlier_version_keeps_its_intervals(tmp_path):
    "Its file has no confidences: every look then had the share of the 5 % that it spent, as if it were alone"
    declare(tmp_path, 'pets', ASKED)
    file = next((tmp_path / 'pets' / 'designs').glob('*.json'))
    content = json.loads(file.read_text())
    recorded = tuple(content.pop('confidences'))
    file.write_text(json.dumps(content))
    (found,) = find_designs(tmp_path, 'pets')
    assert found.design.confidences == by_union_bound(ASKED.looks, len(ASKED.recipes)) != recorded
    assert declare(tmp_path, 'pets', replace(ASKED, looks=())) == found


def test_runs_that_were_there_before_are_counted(tmp_path):
    make(tmp_path, 'kd', 0, valid_accuracy=0.5), make(tmp_path, 'kd', 9, valid_accuracy=0.5)
    assert declare(tmp_path, 'pets', ASKED).finished_before == 1


def test_what_is_no_design_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(KdfastError, match='expected up to 50 numbers of seeds that increase, from 2 to 1,000'):
        declare(tmp_path, 'pets', replace(ASKED, looks=(4, 2)))
    with pytest.raises(KdfastError, match='--looks 3,x: expected numbers'):
        parse_looks('3,x')
    assert not list(tmp_path.iterdir()) and parse_looks('3,5') == (3, 5)


def test_a_damaged_design_is_named(tmp_path):
    declare(tmp_path, 'pets', ASKED)
    file = next((tmp_path / 'pets' / 'designs').glob('*.json'))
    for content in ('', '[]', '{"looks": 3}', '{"recipes": ["kd"], "looks": [3], "wrong": 1}'):
        file.write_text(content)
        with pytest.raises(KdfastError, match='is not the design of a study'):
            find_designs(tmp_path, 'pets')


@pytest.mark.parametrize(
    'name,value',
    [
        ('confidences', []),
        ('confidences', [0.98, 0.98]),
        ('confidences', ['0.98', '0.98', '0.98']),
        ('confidences', [float('nan')] * 3),
        ('confidences', [0.98, 0.98, 0.5]),
        ('confidences', None),
        ('looks', ['2', '4', '6']),
        ('looks', [2, 4, 6000]),
        ('recipes', 'kd'),
        ('margin', float('nan')),
        ('margin', '0.008'),
        ('metric', 'beauty'),
        ('declared', None),
        ('arguments', []),
    ],
)
def test_values_that_no_design_has_are_refused(tmp_path, name, value):
    declare(tmp_path, 'pets', ASKED)
    file = next((tmp_path / 'pets' / 'designs').glob('*.json'))
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(KdfastError, match=f'{file.name} is not the design of a study: .*Move it away'):
        find_designs(tmp_path, 'pets')


def test_designs_are_no_runs(tmp_path):
    declare(tmp_path, 'pets', ASKED)
    assert find_runs(tmp_path) == []


def test_the_command_line_declares_trains_and_compares(kdfast, images, tmp_path):
    "With a recipe that needs no teacher, so that few processes start"
    own = write_recipe(tmp_path / 'mine.py', 'return baseline.main(run, epochs=1, lr=0.05)')
    asked = ('study', 'baseline', own, '--epochs', 1, '--data', images, '--runs', tmp_path, '--until-decided')
    done = kdfast(*asked, '--looks', '2,3')
    assert done.status == 0, done.err
    assert 'look at 2 seeds: mine' in done.err and 'of a declared design' in ' '.join(done.out.split())
    (declared,) = find_designs(tmp_path, 'tiny')
    assert (declared.looks, declared.recipes, declared.margin) == ((2, 3), ('mine',), 0.008)
    assert 'was declared on' in kdfast(*asked, '--looks', '2,4').err


@pytest.mark.parametrize(
    'words,expected',
    [
        (('kd', '--until-decided'), 'name baseline and at least one other'),
        (('baseline', 'kd', 'hint', '--until-decided'), 'hint trains no classifier'),
        (('baseline', '--until-decided'), 'name baseline and at least one other'),
        (('baseline', 'kd', '--until-decided', '--seeds', 3), 'use --max-seeds'),
        (('baseline', 'kd', '--until-decided', '--looks', '5,3'), 'numbers of seeds that increase'),
        (('baseline', 'kd', '--looks', '3,5'), 'are for --until-decided'),
        (('baseline', 'kd', '--until-decided', '--uncorrected'), 'share its error rate of 5 %'),
    ],
)
def test_what_cannot_be_decided_is_refused_before_training(kdfast, images, tmp_path, words, expected):
    done = kdfast('study', *words, '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and expected in ' '.join(done.err.split()) and not (tmp_path / 'runs').exists()


@pytest.mark.parametrize(
    'words,expected',
    [
        (('--looks', '3,5'), 'are for --until-decided'),
        (('--until-decided', '--looks', '5,3'), 'numbers of seeds that increase'),
        (('--until-decided', '--seeds', 3), 'use --max-seeds'),
    ],
)
def test_a_design_of_the_matrix_question_is_refused_before_training(kdfast, images, tmp_path, words, expected):
    done = kdfast('matrix', *words, '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and expected in ' '.join(done.err.split()) and not (tmp_path / 'runs').exists()
