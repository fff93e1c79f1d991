"Answers follow from the intervals of a design, in simulated studies as often as promised; costs from the runs."

from math import sqrt

import numpy as np
import pytest
from conftest import make, seal
from simulated_answers import is_wrong, naive, said, share_wrong

from kdfast.analysis.design import Declared, declare
from kdfast.analysis.spread import ASSUMED, largest_step, spreads
from kdfast.analysis.worth import answer, answer_of, chosen_row, training_seconds
from kdfast.core.errors import KdfastError
from kdfast.runs.find import find_runs
from kdfast.runs.upstream import record_upstream
from kdfast.stats.intervals import MARGIN
from kdfast.stats.sequential import LOOKS, Design

DESIGN = Declared('baseline', ('kd', 'exp2'), (3, 5), 0.008)
STUDIES = 500
LIMIT = 0.05 + 4 * sqrt(0.05 * 0.95 / STUDIES)  # four standard errors


@pytest.mark.parametrize(
    'verdicts,expected',
    [
        (['better', 'undecided'], 'yes'),
        (['worse', 'better'], 'yes'),
        (['alike', 'worse'], 'no'),
        (['alike', 'undecided'], 'undecided'),
        ([None, None], 'undecided'),
        ([], 'undecided'),
    ],
)
def test_one_better_recipe_is_enough_for_a_yes_and_a_no_needs_all(verdicts, expected):
    assert answer_of([dict(verdict=verdict) for verdict in verdicts]) == expected


def test_the_recipe_that_surely_gains_most_is_chosen_not_the_highest_mean():
    rows = [dict(verdict='better', low=0.02, difference=0.03), dict(verdict='better', low=0.01, difference=0.2)]
    assert chosen_row([*rows, dict(verdict='undecided', low=0.5)]) is rows[0]


@pytest.mark.parametrize('true', [(0, 0), (1, 0), (1, 1), (-1, -1), (2, 0), (2, 1)], ids=str)
def test_at_most_one_sentence_in_twenty_is_wrong(true):
    random = np.random.default_rng(0)
    assert share_wrong(random, STUDIES, Design(LOOKS, 2), [MARGIN * t for t in true], 1000) <= LIMIT


def test_fixed_intervals_would_be_wrong_more_often():
    "The negative control: on the margin, with the same looks"
    random = np.random.default_rng(0)
    assert share_wrong(random, STUDIES, naive(Design(LOOKS, 2)), [MARGIN, MARGIN], 1000) > 2 * LIMIT


def test_sentences_are_judged_by_their_words():
    yes = 'Yes: r1 raises the accuracy of thin on pets by 0.90 to 3.10 points over training on labels alone.'
    assert not is_wrong(yes, (0.0, 0.02), 0.008)
    assert is_wrong(yes, (0.02, 0.008), 0.008) and is_wrong(yes, (0.0, 0.05), 0.008)
    no = 'No: no recipe gains: r0 changes it by −0.50 to +0.70 points, r1 changes it by −2.00 to −0.90 points.'
    assert not is_wrong(no, (0.0, -0.01), 0.008) and is_wrong(no, (0.01, -0.01), 0.008)
    assert is_wrong(no, (0.0, 0.0), 0.008)


def test_a_clear_effect_is_found():
    random = np.random.default_rng(1)
    texts = [said(random, Design(LOOKS, 2), (0.03, 0.0), 10000, 0.06, MARGIN)[0] for _ in range(20)]
    assert all(text.startswith('Yes: r0 raises the accuracy of thin on pets by ') for text in texts)


def study(runs, gains, seeds=3, seconds=(10, 20, 30)):
    "Declare the design, and make runs of baseline, kd and exp2 whose differences vary a little"
    declare(runs, 'pets', DESIGN)
    for seed in range(seeds):
        base = 0.8 + 0.001 * seed
        for name, gain, took in zip(('baseline', 'kd', 'exp2'), (0, *gains), seconds):
            value = base + gain * (1 + 0.01 * (seed % 2))
            make(runs, name, seed, valid_accuracy=value, valid_images=1000, seconds=took + seed)
    return find_runs(runs, 'pets')


def test_an_answer_has_costs_and_the_best_model(tmp_path):
    found = answer(study(tmp_path, (0.05, 0.0)), DESIGN, [500, 500])
    assert (found['answer'], found['n'], found['baseline']) == ('yes', 3, 11)
    assert found['recipes'][0]['seconds'] == dict(kd=21) and found['next'] is None and found['needed'] is None
    assert (found['best']['name'], found['best']['seed']) == ('kd', 2)
    assert found['best']['value'] == pytest.approx(0.852)


def test_without_gain_the_baseline_is_recommended(tmp_path):
    found = answer(study(tmp_path, (0.0, -0.05), seeds=5), DESIGN, [500, 500])
    assert (found['answer'], found['best']['name'], found['best']['seed']) == ('no', 'baseline', 4)


@pytest.mark.parametrize('seeds,expected', [(4, dict(seeds=5)), (5, None)])
def test_what_is_missing_is_the_next_look_or_more_images(tmp_path, seeds, expected):
    found = answer(study(tmp_path, (0.008, 0.0), seeds=seeds), DESIGN, [500, 500])
    assert (found['answer'], found['next']) == ('undecided', expected)
    assert bool(found['needed']) == (seeds == 5)


def test_before_the_first_look_there_is_no_row(tmp_path):
    for seeds in (0, 2):
        found = answer(study(tmp_path, (0.05, 0.0), seeds=seeds), DESIGN, [500, 500])
        assert (found['answer'], found['n'], found['recipes'], found['best']) == ('undecided', 0, [], None)


def test_training_time_counts_what_a_run_needs_but_no_given_teacher(tmp_path):
    folders = {name: make(tmp_path, name, 0, seconds=s) for name, s in dict(teacher=8, hint=4, exp2=2, kd=1).items()}
    for name in folders:
        (folders[name] / 'weights.safetensors').write_text(name)
        seal(folders[name])
    for name, needed in (('hint', 'teacher'), ('exp2', 'teacher'), ('exp2', 'hint'), ('kd', 'teacher')):
        folders[name].record = folders[name].run
        record_upstream(folders[name], needed, folders[needed])
        seal(folders[name])
    assert training_seconds([folders['exp2']]) == dict(teacher=8, hint=4, exp2=2)
    given = folders['kd']
    given.record = given.run | dict(arguments=dict(teacher=str(folders['teacher'])))
    given.set_status('finished')
    assert training_seconds([given]) == dict(kd=1)


# Spread


def test_the_spread_is_pooled_over_the_recipes_of_the_study(tmp_path):
    "Differences 1, 2, 3 and 0, 4 points: squares of deviations 2 + 8, 3 degrees of freedom"
    for name, gains in dict(baseline=(0, 0, 0), kd=(0.01, 0.02, 0.03), exp2=(0.0, 0.04)).items():
        for seed, gain in enumerate(gains):
            make(tmp_path, name, seed, valid_accuracy=0.5 + gain)
    (found,) = spreads(find_runs(tmp_path), DESIGN, [500, 500], 0.2)
    assert found.sd == pytest.approx(0.01 * sqrt(10 / 3)) and '3 degrees of freedom' in found.source


def test_without_pairs_it_is_computed_from_an_error(tmp_path):
    make(tmp_path, 'baseline', 0, valid_accuracy=0.7), make(tmp_path, 'kd', 0, valid_accuracy=0.8)
    folders = find_runs(tmp_path)
    (given,), (known,) = spreads(folders, DESIGN, [600, 400], 0.2), spreads(folders, DESIGN, [600, 400], None)
    assert (given.sd, given.source) == (pytest.approx(sqrt(0.2 / 1000)), '--error')
    assert (known.error, known.source) == (pytest.approx(0.25), 'the error of 2 finished runs')
    assert [found.error for found in spreads([], DESIGN, [1000], None)] == list(ASSUMED)


def test_no_rule_gives_the_spread_of_f1():
    with pytest.raises(KdfastError, match='from finished runs only'):
        spreads([], Declared('baseline', ('kd',), (3,), 0.008, metric='f1'), [100], 0.2)


def test_the_step_of_balanced_accuracy_is_that_of_the_smallest_class():
    assert largest_step([90, 10], 'accuracy') == 0.01 and largest_step([90, 10, 0], 'balanced') == 0.05
