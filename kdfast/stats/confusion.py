"""Numbers of a confusion matrix."""

import numpy as np

CHANCE = 0.05  # a smaller p-value, corrected for the number of classes, is called more than chance
MOST = 10  # pairs that are listed


def row_shares(matrix):
    "Of each row; a class without images has none"
    return matrix / np.maximum(matrix.sum(1, keepdims=True), 1)


def class_accuracies(matrix):
    "Of each class: the diagonal over the row sums; None where there are no images"
    return [right / n if n else None for right, n in zip(matrix.diagonal().tolist(), matrix.sum(1).tolist())]


def most_confused(
    matrix: np.ndarray,  # Rows are actual, columns predicted
) -> list[tuple[int, int]]:  # (actual, predicted) of the largest counts off the diagonal
    "The pairs that are confused most, at most 10; of equal counts the first."
    return largest_counts(off_diagonal(matrix), MOST)


def off_diagonal(matrix):
    return matrix * (1 - np.eye(len(matrix), dtype=int))


def largest_counts(counts, n):
    "Where the n largest counts above 0 are"
    order = np.argsort(-counts, axis=None, kind='stable')[:n]
    return [divmod(int(at), len(counts)) for at in order if counts.flat[at] > 0]


def named_pairs(pairs, classes, matrix):
    return [[classes[a], classes[b], int(matrix[a, b])] for a, b in pairs]


def most_alike(classes, matrix):
    "The two classes that are taken for each other most, both ways together; None where nothing is confused"
    both = np.tril(matrix + matrix.T, -1)[::-1, ::-1]  # of equal counts the last
    found = largest_counts(both, 1)
    if not found:
        return None
    ((i, j),) = [(len(classes) - 1 - i, len(classes) - 1 - j) for i, j in found]
    return [classes[j], classes[i], int(matrix[i, j] + matrix[j, i])]


def hardest(
    matrix: np.ndarray,  # Rows are actual, columns predicted
    n: int,  # How many classes
) -> list[int]:  # Those of the most confused pair first
    "The classes that are confused most with each other: all, where there are no more than n."
    both = np.triu(off_diagonal(matrix) + off_diagonal(matrix).T)
    chosen = dict.fromkeys(c for pair in largest_counts(both, n * n) for c in pair) | dict.fromkeys(range(len(matrix)))
    return list(chosen)[:n]
