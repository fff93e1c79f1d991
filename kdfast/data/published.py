"Published data sets by name, in torchvision's checksummed downloads: those with a split to validate or test on."

import os
from functools import partial
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.data.decode import Reading, decode_listing
from kdfast.data.layouts.datasets import listing

TRAIN_TEST = dict(train=dict(train=True), test=dict(train=False))
NAMED_SPLITS = dict(train=dict(split='train'), test=dict(split='test'))
THREE = dict(train=dict(split='train'), valid=dict(split='val'), test=dict(split='test'))


NAMES = {  # torchvision's class, and what it is called with for each split
    'cifar10': ('CIFAR10', TRAIN_TEST),
    'cifar100': ('CIFAR100', TRAIN_TEST),
    'mnist': ('MNIST', TRAIN_TEST),
    'fashionmnist': ('FashionMNIST', TRAIN_TEST),
    'kmnist': ('KMNIST', TRAIN_TEST),
    'usps': ('USPS', TRAIN_TEST),
    'emnist': ('EMNIST', {split: dict(split='balanced', **how) for split, how in TRAIN_TEST.items()}),
    'svhn': ('SVHN', NAMED_SPLITS),
    'stl10': ('STL10', NAMED_SPLITS),
    'gtsrb': ('GTSRB', NAMED_SPLITS),
    'food101': ('Food101', NAMED_SPLITS),
    'stanfordcars': ('StanfordCars', NAMED_SPLITS),
    'renderedsst2': ('RenderedSST2', THREE),
    'pcam': ('PCAM', THREE),
    'flowers102': ('Flowers102', THREE),
    'dtd': ('DTD', THREE),
    'fgvcaircraft': ('FGVCAircraft', THREE),
    'country211': ('Country211', dict(train=dict(split='train'), valid=dict(split='valid'), test=dict(split='test'))),
    'oxfordiiitpet': ('OxfordIIITPet', dict(train=dict(split='trainval'), test=dict(split='test'))),
}


DIGITS = [str(digit) for digit in range(10)]
CLASSES = dict(svhn=DIGITS, usps=DIGITS, mnist=DIGITS)  # where torchvision does not say, or in other words


def identity(name):
    return f'torchvision {NAMES[name][0]}'


def decode(
    name: str,  # One of NAMES
    reading: Reading,
    folder: Path,  # Where the arrays go
    side: int | None = None,  # Scale images to squares of this side
) -> dict:  # As kdfast.data.decode.decode
    "Download a data set on its first use, and decode it. Raises KdfastError where there is no network."
    from kdfast.core.cache_home import cache_home

    kind, splits = NAMES[name]
    found = {split: fetch(kind, how, cache_home() / 'torchvision') for split, how in splits.items()}
    return decode_listing(Path(name), partial(listing, found, CLASSES.get(name)), reading, folder, side)


def fetch(kind, how, root):
    from torchvision import datasets

    made = getattr(datasets, kind)
    os.makedirs(root, exist_ok=True)
    try:
        return made(root, download=True, **how)
    except (OSError, RuntimeError, ValueError) as e:
        where = getattr(made, 'url', None) or getattr(made, '_URL', None) or 'the servers that torchvision knows'
        raise KdfastError(
            f'{kind} could not be downloaded from {where} '
            f'({str(e).splitlines()[0] if str(e) else type(e).__name__}): '
            'go online once, or pass its official archive with --data PATH'
        ) from e
