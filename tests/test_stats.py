import numpy as np
import pytest
from kdfast.stats import Difference, discordant, holm, mcnemar, over_images, over_seeds

MARGIN = .008


def test_students_interval_by_hand():
    "Mean .01, sd .01, n 3: half of it is 4.3027·.01/√3"
    d = over_seeds([0., .01, .02])
    assert (d.mean, d.sd, d.n) == (pytest.approx(.01), pytest.approx(.01), 3)
    assert d.high - d.mean == pytest.approx(4.30265*.01/3**.5, rel=1e-5) and d.mean - d.low == pytest.approx(d.high - d.mean)


@pytest.mark.parametrize('low,high,verdict', [
    (.009, .02, 'better'), (-.02, -.009, 'worse'), (-.007, .007, 'alike'), (.001, .007, 'alike'),
    (.007, .02, 'undecided'), (-.02, .02, 'undecided'), (-.02, -.007, 'undecided')])
def test_verdicts(low, high, verdict): assert Difference((low + high)/2, low, high, 5, .01, 'seeds').verdict(MARGIN) == verdict


@pytest.mark.parametrize('mean,sd,n', [(0., .005, 4), (.02, .004, 3)])
def test_seeds_to_settle_is_the_first_number_that_settles(mean, sd, n):
    from kdfast.stats import half_width
    found = Difference(mean, 0., 0., 2, sd, 'seeds').seeds_to_settle(MARGIN)
    distance = abs(abs(mean) - MARGIN)
    assert found == n and half_width(sd, n) < distance <= half_width(sd, n - 1)


def test_what_lies_on_the_margin_is_never_settled():
    assert Difference(MARGIN, 0., 0., 3, .01, 'seeds').seeds_to_settle(MARGIN) is None


@pytest.mark.parametrize('n', [3, 5, 10])
@pytest.mark.parametrize('true', [0., .5*MARGIN, MARGIN, -MARGIN, 1.2*MARGIN, 3*MARGIN])
@pytest.mark.parametrize('sd', [.002, .01])
def test_at_most_one_verdict_in_twenty_is_wrong(n, true, sd):
    "Made-up studies with a known true difference; on the margin itself the rate is 5 %, give or take the draw of the studies"
    studies = 4000
    draws = np.random.default_rng([n, int(1e6*abs(true)), int(1e6*sd)]).normal(true, sd, (studies, n))
    found = [over_seeds(d) for d in draws.tolist()]
    truth = {'better': true > MARGIN, 'worse': true < -MARGIN, 'alike': abs(true) < MARGIN, 'undecided': True}
    wrong = sum(not truth[d.verdict(MARGIN)] for d in found)/studies
    covered = sum(d.low <= true <= d.high for d in found)/studies
    assert wrong <= .05 + 2.6*(.05*.95/studies)**.5 and .93 <= covered <= .97


@pytest.mark.parametrize('accuracy,agree,most', [(.85, .9, .97), (.6, .5, .97), (.95, .99, 1.)]) # the last: few images differ, and it is wider than it need be
def test_the_interval_over_images_covers_the_true_difference(accuracy, agree, most):
    "Both networks see the same 400 images; they are independent where they do not agree"
    random,covered = np.random.default_rng(0),[]
    for _ in range(1000):
        a = random.random(400) < accuracy
        b = np.where(random.random(400) < agree, a, random.random(400) < accuracy - .05)
        d = over_images(a.tolist(), b.tolist())
        covered.append(d.low <= (1 - agree)*.05 <= d.high)
    assert .93 <= np.mean(covered) <= most


def test_images_by_hand():
    right,other = [True]*8 + [False]*2,[True]*5 + [False]*4 + [True]
    assert discordant(right, other) == (3, 1)
    d = over_images(right, other)
    assert d.mean == pytest.approx(.2) and d.n == 10 and d.of == 'images' and d.low < .2 < d.high
    assert mcnemar(right, other) == pytest.approx(2*(1 + 4)/16) and mcnemar(right, right) == 1


def test_other_images_are_no_pairs():
    with pytest.raises(ValueError): over_images([True], [True, False])


def test_holm_by_hand(): assert holm([.01, .04, .03, .005]) == pytest.approx([.03, .06, .06, .02])
