"Results of runs, completed for runs of earlier versions. Imports no torch."

import numpy as np

from kdfast.runs.run_dir import RunDir
from kdfast.stats.confusion import balanced_accuracy, class_accuracies


def completed_result(
    folder: RunDir,  # A finished run
) -> dict:
    """Return the content of result.json, with the accuracy by class and its mean, the balanced accuracy.

    Runs of earlier versions have neither; both follow from their confusion matrices.
    """
    result = folder.result
    if 'class_accuracy' in result or result.get('valid_accuracy') is None or not (folder / 'confusion.csv').exists():
        return result
    classes, counts = folder.confusion()
    matrix = np.array(counts)
    return result | dict(
        valid_balanced_accuracy=balanced_accuracy(matrix),
        class_accuracy=dict(zip(classes, class_accuracies(matrix))),
    )
