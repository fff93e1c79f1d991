"Verdicts on balanced accuracy: simulated studies with a known true difference"

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from kdfast.stats.confusion import balanced_accuracy, image_weights
from kdfast.stats.intervals import over_image_values, over_seeds

MARGIN = 0.008


@pytest.mark.parametrize('sizes', [(990, 10), (5000, 500, 50), (1000, *[20] * 9)])
@pytest.mark.parametrize('place', ['all', 'smallest', 'largest'])
@pytest.mark.parametrize('n', [1, 2, 5, 20])
def test_at_most_one_verdict_in_twenty_is_wrong(sizes, place, n):
    "A slice of tests/slow/verdicts.py; intervals that know nothing of counts are wrong there in up to 99 %"
    from slow.verdicts import share_wrong_balanced

    studies = 500
    limit = 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
    for true, discordance in ((MARGIN, 0.02), (-MARGIN, 0.1), (1.2 * MARGIN, 0.3)):
        random = np.random.default_rng([*sizes, n])
        share = share_wrong_balanced(random, sizes, place, discordance, true, n, studies, MARGIN)
        assert share is None or share <= limit, (true, discordance)


def test_without_the_weight_of_the_smallest_class_it_would_be_wrong():
    from slow.verdicts import share_wrong_balanced

    random = np.random.default_rng(0)
    assert share_wrong_balanced(random, (990, 10), 'smallest', 0.016, MARGIN, 5, 500, MARGIN, more=0) > 0.2


def test_what_is_simulated_is_what_is_computed():
    "Classes of 6 and 2 images: an image weighs 1/12 and 1/4"
    from slow.verdicts import balanced_over_images, balanced_over_seeds

    sizes = np.array([6, 2])
    only, other_only = np.array([[[2, 1], [0, 1], [1, 0]]]), np.array([[[1, 0], [0, 0], [2, 1]]])
    low, high = balanced_over_seeds(only, other_only, sizes)
    d = over_seeds([1 / 12 + 1 / 4, 1 / 4, -1 / 12 - 1 / 4], 1 / 4)
    assert (d.low, d.high) == pytest.approx((low[0], high[0]))
    low, high = balanced_over_images(only, other_only, sizes)
    first = np.array([1, 1, -1, 0, 0, 0, 1, 0])  # of seed 0
    weights = image_weights(sizes)
    d = over_image_values(first * weights.repeat(sizes), weights.max())
    assert (d.low, d.high) == pytest.approx((low[0], high[0])) and d.mean == pytest.approx(1 / 12 + 1 / 4)


def test_it_is_what_scikit_learn_computes():
    "Class 3 has no image, and does not count"
    random = np.random.default_rng(0)
    actual = random.choice([0, 1, 2, 4], 500, p=[0.7, 0.2, 0.05, 0.05])
    predicted = np.where(random.random(500) < 0.6, actual, random.integers(0, 5, 500))
    matrix = confusion_matrix(actual, predicted, labels=range(5))
    with pytest.warns(UserWarning) if (set(predicted) - set(actual)) else pytest.MonkeyPatch.context():
        expected = balanced_accuracy_score(actual, predicted)
    weights = image_weights(np.bincount(actual, minlength=5))
    assert balanced_accuracy(matrix) == pytest.approx(expected)
    assert ((predicted == actual) * weights[actual]).mean() == pytest.approx(expected)
    assert weights[3] == 0
