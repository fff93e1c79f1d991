"What a plan expects is what the simulated studies of the design do."

from math import sqrt

import numpy as np
import pytest

from kdfast.stats import planning
from kdfast.stats.planning import SHARE, balanced_images, expected_sd, outlook, outlooks, remedies_of, standard_studies
from kdfast.stats.sequential import Design, decide


def test_the_spread_follows_from_error_and_images():
    "Two networks with 20 % and 30 % errors on 1,000 images: variances 1e-4 and 1.5e-4"
    assert expected_sd(0.2, 0.3, 1000) == pytest.approx(sqrt(2.5e-4))


def test_a_small_class_counts_for_the_balanced_accuracy():
    "Mean of two accuracies with variance p/100 and p: (p/100 + p)/4 = p/n, n = 4/1.01"
    assert balanced_images([50, 50]) == 100 and balanced_images([100, 1, 0]) == pytest.approx(4 / 1.01)


def test_recipes_of_a_study_share_their_baseline():
    draws = standard_studies(2, 20)
    assert np.corrcoef(draws[:, 0].ravel(), draws[:, 1].ravel())[0, 1] == pytest.approx(0.5, abs=0.02)
    assert draws.std() == pytest.approx(1, abs=0.01) and draws.mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize('true', [0.0, 0.016])
def test_an_outlook_is_what_the_verdicts_of_the_design_give(monkeypatch, true):
    "The same studies, each decided recipe by recipe as `compare` does"
    monkeypatch.setattr(planning, 'STUDIES', 80)
    standard_studies.cache_clear()
    design, sd, step, margin = Design((3, 5, 8), 2), 0.006, 0.001, 0.008
    found = outlook(design, sd, step, true, margin)
    seeds = []
    for study in true + sd * standard_studies(2, 8):
        decided = [decide(design, values, step, margin) for values in study]
        open_ = any(d.verdict(margin) == 'undecided' for d in decided)
        seeds.append(99 if open_ else max(d.n for d in decided))
    standard_studies.cache_clear()
    shares = {look: np.mean(np.array(seeds) <= look) for look in design.looks}
    assert 0 < shares[5] < shares[8] < 1
    assert found.decided == pytest.approx(shares[8]) and found.seeds == pytest.approx(np.minimum(seeds, 8).mean())
    assert found.look == next((look for look, share in shares.items() if share >= SHARE), None)


def test_what_is_said_to_be_enough_is_enough_and_little_less_is_not():
    design, sd, margin, n = Design(comparisons=2), 0.02, 0.008, 400
    assert not all(o.look for o in outlooks(design, sd, 1 / n, margin))
    found = remedies_of(design, sd, 1 / n, margin, n)
    more = found['images'] / n
    assert all(o.look for o in outlooks(design, sd / sqrt(more), 1 / found['images'], margin))
    assert not all(o.look for o in outlooks(design, sd / sqrt(more / 1.2), 1.2 / found['images'], margin))
    assert all(o.look for o in outlooks(design, sd, 1 / n, found['margin']))
    assert not all(o.look for o in outlooks(design, sd, 1 / n, found['margin'] / 1.2))


def test_nothing_is_enough_for_a_spread_without_end():
    assert remedies_of(Design((2,)), 10.0, 0.001, 1e-4, 1000) == dict(images=None, margin=None)
