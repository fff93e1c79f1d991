"""Predictions of several labels per image, label by label, alone or next to another run's. Imports no torch."""

import numpy as np

from kdfast.analysis.metrics import F1, paired_image_values
from kdfast.analysis.results import has_several_labels
from kdfast.core.errors import KdfastError, listed
from kdfast.runs.run_dir import RunDir
from kdfast.stats.labels import f1_of_counts


def label_summary(
    folder: RunDir,  # A finished run on images with several labels
    against: RunDir | None = None,  # Another run on the same data, such as the teacher
) -> dict:
    """Return counts (true +, false +, false −, true −), F1 and average precision of each label.

    With another run, also its numbers, and how many images each of the two has the higher F1 for. Raises KdfastError
    for runs on different images or labels.
    """
    found = dict(run=str(folder)) | of_labels(folder)
    if against is None:
        return found
    if not has_several_labels(against.result):
        raise KdfastError(f'{folder} classifies images with several labels, and {against} does not')
    other = of_labels(against)
    if list(other['label_counts']) != list(found['label_counts']):
        raise KdfastError(
            f'{folder} has the labels {listed(list(found["label_counts"]))}; {against} has '
            f'{listed(list(other["label_counts"]))}: only runs on the same data compare'
        )
    mine, theirs = paired_image_values(F1, [folder, against])
    return found | dict(
        against=str(against),
        **{f'against_{name}': value for name, value in other.items()},
        images=len(mine),
        higher_f1=int((mine > theirs).sum()),
        against_higher_f1=int((mine < theirs).sum()),
    )


def of_labels(
    folder,  # A run
):
    "Return the numbers of each label of a run."
    result = folder.result
    f1 = f1_of_counts(np.array(list(result['label_counts'].values()))).tolist()
    return dict(
        label_counts=result['label_counts'],
        label_f1=dict(zip(result['label_counts'], f1)),
        label_average_precision=result['label_average_precision'],
    )
