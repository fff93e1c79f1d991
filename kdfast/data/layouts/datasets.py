"List the images of map-style data sets: PyTorch, torchvision, Hugging Face, and pairs of arrays."

from functools import partial

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.data.labels import INDICATORS_NOTE, are_indicators, from_indicators, is_missing, positions_of_ones
from kdfast.data.layouts.arrays import ArrayPair
from kdfast.data.layouts.base import Item, Listing, Source
from kdfast.data.layouts.dataset_items import check_deterministic, open_image
from kdfast.data.layouts.dataset_labels import Labels, plain, read_labels


def list_datasets(
    splits: dict,  # Data sets by split: train, valid, test
    classes: list[str] | None,  # Names in the order of the labels, if the data sets do not define them
    source: Source,  # Files of the data set
) -> Listing:
    """List every image of the data sets.

    Raises KdfastError if items are not pairs of image and label, if images change from one access to the next, and for
    items that cannot be read.
    """
    labels = {split: _read_labels(split, dataset, source) for split, dataset in splits.items()}
    source.check()
    known = classes or labels['train'].names
    if source.several:
        labels = _in_lists(labels, known, source)
    items = []
    for split, of_split in labels.items():
        names = classes or known and (None if of_split.changed else of_split.names or known)
        for i, label in of_split.values.items():
            of_image = f'{source.path}: the label of {split} image {i} is'
            if source.several:
                name = _label_names(label, names, of_image)
            else:
                is_unlabeled = split == 'test' and (
                    is_missing(label) or bool(names) and label is not None and label == -1
                )
                name = '' if is_unlabeled else _class_name(label, names, of_image)
            items.append(Item(_item_name(split, i, splits), split, name, partial(open_image, splits[split], i)))
    return Listing('a data set of PyTorch', items, known)


def _read_labels(split, dataset, source):
    "The labels of a split, with names of classes that are right for them; adds a note on those that are not"
    where = f'{source.path}: the {split} data set'
    if not hasattr(dataset, '__getitem__') or not hasattr(dataset, '__len__'):
        raise KdfastError(f'{where} has no length or cannot be indexed: expected a map-style torch.utils.data.Dataset')
    check_deterministic(dataset, where)
    if isinstance(dataset, ArrayPair):
        return Labels(dict(enumerate(map(plain, dataset.targets))), None, False)
    labels = read_labels(dataset, lambda i, reason: source.reject(_item_name(split, i, {split: dataset}), reason))
    if not labels.changed:
        return labels
    if labels.names:
        source.notes.add('data sets that change their labels, so that their names of classes are not used', split)
    return labels._replace(names=None)


def _item_name(split, i, splits):
    return f'{split}/{i:0{len(str(len(splits[split])))}}'


def _in_lists(labels, known, source):
    "The labels of each image as a list of numbers or names, also of those that have a 0 or 1 for each class"
    values = [label for of_split in labels.values() for label in of_split.values.values()]
    where = f'{source.path}: the labels'
    _check_arrays([np.asarray(label) for label in values if _is_vector(label)], known, where)
    lists = [[plain(one) for one in label] for label in values if isinstance(label, list | tuple)]
    indicators = are_indicators(lists, where, known and len(known))
    if indicators:
        source.notes.add(INDICATORS_NOTE, '')

    def in_list(label):
        if _is_vector(label):
            return np.flatnonzero(np.asarray(label)).tolist()
        return positions_of_ones(map(plain, label)) if indicators and isinstance(label, list | tuple) else label

    return {
        split: of_split._replace(values={i: in_list(label) for i, label in of_split.values.items()})
        for split, of_split in labels.items()
    }


def _check_arrays(arrays, known, where):
    "Raise KdfastError unless labels that are arrays have a 0 or 1 for each class"
    lengths = sorted({len(array) for array in arrays})
    if len(lengths) > 1 or known and lengths and lengths != [len(known)]:
        found = ' and '.join(map(str, lengths)) + (f', but there are {len(known)} classes' if known else '')
        raise KdfastError(f'{where} are arrays of length {found}: expected a 0 or 1 for each class')
    if arrays:
        from_indicators(np.stack(arrays), where)


def _is_vector(label):
    return len(getattr(label, 'shape', ())) == 1


def _label_names(labels, classes, where):
    "The names of all labels of an image, given their numbers or names"
    if is_missing(labels):
        return ()
    if not isinstance(labels, (list, tuple, set, frozenset)):
        raise KdfastError(f'{where} {labels!r:.60}: expected a list of labels, or a 0 or 1 for each class')
    present = [label for label in map(plain, labels) if not is_missing(label)]
    return tuple(dict.fromkeys(_class_name(label, classes, where) for label in present))


def _class_name(label, classes, where):
    "The name of a class, given its number or its name"
    if isinstance(label, (bool, str)) and not is_missing(label):
        return str(label)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, int):
        raise KdfastError(
            f'{where} {label!r:.60}: expected the number or the name of one class; if '
            'images have several labels, pass --labels several (labels="several" in Python)'
        )
    if classes and not 0 <= label < len(classes):
        raise KdfastError(f'{where} {label}, but there are {len(classes)} classes')
    return classes[label] if classes else str(label)
