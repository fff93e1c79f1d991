"""What verdicts judge: a number of each run, and each validation image's part in it. Imports no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kdfast.analysis.results import completed_result
from kdfast.core.errors import KdfastError
from kdfast.runs.run_dir import RunDir
from kdfast.stats.confusion import image_weights


@dataclass(frozen=True)
class Metric:
    "A number of a run that is the mean of one value per validation image."

    name: str  # Value of --metric
    label: str  # In headings and remarks
    meaning: str  # In remarks, after the label; empty if the label says it
    key: str  # In result.json
    largest: Callable[[RunDir], float]  # By how much one image can change the sum of all images' values
    image_values: Callable[[RunDir], np.ndarray]  # (images,): their mean is the number of the run

    def value(
        self,
        folder: RunDir,  # A finished run
    ) -> float | None:
        "Return the number of a run; None if it has none."
        return completed_result(folder).get(self.key)

    def step(
        self,
        folder: RunDir,  # A finished run that has the number
    ) -> float:
        "Return how much one validation image changes the number of the run at most."
        return self.largest(folder) / n_images(folder)


def n_images(folder):
    "The number of validation images of a run."
    return folder.result.get('valid_images') or sum(map(sum, folder.confusion()[1]))


def correct_images(folder):
    "1 for each image that is classified correctly, else 0."
    return np.array(folder.correct(), float)


def weighted_correct_images(folder):
    """n / (K · images of its class) for each image that is classified correctly, else 0.

    K: classes with validation images. The mean over the n images is the balanced accuracy.
    """
    actual = folder.arrays('predictions.npz')['actual'].astype(int)
    return correct_images(folder) * image_weights(np.bincount(actual))[actual]


def largest_weight(folder):
    "The weight of an image of the smallest class that has validation images."
    return float(image_weights(np.sum(folder.confusion()[1], axis=1)).max())


ACCURACY = Metric('accuracy', 'accuracy', '', 'valid_accuracy', lambda folder: 1.0, correct_images)
BALANCED = Metric(
    'balanced',
    'balanced accuracy',
    'the mean of the accuracies of the classes that have validation images',
    'valid_balanced_accuracy',
    largest_weight,
    weighted_correct_images,
)
METRICS = {metric.name: metric for metric in (ACCURACY, BALANCED)}


def metric_named(
    name: str,  # Value of --metric
) -> Metric:
    "Return a metric. Raises KdfastError for an unknown name."
    if name not in METRICS:
        raise KdfastError(f'--metric {name}: expected {" or ".join(METRICS)}')
    return METRICS[name]


def paired_image_values(
    metric: Metric,
    folders: Sequence[RunDir],  # Finished runs
) -> list[np.ndarray]:  # (images,) of each run
    "Return the values of the same images in several runs. Raises KdfastError for different images."
    first, *others = (folder.arrays('predictions.npz')['actual'] for folder in folders)
    for folder, actual in zip(folders[1:], others):
        if not np.array_equal(actual, first):
            raise KdfastError(
                f'{folders[0]} and {folder} were validated on different images: only runs on the same data compare'
            )
    return [metric.image_values(folder) for folder in folders]


def scores(
    folder: RunDir,  # Any run
) -> dict:  # By key of result.json
    "Return the numbers of a run that verdicts can judge; nothing for a run that is not finished."
    if not folder.finished:
        return {}
    return {metric.key: value for metric in METRICS.values() if (value := metric.value(folder)) is not None}
