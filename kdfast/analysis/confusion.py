"""Analyze the confusion matrix of a run, alone or next to another run's. Imports no torch."""

from collections.abc import Sequence

import numpy as np

from kdfast.analysis.metrics import check_same_images
from kdfast.analysis.results import has_several_labels
from kdfast.core.errors import KdfastError, listed
from kdfast.runs.run_dir import RunDir
from kdfast.stats.confusion import class_accuracies, most_alike, most_confused, named_pairs, row_shares

CLASS_COLUMNS = ('class_accuracy', 'against_class_accuracy', 'class_p')  # of a summary; each by class


def confusion_summary(
    folder: RunDir,  # A finished run
    against: RunDir | None = None,  # Another run on the same data, such as the teacher
) -> dict:
    """Return confusion matrix, accuracy by class and most confused pairs of a run.

    With another run, also its numbers; for every class McNemar's exact p-value that both runs are equally often
    correct, corrected for the number of classes (Holm); how often both agree; how many images only one has correct.
    A class without validation images has neither accuracy nor p-value (None).
    Raises KdfastError for a run that classifies nothing, and for runs on different images.
    """
    classes, counts = folder.confusion()
    matrix = np.array(counts)
    pairs = most_confused(matrix)
    summary = dict(
        run=str(folder),
        classes=classes,
        confusion=counts,
        shares=row_shares(matrix).tolist(),
        class_accuracy=dict(zip(classes, class_accuracies(matrix))),
        worst_pairs=named_pairs(pairs, classes, matrix),
        most_alike=most_alike(classes, matrix),
    )
    if against is None:
        return summary
    other_counts = counts_of_other(folder, classes, against)
    other = np.array(other_counts)
    summary |= compare_predictions(folder, against, classes)
    return summary | dict(
        against=str(against),
        against_confusion=other_counts,
        against_class_accuracy=dict(zip(classes, class_accuracies(other))),
        against_worst_pairs=named_pairs(pairs, classes, other),
    )


def counts_of_other(
    folder,  # A run
    classes,  # Names of the classes
    against,  # The run to compare with
):
    "Return the counts of the other run. Raises KdfastError for other classes and several labels."
    if has_several_labels(against.result):
        raise KdfastError(f'{folder} classifies images with one label, and {against} images with several')
    other_classes, counts = against.confusion()
    if other_classes != classes:
        raise KdfastError(
            f'{folder} has the classes {listed(classes)}; {against} has {listed(other_classes)}: '
            'only runs on the same data compare'
        )
    return counts


def part_of_matrix(
    matrix: np.ndarray,  # (classes, classes): rows are actual, columns predicted
    chosen: Sequence[int],  # n classes
) -> tuple[np.ndarray, np.ndarray]:  # Two (n, n) arrays: counts, and shares of the whole rows
    "Return the part of the matrix with these classes, to draw it."
    return matrix[np.ix_(chosen, chosen)], row_shares(matrix[chosen])[:, chosen]


def compare_predictions(
    folder: RunDir,  # A finished run
    against: RunDir,  # Another run on the same data
    classes: Sequence[str],  # Names of the classes
):
    "Compare two runs image by image: p-values by class, agreement, images that only one has correct."
    from kdfast.stats.intervals import exact_p, holm  # scipy takes a while

    check_same_images(folder, against)
    mine, theirs = (run.arrays('predictions.npz') for run in (folder, against))
    actual = mine['actual'].astype(int)
    correct = mine['predicted'] == actual
    other_correct = theirs['predicted'] == actual

    def count_by_class(images):
        return np.bincount(actual[images], minlength=len(classes)).tolist()

    n_images = count_by_class(slice(None))
    only_mine = count_by_class(correct & ~other_correct)
    only_theirs = count_by_class(other_correct & ~correct)
    present = [c for c, n in enumerate(n_images) if n]
    p_values = holm([exact_p(only_mine[c], only_theirs[c]) for c in present])
    return dict(
        class_p=dict.fromkeys(classes) | {classes[c]: p for c, p in zip(present, p_values)},
        agreement=float((mine['predicted'] == theirs['predicted']).mean()),
        only_right=sum(only_mine),
        only_against_right=sum(only_theirs),
        images=len(actual),
    )
