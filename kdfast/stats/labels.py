"""Numbers of predictions of several labels per image: counts, F1, average precision. Imports no torch."""

import numpy as np

THRESHOLD = 0.5  # probability above which a label is predicted


def label_counts(
    actual: np.ndarray,  # (images, labels) of 0 and 1
    predicted: np.ndarray,  # The same
) -> np.ndarray:  # (labels, 4): true positives, false positives, false negatives, true negatives
    "Count right and wrong predictions of each label."
    actual, predicted = actual.astype(bool), predicted.astype(bool)
    parts = (actual & predicted, ~actual & predicted, actual & ~predicted, ~actual & ~predicted)
    return np.stack([part.sum(0) for part in parts], 1)


def f1_of_counts(
    counts: np.ndarray,  # (labels, 4), from `label_counts`
) -> np.ndarray:  # (labels,)
    "Return 2·TP / (2·TP + FP + FN) of each label; 0 for a label that occurs nowhere."
    tp, fp, fn, _ = counts.T
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)


def macro_f1(
    counts: np.ndarray,  # (labels, 4), from `label_counts`
) -> float | None:
    "Return the mean F1 of the labels that images have; None if there are none."
    present = counts[:, 0] + counts[:, 2] > 0
    return float(f1_of_counts(counts)[present].mean()) if present.any() else None


def micro_f1(
    counts: np.ndarray,  # (labels, 4), from `label_counts`
) -> float:
    "Return the F1 of all labels counted together."
    return float(f1_of_counts(counts.sum(0, keepdims=True))[0])


def image_f1(
    actual: np.ndarray,  # (images, labels) of 0 and 1
    predicted: np.ndarray,  # The same
) -> np.ndarray:  # (images,)
    """Return the F1 of the labels of each image, 2·|both| / (|actual| + |predicted|).

    It is 1 for an image without labels for which none is predicted.
    """
    actual, predicted = actual.astype(int), predicted.astype(int)
    total = actual.sum(1) + predicted.sum(1)
    return np.where(total > 0, 2 * (actual * predicted).sum(1) / np.maximum(total, 1), 1.0)


def average_precisions(
    actual: np.ndarray,  # (images, labels) of 0 and 1
    scores: np.ndarray,  # (images, labels): logits, whose order alone counts
) -> list[float | None]:
    "Return scikit-learn's average precision of each label; None for a label that no image has."
    from sklearn.metrics import average_precision_score  # takes a while to import

    return [
        float(average_precision_score(y, score)) if y.any() else None for y, score in zip(actual.T, scores.T)
    ]  # equal scores count together


def mean_average_precision(
    average: list[float | None],  # From `average_precisions`
) -> float | None:
    "Return the mean over the labels that images have (mAP); None if there are none."
    known = [value for value in average if value is not None]
    return sum(known) / len(known) if known else None
