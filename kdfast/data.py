"Where images come from: the embedded digits, a folder, an archive, CIFAR-10. Decoded once, kept as memory-mapped uint8."
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kdfast.decode import decode, images_of_folder
from kdfast.errors import KdfastError

ARCHIVES = ('.tar.xz', '.tar.gz', '.tgz', '.tar', '.zip')
CACHE_VERSION = 2


@dataclass(frozen=True)
class Data:
    "A data set: two splits of equally large colour images, decoded."
    name: str                # Names the folder of its runs
    classes: list[str]       # In the order of the labels
    train: tuple             # Images (n, height, width, 3) uint8, labels (n,) int64
    valid: tuple             # The same, of the validation images
    mean: list[float]        # Of the training images, a channel each, in 0 … 1
    std: list[float]         # Likewise, their standard deviation
    flip: bool               # Whether a mirrored image still shows its class
    fingerprint: str         # SHA-256 of classes, labels and pixels
    notes: tuple = ()        # What a user should know about it

    @property
    def shape(self):
        "Height and width of an image as a network sees it"
        return self.train[0].shape[1:3]


def load(
    source:str='digits', # digits, cifar10, a folder, or an archive (.tar.xz, .tar.gz, .zip)
    holdout:float=0., # Share of the training images to validate on instead
) -> Data:
    """The data set that `source` names, decoded on its first use and memory-mapped from a cache afterwards.

    The cache lies in `$XDG_CACHE_HOME/kdfast` (`~/.cache/kdfast`), keyed by a fingerprint of the source: an
    archive's SHA-256, or a folder's names, sizes and times. Raises KdfastError, naming the file, for a missing
    path, another layout, a class that one split lacks, and an image that does not decode or differs in size.
    """
    if not 0 <= holdout < 1: raise KdfastError(f'--holdout {holdout}: expected a share of the training images, from 0 to below 1')
    data = named(source)
    return hold_out(data, holdout) if holdout else data


def named(source):
    "The data set that `source` names, whole"
    if source == 'digits': return digits()
    if source == 'cifar10': return cached('cifar10', 'torchvision CIFAR10', decode_cifar10)
    path = Path(source).expanduser()
    if not path.exists():
        raise KdfastError(f'no data at {source}: expected digits, cifar10, or the path of a folder or an archive')
    if path.is_dir(): return cached(path.resolve().name, identity_of_folder(path), partial(decode, path))
    if not path.name.lower().endswith(ARCHIVES):
        raise KdfastError(f'{source} is neither a folder nor an archive ({", ".join(ARCHIVES)})')
    with path.open('rb') as f: sha256 = hashlib.file_digest(f, 'sha256').hexdigest()
    return cached(without_suffix(path.name), sha256, partial(decode, path))


def without_suffix(name): return name[:-len(next(s for s in ARCHIVES if name.lower().endswith(s)))]


def run_name(name): return re.sub(r'[^A-Za-z0-9._-]+', '_', name).strip('.') or 'data'


# Digits

def digits() -> Data:
    """Scikit-learn's 1,797 handwritten digits (8×8 grey), doubled to 16×16: every third one trains, the rest validate.

    So few train that the recipes differ; all of it comes with scikit-learn and needs no network.
    """
    from sklearn.datasets import load_digits
    grey,labels = load_digits(return_X_y=True)
    large = [Image.fromarray(np.uint8(image.reshape(8, 8) * 255 / 16)).resize((16, 16), Image.BILINEAR).convert('RGB')
             for image in grey]
    images,labels = np.stack([np.asarray(image) for image in large]),labels.astype(np.int64)
    train = np.arange(len(labels)) % 3 == 0
    return assemble('digits', [str(d) for d in range(10)], (images[train], labels[train]),
                    (images[~train], labels[~train]), flip=False)


def assemble(name, classes, train, valid, flip=True):
    scaled = [train[0][..., channel].mean(dtype=float) / 255 for channel in range(3)]
    spread = [train[0][..., channel].std(dtype=float) / 255 for channel in range(3)]
    return Data(name, classes, train, valid, [float(m) for m in scaled], [float(s) or 1. for s in spread], flip,
                fingerprint(classes, train, valid))


def fingerprint(classes, *splits):
    "SHA-256 of what a network is shown: equal for a folder and an archive of the same images"
    sha256 = hashlib.sha256(json.dumps(classes).encode())
    for images,labels in splits:
        sha256.update(str(images.shape).encode())
        sha256.update(np.ascontiguousarray(labels))
        for part in np.array_split(images, max(1, len(images)//1000)): sha256.update(np.ascontiguousarray(part))
    return sha256.hexdigest()


def hold_out(
    data:Data, # A data set
    share:float, # Of its training images, above 0 and below 1
) -> Data:
    """Validate on a share of the training images, class by class: options can be chosen, the validation images stay unseen.

    The same images for every seed and recipe; the data set's name says which share, so that its runs stay apart.
    Raises KdfastError where a class would have no image left to train on or none to validate on.
    """
    images,labels = data.train
    held = np.zeros(len(labels), bool)
    for label,name in enumerate(data.classes):
        of_class = np.random.default_rng(label).permutation(np.flatnonzero(labels == label))
        n = round(share*len(of_class))
        if not 0 < n < len(of_class):
            raise KdfastError(f'--holdout {share} takes {n} of the {len(of_class)} training images of {name}: expected at least one, and one left')
        held[of_class[:n]] = True
    train,valid = ((images[rows], labels[rows]) for rows in (~held, held))
    return assemble(f'{data.name},holdout={share}', data.classes, train, valid, data.flip)


# The cache

def cache_home() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'kdfast'


def cached(name, identity, decode_into):
    "The decoded data set of that identity; decoded into a new folder first, which appears whole or not at all"
    folder = cache_home() / hashlib.sha256(f'{CACHE_VERSION} {identity}'.encode()).hexdigest()[:16]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix='new-'))
        try:
            classes,notes = decode_into(new)
            train,valid = (arrays(new, split) for split in ('train', 'valid'))
            data = assemble(name, classes, train, valid)
            notes += leaked(train[0], valid[0])
            for note in notes: print(f'kdfast: {note}', file=sys.stderr)
            facts = dict(classes=classes, mean=data.mean, std=data.std, fingerprint=data.fingerprint, notes=notes)
            (new/'data.json').write_text(json.dumps(facts, indent=1))
            if not folder.exists(): os.replace(new, folder)
        finally: shutil.rmtree(new, ignore_errors=True)
    facts = json.loads((folder/'data.json').read_text())
    return Data(run_name(name), train=arrays(folder, 'train'), valid=arrays(folder, 'valid'), flip=True, **facts)


def leaked(train, valid):
    "A note where validation images were trained on"
    seen = {hashlib.sha256(image).digest() for image in train}
    n = sum(hashlib.sha256(image).digest() in seen for image in valid)
    return [f'validation images that are training images, too: {n:,} of {len(valid):,}'] if n else []


def arrays(folder, split):
    return np.load(folder/f'{split}_images.npy', mmap_mode='r'),np.load(folder/f'{split}_labels.npy')


def decode_cifar10(folder):
    "The official images, by torchvision's checksummed downloader"
    from torchvision.datasets import CIFAR10
    try: splits = {split: CIFAR10(cache_home()/'torchvision', train=split=='train', download=True) for split in ('train', 'valid')}
    except (OSError, RuntimeError) as e:
        raise KdfastError(f'CIFAR-10 could not be downloaded from {CIFAR10.url} ({e}): '
                          f'go online once, or pass a copy with --data PATH') from e
    for split,images in splits.items():
        np.save(folder/f'{split}_images.npy', images.data)
        np.save(folder/f'{split}_labels.npy', np.array(images.targets))
    return splits['train'].classes,[]


def identity_of_folder(path):
    "Names, sizes and times of the files: cheap to ask at every start, and different after any change"
    try: stats = [(name, file.stat()) for name,file in images_of_folder(path)]
    except FileNotFoundError as e: raise KdfastError(f'{path}: {Path(e.filename).relative_to(path)} is a link to nothing: remove it') from e
    return json.dumps([str(path.resolve()), *((name, s.st_size, s.st_mtime_ns) for name,s in stats)])

