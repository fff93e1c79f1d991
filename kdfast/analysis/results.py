"Results of runs, completed for runs of earlier versions, and what kind of labels they are about. Imports no torch."

from collections.abc import Sequence

from kdfast.core.errors import KdfastError
from kdfast.runs.run_dir import RunDir

SCORES = ('valid_accuracy', 'valid_balanced_accuracy', 'valid_map', 'valid_f1', 'valid_f1_macro', 'valid_f1_micro')


def completed_result(
    folder: RunDir,  # A finished run
) -> dict:
    """Return the content of result.json, with the accuracy by class and its mean, the balanced accuracy.

    Runs of earlier versions have neither; both follow from their confusion matrices.
    """
    result = folder.result
    if 'class_accuracy' in result or result.get('valid_accuracy') is None or not folder.has('confusion.csv'):
        return result
    import numpy as np  # a tenth of a second, and needed for runs of earlier versions alone

    from kdfast.stats.confusion import balanced_accuracy, class_accuracies

    classes, counts = folder.confusion()
    matrix = np.array(counts)
    return result | dict(
        valid_balanced_accuracy=balanced_accuracy(matrix),
        class_accuracy=dict(zip(classes, class_accuracies(matrix))),
    )


def has_several_labels(
    result: dict,  # Content of result.json
) -> bool:
    "Return whether a run classified images with several labels."
    return 'label_counts' in result


def classifies(
    result: dict,  # Content of result.json
) -> bool:
    "Return whether a run trained a classifier, of one class or of several labels."
    return result.get('valid_accuracy') is not None or has_several_labels(result)


def main_score(
    result: dict,  # Content of result.json
) -> float | None:
    "Return validation accuracy or, of several labels, mean average precision; None without either."
    return result.get('valid_map' if has_several_labels(result) else 'valid_accuracy')


def several_labels(
    folders: Sequence[RunDir],  # Runs on one data set
) -> bool:
    """Return whether the images of these runs have several labels.

    Raises KdfastError for runs of both kinds: their numbers mean different things.
    """
    found = {}
    for folder in folders:
        if folder.finished and classifies(folder.result):
            found.setdefault(has_several_labels(folder.result), folder)
    if len(found) > 1:
        raise KdfastError(
            f'{found[False]} classifies images with one label, and {found[True]} images with several: their numbers '
            'mean different things, so keep them in different directories (--runs)'
        )
    return True in found


def scores(
    folder: RunDir,  # Any run
) -> dict:  # By key of result.json
    "Return the scores of a run; nothing for a run that is not finished."
    if not folder.finished:
        return {}
    result = completed_result(folder)
    return {name: result[name] for name in SCORES if result.get(name) is not None}
