"""Numbers of a confusion matrix: rows are actual classes, columns predicted ones."""

from collections.abc import Sequence

import numpy as np

SIGNIFICANT = 0.05  # p-values below it, corrected for the number of classes, are called significant
MAX_PAIRS = 10  # that are listed


def row_shares(
    matrix: np.ndarray,  # (rows, classes) of counts
) -> np.ndarray:
    "Return each count as a share of its row; 0 for a class without images."
    return matrix / np.maximum(matrix.sum(1, keepdims=True), 1)


def class_accuracies(
    matrix: np.ndarray,  # (classes, classes) of counts
) -> list[float | None]:
    "Return the accuracy of each class; None for a class without images."
    return [right / n if n else None for right, n in zip(matrix.diagonal().tolist(), matrix.sum(1).tolist())]


def balanced_accuracy(
    matrix: np.ndarray,  # (classes, classes) of counts
) -> float:
    "Return the mean of the accuracies of the classes that have images (macro recall)."
    known = [accuracy for accuracy in class_accuracies(matrix) if accuracy is not None]
    return sum(known) / len(known)


def image_weights(
    counts: np.ndarray,  # (classes,) numbers of images, n in all
) -> np.ndarray:  # (classes,); 0 for a class without images
    """Return n / (K · images of the class) of each class, where K classes have images.

    The mean over all images of weight × correct is the balanced accuracy.
    """
    return np.divide(counts.sum(), (counts > 0).sum() * counts, out=np.zeros(len(counts)), where=counts > 0)


def most_confused(
    matrix: np.ndarray,  # (classes, classes) of counts
) -> list[tuple[int, int]]:  # (actual, predicted)
    "Return the pairs with the largest counts off the diagonal, at most 10; of equal counts the first."
    return largest_counts(off_diagonal(matrix), MAX_PAIRS)


def named_pairs(
    pairs: Sequence[tuple[int, int]],  # (actual, predicted)
    classes: Sequence[str],  # Their names
    matrix: np.ndarray,  # (classes, classes) of counts
) -> list[list]:
    "Return [actual, predicted, count] of each pair, with the names of the classes."
    return [[classes[actual], classes[predicted], int(matrix[actual, predicted])] for actual, predicted in pairs]


def most_alike(
    classes: Sequence[str],  # Their names
    matrix: np.ndarray,  # (classes, classes) of counts
) -> list | None:  # [class, other class, count]
    "Return the two classes that are confused most, both directions together; None if none are."
    both = np.tril(matrix + matrix.T, -1)[::-1, ::-1]  # reversed: of equal counts the last
    found = largest_counts(both, 1)
    if not found:
        return None
    last = len(classes) - 1
    i, j = (last - at for at in found[0])
    return [classes[j], classes[i], int(matrix[i, j] + matrix[j, i])]


def hardest(
    matrix: np.ndarray,  # (classes, classes) of counts
    n: int,  # Number of classes to return
) -> list[int]:
    "Return the classes that are confused most with each other, first the most confused pair; at most n."
    both = np.triu(off_diagonal(matrix) + off_diagonal(matrix).T)
    confused = dict.fromkeys(c for pair in largest_counts(both, n * n) for c in pair)
    return list(confused | dict.fromkeys(range(len(matrix))))[:n]


def off_diagonal(
    matrix,  # (classes, classes)
):
    "Return the matrix with zeros on its diagonal."
    return matrix * (1 - np.eye(len(matrix), dtype=int))


def largest_counts(
    counts,  # (rows, columns)
    n: int,  # How many
):
    "Return positions (row, column) of the n largest counts above 0; of equal counts the first."
    order = np.argsort(-counts, axis=None, kind='stable')[:n]
    return [divmod(int(at), len(counts)) for at in order if counts.flat[at] > 0]
