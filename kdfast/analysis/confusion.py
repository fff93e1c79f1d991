"""The confusion matrix of a run, alone and beside another run's. Imports no torch."""

import numpy as np

from kdfast.core.errors import KdfastError, listed
from kdfast.runs.run_dir import RunDir
from kdfast.stats.confusion import class_accuracies, most_alike, most_confused, named_pairs, row_shares

OF_CLASS = 'class_accuracy', 'against_class_accuracy', 'class_p'


def confusion_summary(
    folder: RunDir,  # A finished run
    against: RunDir | None = None,  # Another one on the same data, such as the teacher's
) -> dict:
    """Who takes what for what: the matrix in counts and in shares of its rows, accuracy by class, the most confused pairs.

    Beside another run: its own, and for every class McNemar's exact p-value that both are equally often right,
    corrected for the number of classes (Holm); how often the two agree; how many images only one has right.
    A class without validation images has neither accuracy nor p-value (None).
    Raises KdfastError for a run that classifies nothing, and for one on other images.
    """
    classes, counts = folder.confusion()
    matrix = np.array(counts)
    pairs = most_confused(matrix)
    found = dict(
        run=str(folder),
        classes=classes,
        confusion=counts,
        shares=row_shares(matrix).tolist(),
        class_accuracy=dict(zip(classes, class_accuracies(matrix))),
        worst_pairs=named_pairs(pairs, classes, matrix),
        most_alike=most_alike(classes, matrix),
    )
    if against is None:
        return found
    other_classes, other = against.confusion()
    if other_classes != classes:
        raise KdfastError(
            f'{folder} knows the classes {listed(classes)}; {against} knows {listed(other_classes)}: '
            'only runs on the same data compare'
        )
    theirs = np.array(other)
    return (
        found
        | image_by_image(folder, against, classes)
        | dict(
            against=str(against),
            against_confusion=other,
            against_class_accuracy=dict(zip(classes, class_accuracies(theirs))),
            against_worst_pairs=named_pairs(pairs, classes, theirs),
        )
    )


def part_of_matrix(
    matrix: np.ndarray,  # Rows are actual, columns predicted
    some: list[int],  # Classes
) -> tuple[np.ndarray, np.ndarray]:  # Their counts, and what share of its whole row each is
    "A part of the matrix, to be drawn."
    return matrix[np.ix_(some, some)], row_shares(matrix[some])[:, some]


def image_by_image(folder, against, classes):
    "What only the predictions of both runs can tell"
    from kdfast.stats.intervals import exact_p, holm

    mine, theirs = (run.arrays('predictions.npz') for run in (folder, against))
    actual = mine['actual'].astype(int)
    if len(actual) != len(theirs['actual']) or (actual != theirs['actual']).any():
        raise KdfastError(
            f'{folder} and {against} were validated on different images: only runs on the same data compare'
        )
    right, other_right = ((p['predicted'] == p['actual']) for p in (mine, theirs))
    by_class, only, only_other = (
        np.bincount(actual[rows], minlength=len(classes)).tolist()
        for rows in (slice(None), right & ~other_right, other_right & ~right)
    )
    there = [c for c, n in enumerate(by_class) if n]
    p_values = holm([exact_p(only[c], only_other[c]) for c in there])
    class_p = dict.fromkeys(classes) | {classes[c]: p for c, p in zip(there, p_values)}
    return dict(
        class_p=class_p,
        agreement=float((mine['predicted'] == theirs['predicted']).mean()),
        only_right=sum(only),
        only_against_right=sum(only_other),
        images=len(right),
    )
