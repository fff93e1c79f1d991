"Load published data sets by name, in torchvision's checksummed downloads."

import os
from functools import partial
from pathlib import Path

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data.arrangement import Arrangement
from kdfast.data.decode import Reading, arrange_listing, decode_arrangement
from kdfast.data.layouts.base import Source
from kdfast.data.layouts.datasets import list_datasets

TRAIN_TEST = dict(train=dict(train=True), test=dict(train=False))
NAMED_SPLITS = dict(train=dict(split='train'), test=dict(split='test'))
THREE_SPLITS = dict(train=dict(split='train'), valid=dict(split='val'), test=dict(split='test'))

# The class in torchvision.datasets, and its arguments for each split
NAMES = {
    'cifar10': ('CIFAR10', TRAIN_TEST),
    'cifar100': ('CIFAR100', TRAIN_TEST),
    'mnist': ('MNIST', TRAIN_TEST),
    'fashionmnist': ('FashionMNIST', TRAIN_TEST),
    'kmnist': ('KMNIST', TRAIN_TEST),
    'usps': ('USPS', TRAIN_TEST),
    'emnist': ('EMNIST', {split: dict(split='balanced', **arguments) for split, arguments in TRAIN_TEST.items()}),
    'svhn': ('SVHN', NAMED_SPLITS),
    'stl10': ('STL10', NAMED_SPLITS),
    'gtsrb': ('GTSRB', NAMED_SPLITS),
    'food101': ('Food101', NAMED_SPLITS),
    'stanfordcars': ('StanfordCars', NAMED_SPLITS),
    'renderedsst2': ('RenderedSST2', THREE_SPLITS),
    'pcam': ('PCAM', THREE_SPLITS),
    'flowers102': ('Flowers102', THREE_SPLITS),
    'dtd': ('DTD', THREE_SPLITS),
    'fgvcaircraft': ('FGVCAircraft', THREE_SPLITS),
    'country211': ('Country211', dict(train=dict(split='train'), valid=dict(split='valid'), test=dict(split='test'))),
    'oxfordiiitpet': ('OxfordIIITPet', dict(train=dict(split='trainval'), test=dict(split='test'))),
}

DIGITS = [str(digit) for digit in range(10)]
CLASSES = dict(svhn=DIGITS, usps=DIGITS, mnist=DIGITS)  # if torchvision has no names, or longer ones


def cache_identity(
    name: str,  # One of NAMES
) -> str:
    "Return what the cache key of a data set consists of."
    return f'torchvision {NAMES[name][0]}'


def decode(
    name: str,  # One of NAMES
    reading: Reading,  # How to read the images
    folder: Path,  # Where the arrays go
    side: int | None = None,  # Scale images to squares of this side
) -> dict:  # As kdfast.data.decode.decode
    "Download a data set on its first use, and decode it. Raises KdfastError if the download fails."
    return decode_arrangement(*find_images(name, reading), reading, folder, side)


def find_images(
    name: str,  # One of NAMES
    reading: Reading,  # How to read the images
) -> tuple[Source, Arrangement]:
    "Download a data set on its first use, and return its images. Raises KdfastError without it."
    class_name, splits = NAMES[name]
    root = cache_home() / 'torchvision'
    datasets = {split: _download(class_name, arguments, root) for split, arguments in splits.items()}
    return arrange_listing(Path(name), partial(list_datasets, datasets, CLASSES.get(name)), reading)


def _download(class_name, arguments, root):
    "A data set of torchvision"
    from torchvision import datasets

    dataset_class = getattr(datasets, class_name)
    os.makedirs(root, exist_ok=True)
    try:
        return dataset_class(root, download=True, **arguments)
    except (OSError, RuntimeError, ValueError) as e:
        url = getattr(dataset_class, 'url', None) or getattr(dataset_class, '_URL', None) or "torchvision's servers"
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise KdfastError(
            f'{class_name} could not be downloaded from {url} ({reason}): '
            'go online once, or pass its official archive with --data PATH'
        ) from e
