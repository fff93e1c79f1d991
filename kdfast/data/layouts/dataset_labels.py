"Find the labels of map-style data sets, and the names of their classes."

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kdfast.data.layouts.dataset_items import LABEL_KEYS, read_item

LABEL_ATTRIBUTES = ('targets', '_labels', 'labels', '_targets')  # of a data set, with all labels
N_COMPARED = 32  # labels that are compared with those of items


class Labels(NamedTuple):
    "The labels of a data set."

    values: dict[int, Any]  # By the number of the item; without items that cannot be read
    names: list[str] | None  # Of the classes, if the data set defines them
    changed: bool  # Whether items have other labels than the data set stores, so that its names are of other classes


def read_labels(
    dataset,  # Map-style
    reject: Callable,  # Receives the number of an item that cannot be read, and the reason
) -> Labels:
    """Return the labels that the items of a data set have.

    Labels that it stores apart from the images are taken if a transform changes none and some items have the same ones;
    else all items are read.
    """
    stored = stored_labels(dataset)
    is_transformed = _transforms_labels(dataset)
    if stored is not None and not is_transformed:
        some = np.linspace(0, len(stored) - 1, min(N_COMPARED, len(stored))).round().astype(int).tolist()
        if not _differ(stored, _labels_of_items(dataset, some)):
            return Labels(dict(enumerate(stored)), _class_names(dataset), False)
    values = _labels_of_items(dataset, range(len(dataset)), reject)
    changed = is_transformed if stored is None else _differ(stored, values)
    return Labels(values, _class_names(dataset), changed)


def stored_labels(
    dataset,  # Map-style
) -> list | None:
    "Return the labels that a data set, or the one that it is a subset of, stores apart from the images."
    for attribute in LABEL_ATTRIBUTES:
        labels = getattr(dataset, attribute, None)
        if hasattr(labels, '__len__') and hasattr(labels, '__iter__') and len(labels) == len(dataset):
            return [plain(label) for label in labels]
    labels = stored_labels(dataset.dataset) if _is_subset(dataset) else None
    return None if labels is None else [labels[i] for i in dataset.indices]


def plain(
    label,  # Of an item
) -> Any:
    "Return a Python value for a scalar of NumPy or PyTorch."
    return label.item() if getattr(label, 'shape', None) in ((), (1,)) else label


def _is_subset(dataset):
    "Whether a data set has some items of another one as they are; others with an attribute `dataset` may change them"
    indices = getattr(dataset, 'indices', None)
    return hasattr(dataset, 'dataset') and hasattr(indices, '__len__') and len(indices) == len(dataset)


def _transforms_labels(dataset):
    "Whether a data set of torchvision, or one that it is a subset of, has a transform of labels"
    if getattr(dataset, 'target_transform', None) is not None:
        return True
    return _is_subset(dataset) and _transforms_labels(dataset.dataset)


def _labels_of_items(dataset, numbers, reject=lambda i, reason: None):
    "Labels by the number of the item, as items have them"
    values = {}
    for i in numbers:
        try:
            values[i] = plain(read_item(dataset, i)[1])
        except OSError as e:
            reject(i, str(e))
    return values


def _differ(stored, values):
    "Whether any label is another than the stored one"

    def comparable(label):
        label = label.tolist() if hasattr(label, 'tolist') else label
        return list(label) if isinstance(label, tuple) else label

    return any(comparable(stored[i]) != comparable(label) for i, label in values.items())


def _class_names(dataset):
    "Names of the classes, if the data set defines them and each is unique"
    while _is_subset(dataset) and not hasattr(dataset, 'classes'):
        dataset = dataset.dataset
    names = getattr(dataset, 'classes', None)
    if isinstance(getattr(dataset, 'features', None), dict):  # Hugging Face
        feature = next((dataset.features[key] for key in LABEL_KEYS if key in dataset.features), None)
        names = getattr(getattr(feature, 'feature', feature), 'names', None)  # of a list, those of its values
    if not isinstance(names, (list, tuple, np.ndarray)) or not len(names):
        return None
    names = [', '.join(name) if isinstance(name, (tuple, list)) else str(name) for name in names]
    return names if len(set(names)) == len(names) else None
