"List the images of map-style data sets: PyTorch, torchvision, Hugging Face, and pairs of arrays."

from functools import partial

import numpy as np
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.data.labels import from_indicators
from kdfast.data.layouts.base import Item, Listing, Source

# Keys of an item that is a dict
IMAGE_KEYS = ('image', 'img', 'pixel_values', 'pixels', 'x', 'images')
LABEL_KEYS = ('label', 'labels', 'fine_label', 'class', 'target', 'y')

# Attributes of a data set that hold all labels
LABEL_ATTRIBUTES = ('targets', '_labels', 'labels', '_targets')


def list_datasets(
    splits: dict,  # Data sets by split: train, valid, test
    classes: list[str] | None,  # Names in the order of the labels, if the data sets do not define them
    source: Source,  # Files of the data set
) -> Listing:
    """List every image of the data sets.

    Raises KdfastError if items are not pairs of image and label, or if images change from one access to the next.
    """
    classes = classes or _class_names(splits['train'])
    items = []
    for split, dataset in splits.items():
        where = f'{source.path}: the {split} data set'
        if not hasattr(dataset, '__getitem__') or not hasattr(dataset, '__len__'):
            raise KdfastError(
                f'{where} has no length or cannot be indexed: expected a map-style torch.utils.data.Dataset'
            )
        _check_deterministic(dataset, where)
        labels = _all_labels(dataset)
        width = len(str(len(labels)))
        for i, label in enumerate(labels):
            of_image = f'{source.path}: the label of {split} image {i} is'
            name = _label_names(label, classes, of_image) if source.several else _class_name(label, classes, of_image)
            items.append(Item(f'{split}/{i:0{width}}', split, name, partial(_image, dataset, i)))
    return Listing('a data set of PyTorch', items, classes)


def _class_names(dataset):
    "Names of the classes, if the data set defines them and each is unique"
    if hasattr(dataset, 'features'):  # Hugging Face
        feature = next((dataset.features[key] for key in LABEL_KEYS if key in dataset.features), None)
        return list(getattr(feature, 'names', None) or []) or None
    while hasattr(dataset, 'dataset') and not hasattr(dataset, 'classes'):
        dataset = dataset.dataset  # a Subset
    names = getattr(dataset, 'classes', None)
    if not names:
        return None
    names = [', '.join(name) if isinstance(name, (tuple, list)) else str(name) for name in names]
    return names if len(set(names)) == len(names) else None


def _all_labels(dataset):
    "The label of every item; read without the images if the data set stores labels separately"
    for attribute in LABEL_ATTRIBUTES:
        labels = getattr(dataset, attribute, None)
        if labels is not None and not callable(labels) and len(labels) == len(dataset):
            return [_plain(label) for label in labels]
    if hasattr(dataset, 'indices') and hasattr(dataset, 'dataset'):  # a Subset
        labels = _all_labels(dataset.dataset)
        return [labels[i] for i in dataset.indices]
    return [_plain(_image_and_label(dataset[i])[1]) for i in range(len(dataset))]


def _plain(label):
    "A Python value for a scalar of NumPy or PyTorch"
    return label.item() if getattr(label, 'shape', None) in ((), (1,)) else label


def _label_names(labels, classes, where):
    "The names of all labels of an image: of a list of numbers or names, or of an array with a 0 or 1 for each class"
    if hasattr(labels, 'shape') and len(labels.shape) == 1:
        (labels,) = from_indicators(np.asarray(labels)[None], where)
    if not isinstance(labels, (list, tuple, set, frozenset)):
        raise KdfastError(f'{where} {labels!r:.60}: expected a list of labels, or a 0 or 1 for each class')
    return tuple(dict.fromkeys(_class_name(_plain(label), classes, where) for label in labels))


def _class_name(label, classes, where):
    "The name of a class, given its number or its name"
    if isinstance(label, (bool, str)):
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


def _image_and_label(item):
    "(image, label) of an item: the first two values of a tuple, or two values of a dict"
    if isinstance(item, dict):
        image_key = next((key for key in IMAGE_KEYS if key in item), None)
        label_key = next((key for key in LABEL_KEYS if key in item), None)
        if image_key is None or label_key is None:
            raise KdfastError(f'an item of the data set has the keys {", ".join(item)}: expected image and label')
        return item[image_key], item[label_key]
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise KdfastError(f'an item of the data set is a {type(item).__name__}: expected (image, label)')
    return item[:2]


def _check_deterministic(dataset, where):
    "Raise KdfastError for an empty data set, or one whose first image differs between two accesses"
    if not len(dataset):
        raise KdfastError(f'{where} is empty')
    first, again = (np.asarray(_image_and_label(dataset[0])[0]) for _ in range(2))
    if first.shape != again.shape or first.tobytes() != again.tobytes():
        raise KdfastError(
            f'{where} returns different pixels each time: remove its random transforms (kdfast augments by itself)'
        )


def _image(dataset, i):
    "A PIL image or an array of pixels"
    image = _image_and_label(dataset[i])[0]
    return image if isinstance(image, Image.Image) else np.asarray(image)
