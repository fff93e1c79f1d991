"""What verdicts judge: a number of each run, and each validation image's part in it. Imports no torch."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kdfast.analysis.results import completed_result, several_labels
from kdfast.core.errors import KdfastError
from kdfast.core.suggest import similar_names
from kdfast.runs.run_dir import RunDir
from kdfast.stats.confusion import image_weights
from kdfast.stats.labels import image_f1


class NeedsSeeds(KdfastError):
    "One seed has no interval."

    reason = 'needs 2 seeds'


@dataclass(frozen=True)
class Metric:
    "A number of a run; if it is the mean of one value per image, one seed has an interval, too."

    name: str  # Value of --metric
    label: str  # In headings and remarks
    meaning: str  # In remarks, after the label; empty if the label says it
    key: str  # In result.json
    largest: Callable[[RunDir], float]  # By how much one image can change the sum of all images' values
    image_values: Callable[[RunDir], np.ndarray] | None  # (images,): their mean is the number; None: it is no mean
    several: bool = False  # Whether it is about images with several labels

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


def n_images(
    folder,  # A run
):
    "Return the number of validation images of a run."
    return folder.result.get('valid_images') or sum(map(sum, folder.confusion()[1]))


def correct_images(
    folder,  # A run
):
    "1 for each image that is classified correctly, else 0."
    return np.array(folder.correct(), float)


def weighted_correct_images(
    folder,  # A run
):
    """n / (K · images of its class) for each image that is classified correctly, else 0.

    K: classes with validation images. The mean over the n images is the balanced accuracy.
    """
    actual = folder.arrays('predictions.npz')['actual'].astype(int)
    return correct_images(folder) * image_weights(np.bincount(actual))[actual]


def largest_weight(
    folder,  # A run
):
    "Return the weight of an image of the smallest class that has validation images."
    return float(image_weights(np.sum(folder.confusion()[1], axis=1)).max())


def label_f1(
    folder,  # A run
):
    """Return the F1 of the labels of each image.

    Verdicts judge this rather than the average precision of an image: it is defined for images without labels, ties
    have no effect on it, and it is about the labels that `kdfast predict` and exported models give. An image changes
    its mean by 1 / images at most, as it does an accuracy.
    """
    found = folder.arrays('predictions.npz')
    return image_f1(found['actual'], found['predicted'])


def largest_change_of_map(
    folder,  # A run
):
    """Return by how much one image can change the mean average precision, times the images.

    For a label of P images, the average precision is the mean over these of i / rank of the i-th. One image that moves
    through all ranks changes it by less than (1 + 1/2 + … + 1/P) / P.
    """
    counts = np.array([*folder.result['label_counts'].values()])
    positives = (counts[:, 0] + counts[:, 2]).astype(int)
    changes = [np.reciprocal(np.arange(1.0, p + 1)).sum() / p for p in positives if p]
    return float(np.mean(changes)) * n_images(folder)


ACCURACY = Metric('accuracy', 'accuracy', '', 'valid_accuracy', lambda folder: 1.0, correct_images)
BALANCED = Metric(
    'balanced',
    'balanced accuracy',
    'the mean of the accuracies of the classes that have validation images',
    'valid_balanced_accuracy',
    largest_weight,
    weighted_correct_images,
)
F1 = Metric(
    'f1',
    'F1 per image',
    'the mean over the images of the F1 of their labels, each predicted if its probability is above 0.5; 1 for an '
    'image without labels for which none is predicted',
    'valid_f1',
    lambda folder: 1.0,
    label_f1,
    several=True,
)
MAP = Metric(
    'map',
    'mean average precision',
    'the mean of the average precisions of the labels; it is no mean over images, so that only several seeds have '
    'intervals',
    'valid_map',
    largest_change_of_map,
    None,
    several=True,
)
METRICS = {metric.name: metric for metric in (ACCURACY, BALANCED, F1, MAP)}
# Usual numbers that verdicts do not judge, by their names without separators
MACRO, MICRO = 'F1 (macro)', 'F1 (micro)'
NOT_JUDGED = {
    **dict.fromkeys(('macro', 'f1macro', 'macrof1'), MACRO),
    **dict.fromkeys(('micro', 'f1micro', 'microf1'), MICRO),
    **dict.fromkeys(('auc', 'auroc', 'rocauc'), 'the area under the ROC curve'),
}
IN_TABLES = MACRO, MICRO  # of several labels


NAMES_OF_MAP = 'map', 'ap', 'meanap', 'meanaverageprecision', 'averageprecision'


def metric_named(
    name: str,  # Value of --metric
    several: bool,  # Whether the images have several labels
) -> Metric:
    "Return a metric. Raises KdfastError for an unknown name, with the one to use instead."
    if name in METRICS:
        return METRICS[name]
    known = re.sub('[^a-z0-9]', '', name.lower().removeprefix('valid_'))
    if what := NOT_JUDGED.get(known):
        shown = ' is in the tables, but' if several and what in IN_TABLES else ''
        raise KdfastError(f'--metric {name}: {what}{shown} is not what verdicts judge: use {names_for(several)}')
    similar = [MAP.name] if known in NAMES_OF_MAP else similar_names(name, list(METRICS))
    hint = f'; did you mean {", ".join(similar)}?' if similar else ''
    raise KdfastError(f'--metric {name}: expected {", ".join(METRICS)}{hint}')


def names_for(
    several: bool,  # Whether the images have several labels
) -> str:
    "Return which metrics judge such images."
    return ' or '.join(metric.name for metric in METRICS.values() if metric.several == several)


def metric_for(
    folders: Sequence[RunDir],  # Runs on one data set
    name: str | None,  # Value of --metric
    default: str | None = None,  # If there is no such value, such as that of a design
) -> Metric:
    "Return the metric of these runs. Raises KdfastError for a metric of another kind of labels."
    return metric_of_kind(several_labels(folders), name or default, folders[0].data)


def metric_of_kind(
    several: bool,  # Whether the images have several labels
    name: str | None,  # Of the metric; default: accuracy or, of several labels, F1
    data: str,  # Name of the data set, for the error
) -> Metric:
    "Return a metric. Raises KdfastError for one of the other kind of labels."
    metric = metric_named(name or (F1 if several else ACCURACY).name, several)
    if metric.several == several:
        return metric
    raise KdfastError(
        f'--metric {metric.name}: the images of {data} have {"several labels" if several else "one label"} each, '
        f'expected {names_for(several)}'
    )


def paired_image_values(
    metric: Metric,  # What is compared
    folders: Sequence[RunDir],  # Finished runs
) -> list[np.ndarray]:  # (images,) of each run
    """Return the values of the same images in several runs.

    Raises NeedsSeeds for a metric without such values, and KdfastError for different images.
    """
    if metric.image_values is None:
        raise NeedsSeeds(f'{metric.label} is no mean over images, so that one seed has no interval: train 2 or more')
    for folder in folders[1:]:
        check_same_images(folders[0], folder)
    return [metric.image_values(folder) for folder in folders]


def check_same_images(
    one: RunDir,  # A finished run
    other: RunDir,  # Another
):
    "Raise KdfastError for runs on different validation images; their labels may nevertheless agree."
    same_labels = np.array_equal(*(folder.arrays('predictions.npz')['actual'] for folder in (one, other)))
    same_split = 'drawn_from' not in one.run or one.run['data_sha256'] == other.run.get('data_sha256')
    if not (same_labels and same_split):
        raise KdfastError(f'{one} and {other} were validated on different images: only runs on the same data compare')
