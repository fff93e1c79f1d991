"""Labels of images: one class of each, (n,) int64; or several labels of each, (n, classes) int8 of 0 and 1."""

import re
from collections.abc import Collection

import numpy as np

from kdfast.core.errors import KdfastError

ONE, SEVERAL, SPACES = 'one', 'several', 'spaces'  # values of --labels
KINDS = ONE, SEVERAL, SPACES
QUESTION = 'expected one class per image; if images have several labels, pass --labels several'

WHOLE_NUMBER = re.compile(r'-?\d{1,18}(\.0*)?')


def check_kind(
    labels: str | None,  # Value of --labels
):
    "Raise KdfastError for an unknown kind of labels."
    if labels not in (None, *KINDS):
        raise KdfastError(f'--labels {labels}: expected {", ".join(KINDS[:-1])} or {KINDS[-1]}')


def has_several(
    labels: np.ndarray,  # Of a split
) -> bool:
    "Return whether images have several labels."
    return np.ndim(labels) == 2


def class_counts(
    labels: np.ndarray,  # Of a split
    n_classes: int,  # Number of classes
) -> np.ndarray:  # (n_classes,)
    "Count the images of each class."
    return labels.sum(0, dtype=np.int64) if has_several(labels) else np.bincount(labels, minlength=n_classes)


def has_class(
    labels: np.ndarray,  # Of a split
    label: int,  # Number of a class
) -> np.ndarray:  # (n,), bool
    "Return which images have a class."
    return labels[:, label] == 1 if has_several(labels) else labels == label


def names_of(
    label: str | tuple[str, ...],  # Of a kdfast.data.layouts.base.Item
) -> tuple[str, ...]:
    "Return the names of the classes of an image."
    return (label,) if isinstance(label, str) else label


def in_order(
    names: Collection[str],  # Of classes that have no given order
) -> list[str]:
    "Sort the names of classes: by number if all are whole numbers, so that 2 comes before 10; else as text."
    if all(map(WHOLE_NUMBER.fullmatch, names)):
        return sorted(names, key=lambda name: (int(name.partition('.')[0]), name))
    return sorted(names)


def from_indicators(
    labels: np.ndarray,  # (n, classes)
    where: str,  # Name of the array in errors
) -> list[tuple[int, ...]]:
    "Return the numbers of the labels of each image. Raises KdfastError unless the array holds 0 and 1."
    if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        raise KdfastError(f'{where}: several labels per image are a 0 or 1 for each class, (images, classes)')
    return [tuple(np.flatnonzero(row).tolist()) for row in labels]
