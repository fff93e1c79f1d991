from dataclasses import replace

import pytest
from conftest import make

from kdfast.core.errors import KdfastError
from kdfast.runs.find import find_runs
from kdfast.study.design import Declared, declare, find_designs, parse_looks
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


def test_it_stops_when_all_are_decided(tmp_path):
    to, seen = train(tmp_path, dict(kd=0.1, exp2=-0.1))
    told = []
    declared = declare(tmp_path, 'pets', ASKED)
    rows, failed = run_until_decided(declared, tmp_path, 'pets', to, told.append)
    assert [row['verdict'] for row in rows] == ['better', 'worse'] and not failed
    assert len(seen) == rows[0]['look'] < 6 and len(told) == declared.looks.index(len(seen)) + 1
    assert all(row['next_look'] is None for row in rows)


def test_it_ends_at_the_last_look(tmp_path):
    to, seen = train(tmp_path, dict(kd=0.1, exp2=0.008))
    rows, _ = run_until_decided(declare(tmp_path, 'pets', ASKED), tmp_path, 'pets', to, lambda _: None)
    assert len(seen) == 6 and {row['recipe']: row['verdict'] for row in rows}['exp2'] == 'undecided'


def test_a_failed_run_ends_it(tmp_path):
    to, seen = train(tmp_path, dict(kd=0.1, exp2=0.008), fails_at=4)
    _, failed = run_until_decided(declare(tmp_path, 'pets', ASKED), tmp_path, 'pets', to, lambda _: None)
    assert failed == ['failed'] and len(seen) == 4


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


def test_runs_that_were_there_before_are_counted(tmp_path):
    make(tmp_path, 'kd', 0, valid_accuracy=0.5), make(tmp_path, 'kd', 9, valid_accuracy=0.5)
    assert declare(tmp_path, 'pets', ASKED).finished_before == 1


def test_what_is_no_design_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(KdfastError, match='expected numbers of seeds that increase'):
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


def test_designs_are_no_runs(tmp_path):
    declare(tmp_path, 'pets', ASKED)
    assert find_runs(tmp_path) == []
