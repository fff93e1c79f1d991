"Map-style data sets of PyTorch, torchvision and Hugging Face, and arrays: images and labels by their number."

from functools import partial

import numpy as np
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.data.layouts.base import Item, Listing, Source

# keys of an item that is a dict
IMAGES, LABELS = (
    ('image', 'img', 'pixel_values', 'pixels', 'x', 'images'),
    ('label', 'labels', 'fine_label', 'class', 'target', 'y'),
)


TARGETS = 'targets', '_labels', 'labels', '_targets'


def listing(
    splits: dict,  # Data sets by split: train, valid, test
    classes: list[str] | None,  # Names, in the order of the labels, where the data sets do not say
    source: Source,
) -> Listing:
    "Every image of the data sets. Raises KdfastError where items are no images with labels, or differ each time."
    classes = classes or names(splits['train'])
    items = []
    for split, dataset in splits.items():
        if not hasattr(dataset, '__getitem__') or not hasattr(dataset, '__len__'):
            raise KdfastError(
                f'{source.path}: the {split} data set has no length or cannot be indexed: expected a '
                'map-style torch.utils.data.Dataset'
            )
        same_each_time(dataset, f'{source.path}: the {split} data set')
        labels = labels_of(dataset)
        width = len(str(len(labels)))
        for i, label in enumerate(labels):
            items.append(
                Item(
                    f'{split}/{i:0{width}}',
                    split,
                    name_of(label, classes, source, split, i),
                    partial(image, dataset, i),
                )
            )
    return Listing('a data set of PyTorch', items, classes)


def names(dataset):
    "The names of its classes, where it has them"
    if hasattr(dataset, 'features'):  # of Hugging Face
        feature = next((dataset.features[key] for key in LABELS if key in dataset.features), None)
        return list(getattr(feature, 'names', None) or []) or None
    while hasattr(dataset, 'dataset') and not hasattr(dataset, 'classes'):
        dataset = dataset.dataset  # a Subset
    found = getattr(dataset, 'classes', None)
    if not found:
        return None
    found = [', '.join(name) if isinstance(name, (tuple, list)) else str(name) for name in found]
    return found if len(set(found)) == len(found) else None


def labels_of(dataset):
    "The label of every item, without its image where the data set has them apart"
    for name in TARGETS:
        found = getattr(dataset, name, None)
        if found is not None and not callable(found) and len(found) == len(dataset):
            return [plain(label) for label in found]
    if hasattr(dataset, 'indices') and hasattr(dataset, 'dataset'):  # a Subset
        whole = labels_of(dataset.dataset)
        return [whole[i] for i in dataset.indices]
    return [plain(parts(dataset[i])[1]) for i in range(len(dataset))]


def plain(label):
    return label.item() if getattr(label, 'shape', None) in ((), (1,)) else label  # of NumPy and PyTorch


def name_of(label, classes, source, split, i):
    "The name of a class, of its number or of its name"
    if isinstance(label, (bool, str)):
        return str(label)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, int):
        raise KdfastError(
            f'{source.path}: the label of {split} image {i} is {label!r:.60}: expected the number or '
            'the name of one class'
        )
    if classes and not 0 <= label < len(classes):
        raise KdfastError(
            f'{source.path}: the label of {split} image {i} is {label}, and there are {len(classes)} classes'
        )
    return classes[label] if classes else str(label)


def parts(item):
    "(image, label) of an item: the first two of a tuple, or by their keys"
    if isinstance(item, dict):
        keys = [next((key for key in known if key in item), None) for known in (IMAGES, LABELS)]
        if None in keys:
            raise KdfastError(f'an item of the data set has {", ".join(item)}: expected image and label')
        return [item[key] for key in keys]
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise KdfastError(f'an item of the data set is a {type(item).__name__}: expected (image, label)')
    return item[:2]


def same_each_time(dataset, where):
    "Raise KdfastError where the first image is another one each time: kdfast augments by itself"
    if not len(dataset):
        raise KdfastError(f'{where} is empty')
    first, again = (np.asarray(parts(dataset[0])[0]) for _ in range(2))
    if first.shape != again.shape or first.tobytes() != again.tobytes():
        raise KdfastError(f'{where} gives another image each time: take its random transforms away')


def image(dataset, i):
    "Pixels that can be decoded: of Pillow, NumPy or PyTorch"
    found = parts(dataset[i])[0]
    return found if isinstance(found, Image.Image) else np.asarray(found)
