"Numbers of several labels per image: by hand, and those of scikit-learn"

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, multilabel_confusion_matrix

from kdfast.stats.intervals import over_image_values, over_seeds
from kdfast.stats.labels import (
    average_precisions,
    image_f1,
    label_counts,
    macro_f1,
    mean_average_precision,
    micro_f1,
)

MARGIN = 0.008


def test_average_precision_by_hand():
    "Ranks 1, 3 and 4 of 5 have the label: (1 + 2/3 + 3/4) / 3; equal scores count together"
    actual = np.array([[1, 1], [0, 1], [1, 0], [1, 0], [0, 0]])
    scores = np.array([[5.0, 1.0], [4.0, 0.0], [3.0, 1.0], [2.0, -1.0], [1.0, -2.0]])
    found = average_precisions(actual, scores)
    assert found == pytest.approx([(1 + 2 / 3 + 3 / 4) / 3, (1 / 2 + 2 / 3) / 2], abs=1e-9)
    assert mean_average_precision(found) == pytest.approx(sum(found) / 2)
    assert average_precisions(np.zeros((3, 1)), np.ones((3, 1))) == [None] and mean_average_precision([None]) is None


def test_f1_by_hand():
    "Images: both of two right; one of two and one too many; nothing of nothing; nothing of one; one of nothing"
    actual = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
    predicted = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 0], [0, 0, 0], [0, 1, 0]])
    assert image_f1(actual, predicted).tolist() == [1, 0.5, 1, 0, 0]
    assert label_counts(actual, predicted).tolist() == [[2, 0, 0, 3], [1, 1, 1, 2], [0, 1, 1, 3]]
    assert macro_f1(label_counts(actual, predicted)) == pytest.approx((1 + 0.5 + 0) / 3)
    assert micro_f1(label_counts(actual, predicted)) == pytest.approx(2 * 3 / (2 * 3 + 2 + 2))


@pytest.mark.parametrize('seed', range(5))
def test_they_are_what_scikit_learn_computes(seed):
    "Label 4 is in no image"
    random = np.random.default_rng(seed)
    actual = (random.random((200, 5)) < [0.5, 0.2, 0.05, 0.9, 0.0]).astype(int)
    logits = np.round(random.normal(size=(200, 5)) + actual, 1)  # with equal scores
    predicted, present = (logits > 0).astype(int), actual.any(0)
    counts = label_counts(actual, predicted)
    assert (counts == multilabel_confusion_matrix(actual, predicted).reshape(5, 4)[:, [3, 1, 2, 0]]).all()
    expected = average_precision_score(actual[:, present], logits[:, present], average='macro')
    assert mean_average_precision(average_precisions(actual, logits)) == pytest.approx(expected, abs=1e-6)
    labels = np.flatnonzero(present)
    assert macro_f1(counts) == pytest.approx(f1_score(actual, predicted, labels=labels, average='macro'), abs=1e-6)
    assert micro_f1(counts) == pytest.approx(f1_score(actual, predicted, average='micro'), abs=1e-6)
    samples = f1_score(actual, predicted, average='samples', zero_division=1)
    assert image_f1(actual, predicted).mean() == pytest.approx(samples, abs=1e-6)


@pytest.mark.parametrize('images,discordance,true', [(36, 0.05, MARGIN), (250, 0.02, MARGIN), (1000, 0.3, -MARGIN)])
def test_at_most_one_verdict_in_twenty_on_f1_is_wrong(images, discordance, true):
    "The F1 of an image changes by a third, a half or one; on the margin itself every verdict but undecided is wrong"
    sizes, studies = np.array([1 / 3, 1 / 2, 1]), 400
    limit = 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
    surplus = true / sizes.mean()
    chances = [*np.full(3, (discordance + surplus) / 6), *np.full(3, (discordance - surplus) / 6)]
    random = np.random.default_rng(images)
    for n in (1, 2, 5, 20):
        counts = random.multinomial(images, [*chances, 1 - sum(chances)], (studies, n))[..., :6]
        values = counts @ np.concatenate([sizes, -sizes]) / images
        if n == 1:
            parts = np.concatenate([sizes, -sizes, [0]])
            alone = [np.repeat(parts, [*row[0], images - row[0].sum()]) for row in counts]
            found = [over_image_values(image_values, 1.0) for image_values in alone]
        else:
            found = [over_seeds(row, 1 / images) for row in values.tolist()]
        verdicts = [d.verdict(MARGIN) for d in found]
        wrong = sum(verdict != 'undecided' for verdict in verdicts)
        assert wrong / studies <= limit, n
