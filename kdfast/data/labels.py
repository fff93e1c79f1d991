"""Labels of images: one class of each, (n,) int64; or several labels of each, (n, classes) int8 of 0 and 1."""

import re
from collections.abc import Collection, Iterable

import numpy as np

from kdfast.core.errors import KdfastError

ONE, SEVERAL, SPACES = 'one', 'several', 'spaces'  # values of --labels
KINDS = ONE, SEVERAL, SPACES
QUESTION = 'expected one class per image; if images have several labels, pass --labels several'

ONES, ZEROS = ('1', '1.0', 'true'), ('0', '0.0', 'false')  # whether an image has a label, as text
UNKNOWN = '-1', '-1.0'  # among them, by a custom of medical data sets: whether it has the label is not known
INDICATORS_NOTE = 'lists of 0 and 1 are read as a 0 or 1 for each class'
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
    "Sort names of classes: by number if all are whole numbers (2 before 10), else as text."
    if all(map(WHOLE_NUMBER.fullmatch, names)):
        return sorted(names, key=lambda name: (int(name.partition('.')[0]), name))
    return sorted(names)


def is_missing(
    value,  # Of a cell or an item
) -> bool:
    "Return whether a value stands for a missing label: None, NaN, those of pandas, empty text."
    if value is None or type(value).__name__ in ('NAType', 'NaTType') or isinstance(value, str) and not value.strip():
        return True
    return not getattr(value, 'shape', ()) and bool(value != value)


def are_indicators(
    lists: list,  # All labels of each image, as numbers or text
    where: str,  # Of the labels, in errors
    n_classes: int | None = None,  # Length of the list of classes, if there is one
) -> bool:
    """Return whether lists hold a 0 or 1 for each class, instead of numbers or names of classes.

    Those do, apart from empty ones, that have one length and in which values repeat. Raises KdfastError for such lists
    that lack values, and for other lists of 0 and 1 that may be either.
    """
    lists = [[_indicator(value) for value in one] for one in lists]
    lists = [one for one in lists if set(one) - {'?'}]  # of the others nothing is known
    if not all(value in (*ONES, *ZEROS, '?') for one in lists for value in one):
        return False
    lengths, repeats = {len(one) for one in lists}, any(len(set(one)) < len(one) for one in lists)
    if repeats and (unknown := [one for one in lists if '?' in one]):
        raise KdfastError(
            f'{where}: [{", ".join(unknown[0])}] lacks values (?): expected a 0 or 1 for each class; complete such '
            'lists, or leave them empty'
        )
    n = n_classes or max(lengths, default=0)
    if repeats and lengths == {n}:
        return True
    if repeats or lengths == {2} == {n}:
        raise KdfastError(
            f'{where}: lists of 0 and 1, such as [{", ".join(max(lists, key=len))}], may be numbers of classes, or a 0 '
            'or 1 for each class: write the names of the classes instead'
        )
    return False


def _indicator(value):
    "A value as text; ? if it is missing"
    return '?' if is_missing(value) or str(value) in UNKNOWN else str(value).lower()


def positions_of_ones(
    values: Iterable,  # A 0 or 1 for each class, as numbers or text
) -> list[int]:
    "Return the numbers of the classes that an image has."
    return [i for i, value in enumerate(values) if str(value).lower() in ONES]


def from_indicators(
    labels: np.ndarray,  # (n, classes)
    where: str,  # Name of the array in errors
) -> list[tuple[int, ...]]:
    "Return the numbers of the labels of each image. Raises KdfastError unless the array holds 0 and 1."
    if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        raise KdfastError(f'{where}: several labels per image are a 0 or 1 for each class, (images, classes)')
    return [tuple(np.flatnonzero(row).tolist()) for row in labels]
