import numpy as np
import pytest

from kdfast.stats.intervals import (
    Difference,
    discordant,
    holm,
    mcnemar,
    over_image_values,
    over_images,
    over_seeds,
    simultaneous_confidence,
)

MARGIN = 0.008


def test_students_interval_by_hand():
    "Mean .01, sd .01, n 3: half of it is 4.3027·.01/√3"
    d = over_seeds([0.0, 0.01, 0.02])
    assert (d.mean, d.sd, d.n) == (pytest.approx(0.01), pytest.approx(0.01), 3)
    assert d.high - d.mean == pytest.approx(4.30265 * 0.01 / 3**0.5, rel=1e-5) and d.mean - d.low == pytest.approx(
        d.high - d.mean
    )


@pytest.mark.parametrize(
    'low,high,verdict',
    [
        (0.009, 0.02, 'better'),
        (-0.02, -0.009, 'worse'),
        (-0.007, 0.007, 'alike'),
        (0.001, 0.007, 'alike'),
        (0.007, 0.02, 'undecided'),
        (-0.02, 0.02, 'undecided'),
        (-0.02, -0.007, 'undecided'),
    ],
)
def test_verdicts(low, high, verdict):
    assert Difference((low + high) / 2, low, high, 5, 0.01, 'seeds').verdict(MARGIN) == verdict


@pytest.mark.parametrize('mean,sd,n', [(0.0, 0.005, 4), (0.02, 0.004, 3)])
def test_seeds_to_settle_is_the_first_number_that_settles(mean, sd, n):
    from kdfast.stats.intervals import half_width

    found = Difference(mean, 0.0, 0.0, 2, sd, 'seeds').seeds_to_settle(MARGIN)
    distance = abs(abs(mean) - MARGIN)
    assert found == n and half_width(sd, n) < distance <= half_width(sd, n - 1)
    few = Difference(mean, 0.0, 0.0, 2, sd, 'seeds', step=1 / 400).seeds_to_settle(MARGIN)  # of few images
    assert few > n and half_width(sd, few, 1 / 400) < distance <= half_width(sd, few - 1, 1 / 400)


def test_what_lies_on_the_margin_is_never_settled():
    assert Difference(MARGIN, 0.0, 0.0, 3, 0.01, 'seeds').seeds_to_settle(MARGIN) is None


def test_equal_counts_have_an_interval():
    "Two images each way in all seeds: 12.706·2/2 and 2.776·2/5 images; and what one image is worth may not be known"
    for n, half in ((2, 12.7062), (5, 2.77645 * 2 / 5)):
        d = over_seeds([0.01] * n, step=1 / 1198)
        assert (d.mean, d.high - 0.01, 0.01 - d.low) == pytest.approx((0.01, half / 1198, half / 1198), rel=1e-5)
        assert over_seeds([0.01] * n).verdict(MARGIN) == 'undecided'
    assert over_seeds([0.01] * 2, 1 / 1198).seeds_to_settle(MARGIN) == 4  # 3.18·2/4 images < 2.4, which is .002


@pytest.mark.parametrize(
    'images,discordance,true',
    [
        (16, 0.06, MARGIN),
        (16, 0.3, 0.0),
        (36, 0.03, -MARGIN),
        (36, 0.02, 0.02),
        (100, 0.01, MARGIN),
        (250, 0.01, MARGIN),
        (400, 0.01, MARGIN),
        (400, 0.06, -MARGIN),
        (1198, 0.03, MARGIN),
        (1198, 0.3, 1.2 * MARGIN),
        (10000, 0.1, MARGIN),
    ],
)
def test_at_most_one_verdict_in_twenty_is_wrong_of_counts(images, discordance, true):
    "A slice of tests/slow/verdicts.py, which has the old intervals as well: they are wrong there in up to 97 %"
    from slow.verdicts import SEEDS, new_over_images, new_over_seeds, share_wrong

    studies = 4000
    limit = 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
    random = np.random.default_rng([images, int(1e3 * discordance)])
    for n in SEEDS:
        assert share_wrong(random, images, discordance, true, n, studies, new_over_seeds, MARGIN) <= limit, n
    assert share_wrong(random, images, discordance, true, 1, studies, new_over_images, MARGIN) <= limit


def test_what_is_simulated_is_what_is_computed():
    from slow.verdicts import new_over_images, new_over_seeds

    b, c = np.array([[3, 5, 2]]), np.array([[1, 0, 4]])
    d, (low, high) = over_seeds([0.02, 0.05, -0.02], 1 / 100), new_over_seeds(b, c, 100)
    assert (d.low, d.high) == pytest.approx((low[0], high[0]))
    d, (low, high) = over_images([1] * 3 + [0] * 97, [0] * 3 + [1] + [0] * 96), new_over_images(b[:, :1], c[:, :1], 100)
    assert (d.low, d.high) == pytest.approx((low[0], high[0]))


@pytest.mark.parametrize('recipes,images,n', [(1, 100, 3), (4, 1000, 1), (15, 10000, 5), (15, 10000, 20)])
def test_at_most_one_study_in_twenty_has_a_wrong_verdict(recipes, images, n):
    "A slice of `tests/slow/verdicts.py --family`, on the margin; uncorrected intervals are wrong more often"
    from slow.verdicts import family_counts, share_wrong_family

    studies, true = 3000, np.full(recipes, MARGIN)
    limit = 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
    counts = family_counts(np.random.default_rng(images), images, 0.06, true, n, studies)
    assert share_wrong_family(*counts, images, true, simultaneous_confidence(recipes)) <= limit
    if recipes > 1:
        assert share_wrong_family(*counts, images, true, 0.95) > limit


@pytest.mark.parametrize('confidence', [0.95, 1 - 0.05 / 15])
def test_the_simulated_families_have_the_intervals_of_kdfast(confidence):
    from slow.verdicts import family_intervals

    only, other_only = np.array([[[3, 5, 2]]]), np.array([[[1, 0, 4]]])
    d, (mean, half) = (
        over_seeds([0.02, 0.05, -0.02], 1 / 100, confidence),
        family_intervals(only, other_only, 100, confidence),
    )
    assert (d.low, d.high) == pytest.approx((mean[0, 0] - half[0, 0], mean[0, 0] + half[0, 0]))
    values = [1] * 3 + [-1] + [0] * 96
    d, (mean, half) = (
        over_image_values(values, 1.0, confidence),
        family_intervals(only[..., :1], other_only[..., :1], 100, confidence),
    )
    assert (d.low, d.high) == pytest.approx((mean[0, 0] - half[0, 0], mean[0, 0] + half[0, 0]))


def test_contrasts_of_images():
    "All images alike: two more each way, of the largest value there is"
    d = over_image_values([0.0] * 400, 2.0)
    assert (d.low, d.high) == pytest.approx((-1.959964 * 4 / 400, 1.959964 * 4 / 400), rel=1e-5)
    assert d.verdict(MARGIN) == 'undecided'


@pytest.mark.parametrize('n', [3, 5, 10])
@pytest.mark.parametrize('true', [0.0, 0.5 * MARGIN, MARGIN, -MARGIN, 1.2 * MARGIN, 3 * MARGIN])
@pytest.mark.parametrize('sd', [0.002, 0.01])
def test_at_most_one_verdict_in_twenty_is_wrong(n, true, sd):
    "Simulated studies with a known true difference; on the margin itself the rate is 5 %, within sampling error"
    studies = 4000
    draws = np.random.default_rng([n, int(1e6 * abs(true)), int(1e6 * sd)]).normal(true, sd, (studies, n))
    found = [over_seeds(d) for d in draws.tolist()]
    truth = {'better': true > MARGIN, 'worse': true < -MARGIN, 'alike': abs(true) < MARGIN, 'undecided': True}
    wrong = sum(not truth[d.verdict(MARGIN)] for d in found) / studies
    covered = sum(d.low <= true <= d.high for d in found) / studies
    assert wrong <= 0.05 + 2.6 * (0.05 * 0.95 / studies) ** 0.5 and 0.93 <= covered <= 0.97


@pytest.mark.parametrize('accuracy,agree,most', [(0.85, 0.9, 0.99), (0.6, 0.5, 0.98), (0.95, 0.99, 1.0)])  # few differ
def test_the_interval_over_images_covers_the_true_difference(accuracy, agree, most):
    "Both networks see the same 400 images; they are independent where they do not agree"
    random, covered = np.random.default_rng(0), []
    for _ in range(1000):
        a = random.random(400) < accuracy
        b = np.where(random.random(400) < agree, a, random.random(400) < accuracy - 0.05)
        d = over_images(a.tolist(), b.tolist())
        covered.append(d.low <= (1 - agree) * 0.05 <= d.high)
    assert 0.93 <= np.mean(covered) <= most


def test_images_by_hand():
    "3 one way, 1 the other: variance of their sum 3 + 1 − 10·.2², and 4 for two more each way"
    right, other = [True] * 8 + [False] * 2, [True] * 5 + [False] * 4 + [True]
    assert discordant(right, other) == (3, 1)
    d = over_images(right, other)
    assert d.mean == pytest.approx(0.2) and d.n == 10 and d.of == 'images'
    assert d.high - 0.2 == pytest.approx(1.959964 * (3.6 + 4) ** 0.5 / 10, rel=1e-5) == pytest.approx(0.2 - d.low)
    assert mcnemar(right, other) == pytest.approx(2 * (1 + 4) / 16) and mcnemar(right, right) == 1


def test_other_images_are_no_pairs():
    with pytest.raises(ValueError):
        over_images([True], [True, False])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
