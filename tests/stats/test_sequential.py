import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, t

from kdfast.core.errors import KdfastError
from kdfast.stats.intervals import MARGIN
from kdfast.stats.sequential import LOOKS, Design, by_union_bound, decide


@pytest.mark.parametrize('looks', [LOOKS, (2, 20), (5,), tuple(range(2, 21))])
@pytest.mark.parametrize('comparisons', [1, 3, 15])
def test_all_looks_and_comparisons_together_spend_5_percent(looks, comparisons):
    design = Design(looks, comparisons)
    spent = sum(comparisons * design.alpha(look) for look in looks)
    assert spent == pytest.approx(0.05) and all(design.alpha(look) > 0 for look in looks)


@pytest.mark.parametrize('looks', [LOOKS, (2, 5, 6), (3, 5, 8, 12, 20), (5, 10, 50)])
@pytest.mark.parametrize('comparisons', [1, 5])
def test_each_look_ends_its_share_of_studies(looks, comparisons):
    "Of normal values, |t| exceeds the boundary of a look and none before with the probability that the look spends"
    design, studies = Design(looks, comparisons), 200_000
    values = np.random.default_rng(len(looks)).standard_normal((studies, looks[-1]), np.float32) * 3
    running = np.ones(studies, bool)
    for look, confidence in zip(looks, design.confidences):
        of_look = values[:, :look]
        ends = abs(of_look.mean(1)) / of_look.std(1, ddof=1) * look**0.5 > t.ppf((1 + confidence) / 2, look - 1)
        spent = design.alpha(look)
        sampling = 4 * (spent / studies) ** 0.5
        assert spent * (0.93 if looks[0] == 2 else 1) - sampling < (running & ends).mean() < spent + sampling, look
        running &= ~ends


@pytest.mark.parametrize('comparisons', [1, 40])
def test_a_first_look_that_ends_few_studies_changes_nothing(comparisons):
    "After hundreds of seeds, too: the last look spends between its share and all of the 5 %"
    design = Design((3, 600), comparisons)
    assert design.alpha(600) < 1 - design.confidence(600) < 0.05 / comparisons


def test_a_single_look_is_students_interval():
    assert Design((7,)).confidences == pytest.approx((0.95,)) and Design((7,), 4).confidence(7) == pytest.approx(0.9875)


def test_two_looks_by_the_bivariate_normal():
    "With hundreds of seeds t is nearly normal; its values at two looks have a correlation of sqrt(200 / 400)"
    both = multivariate_normal(cov=[[1, 0.5**0.5], [0.5**0.5, 1]])
    first, second = (norm.ppf((1 + confidence) / 2) for confidence in Design((200, 400)).confidences)
    within = sum(a * b * both.cdf([a * first, b * second]) for a in (1, -1) for b in (1, -1))
    assert first == pytest.approx(norm.ppf(1 - 0.0125), rel=1e-6) and within == pytest.approx(0.95, abs=2e-4)
    assert second < norm.ppf(1 - 0.0125)  # less strict than the union bound


def test_designs_without_confidences_keep_the_union_bound():
    assert by_union_bound((3, 5, 10), 2) == pytest.approx((1 - 0.0075, 1 - 0.005, 1 - 0.0125))
    with pytest.raises(KdfastError, match='1 confidences for 2 looks'):
        Design((3, 5), 1, (0.95,))


def test_an_interval_by_hand():
    "Looks 5 and 10 of one comparison: .025 each, so Student's quantile at .9875 with 4 degrees of freedom"
    design, values = Design((5, 10)), [0.01, 0.02, 0.015, 0.025, 0.03]
    found = decide(design, values, margin=0.001)
    half = t.ppf(0.9875, 4) * np.std(values, ddof=1) / 5**0.5
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half))


def test_what_a_look_decided_stands():
    clear = [0.05, 0.051, 0.049]
    design = Design((3, 6))
    assert decide(design, clear).verdict() == 'better'
    again = decide(design, [*clear, -0.05, -0.05, -0.05])
    assert again.n == 3 and again.verdict() == 'better'


def test_between_looks_nothing_is_decided():
    design, values = Design((3, 6)), [0.0, 0.03, -0.02, 0.05, 0.05]
    assert decide(design, values[:2]) is None
    assert decide(design, values).n == 3 and decide(design, values).verdict() == 'undecided'
    assert design.following(5) == 6 and design.following(6) is None and design.reached(5) == [3]


def test_seeds_behind_the_last_look_are_not_used():
    values = [0.0, 0.03, -0.02]
    assert decide(Design((3,)), [*values, 9.0]) == decide(Design((3,)), values)


@pytest.mark.parametrize('looks', [(), (1, 5), (5, 5), (8, 3), (5, 1001), tuple(range(2, 60))])
def test_what_is_no_design_is_refused(looks):
    with pytest.raises(KdfastError, match='up to 50 numbers of seeds that increase, from 2 to 1,000'):
        Design(looks)


@pytest.mark.parametrize('images', [100, 1000, 10000])
@pytest.mark.parametrize('looks', [LOOKS, (5, 10)])
def test_at_most_one_matrix_question_in_twenty_is_wrong(images, looks):
    "The contrast of four counts, on the margin"
    from slow.sequential import contrasts_of_four, look_at

    studies = 3000
    values = contrasts_of_four(np.random.default_rng(images), studies, looks[-1], images, 0.06, MARGIN, 0.0)
    declared, naive = (look_at(values, Design(looks), images, MARGIN, MARGIN, fixed, 2)[0] for fixed in (0, 1))
    limit = 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
    assert declared.mean() <= limit
    if images > 1000:
        assert naive.mean() > limit


@pytest.mark.parametrize('images,recipes', [(100, 1), (250, 4), (10000, 1), (10000, 15)])
def test_at_most_one_study_in_twenty_is_wrong_and_the_naive_procedure_is_not(images, recipes):
    "A slice of tests/slow/sequential.py, on the margin"
    from slow.sequential import differences, look_at

    studies = 3000
    limit = 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
    values = differences(np.random.default_rng(images), studies, recipes, LOOKS[-1], images, 0.06, MARGIN)
    declared, naive = (look_at(values, Design(LOOKS, recipes), images, MARGIN, MARGIN, fixed)[0] for fixed in (0, 1))
    assert declared.mean() <= limit
    if images > 100:
        assert naive.mean() > limit
