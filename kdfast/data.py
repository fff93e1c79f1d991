"Where images come from: the embedded digits, a folder, an archive, CIFAR-10. Decoded once, kept as memory-mapped uint8."
import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kdfast import imagenette
from kdfast.arrays import Rows, fingerprint, shared, statistics
from kdfast.decode import check_room, decode, square
from kdfast.errors import KdfastError
from kdfast.files import files_of_folder
from kdfast.layout import no_validation
from kdfast.once import facts_once, folder_once
from kdfast.runs import sha256

ARCHIVES = ('.tar.xz', '.tar.gz', '.tgz', '.tar', '.zip')
CACHE_VERSION = 2
SMALLEST,LARGEST = 8,1024 # --size
GROWN = 3/4 # of the epochs, after which images are shown whole
LARGEST_DIGITS = 64 # they are drawn 8×8, and are not kept on disk


@dataclass(frozen=True)
class Data:
    "A data set: two splits of equally large colour images, decoded."
    name: str                # Names the folder of its runs
    classes: list[str]       # In the order of the labels
    train: tuple             # Images (n, height, width, 3) uint8, labels (n,) int64; each an array on disk, or rows of one
    valid: tuple             # The same, of the validation images
    mean: list[float]        # Of the training images, a channel each, in 0 … 1
    std: list[float]         # Likewise, their standard deviation
    flip: bool               # Whether a mirrored image still shows its class
    fingerprint: str         # SHA-256 of classes, labels and pixels
    notes: tuple = ()        # What a user should know about it
    size: int|None = None    # Networks see squares of this side, cut out of the decoded ones; None: all that is decoded
    grow: float = 1.         # Share of their height and width at which training begins to show them; 1: as they are throughout
    asked: dict|None = None  # What `load` was called with

    @property
    def shape(self):
        "Height and width of an image as a network sees it"
        return (self.size, self.size) if self.size else self.train[0].shape[1:3]

    def shape_at(self,
        progress:float, # Share of the epochs that training has behind it
    ) -> tuple[int,int]:
        "Height and width at which training shows images then: multiples of 4 that grow evenly, and are whole for the last quarter."
        if self.grow == 1 or progress >= GROWN: return self.shape
        share = self.grow + (1 - self.grow)*progress/GROWN
        return tuple(min(side, max(4, 4*round(share*side/4))) for side in self.shape)

    def shown(self, images):
        "Decoded images (…, height, width, 3) as validation shows them"
        return central(images, self.size) if self.size else images


def central(
    images:np.ndarray, # (…, height, width, channels)
    size:int, # Pixels
) -> np.ndarray:
    "The central square of each, a view."
    top,left = ((side - size)//2 for side in images.shape[-3:-1])
    return images[..., top:top + size, left:left + size, :]


def presized(
    size:int, # At which networks see images
) -> int:
    "The side of the squares that are kept: room for a random crop of `size`, in fastai's usual proportion."
    return round(size*8/7)


def load(
    source:str='digits', # digits, cifar10, imagenette, imagewoof, a folder, or an archive (.tar.xz, .tar.gz, .zip)
    holdout:float=0., # Share of the training images to validate on instead
    size:int|None=None, # Take images of any size, and show networks squares of this side
    grow:float=1., # Share of height and width at which training begins to show images, above 0; 1 for none of it
) -> Data:
    """The data set that `source` names, decoded on its first use and memory-mapped from a cache afterwards.

    With a `size`, images are kept as fastai presizes them: scaled so that the shorter side is 8/7 of it, the central
    square. Training crops them at random, validation centrally, to `size`.
    With `grow`, training shows them scaled down at first, and whole for the last quarter of the epochs (progressive resizing).
    The cache lies in `$XDG_CACHE_HOME/kdfast` (`~/.cache/kdfast`), keyed by the size and a fingerprint of the source: an
    archive's SHA-256, or a folder's names, sizes and times. Raises KdfastError, naming the file, for a missing
    path, another layout, a class that one split lacks, and an image that does not decode or differs in size.
    """
    if not 0 <= holdout < 1: raise KdfastError(f'--holdout {holdout}: expected a share of the training images, from 0 to below 1')
    if size is not None and not SMALLEST <= size <= LARGEST: raise KdfastError(f'--size {size}: expected {SMALLEST} to {LARGEST} pixels')
    if not 0 < grow <= 1: raise KdfastError(f'--grow {grow}: expected a share of the images\' height and width, above 0 and up to 1')
    data = named(source, size, bool(holdout))
    if not holdout and not len(data.valid[1]): raise no_validation(source)
    where = str(Path(source).expanduser().resolve()) if Path(source).expanduser().exists() else source
    if holdout: data = hold_out(data, holdout)
    if grow < 1: data = replace(data, name=f'{data.name},grow={grow}', grow=grow)
    return replace(data, asked=dict(source=where, holdout=holdout, size=size, grow=grow))


def named(source, size, alone):
    "The data set that `source` names, whole; training images alone will do where some of them are to be held out"
    if source == 'digits': return digits(size)
    if source == 'cifar10': return cached('cifar10', 'torchvision CIFAR10', decode_cifar10, size)
    if source in imagenette.URLS:
        if size is None: raise KdfastError(f'{source} holds photographs of any size: say at which networks should see them, such as --size 128')
        path = imagenette.fetch(source)
        return cached(source, f'{source} {sha256(path)}', partial(imagenette.decode_words, path, alone), size)
    path = Path(source).expanduser()
    if not path.exists():
        raise KdfastError(f'no data at {source}: expected digits, cifar10, {", ".join(imagenette.URLS)}, or the path of a folder or an archive')
    if path.is_dir(): return cached(path.resolve().name, identity_of_folder(path), partial(decode, path, alone), size)
    if not path.name.lower().endswith(ARCHIVES):
        raise KdfastError(f'{source} is neither a folder nor an archive ({", ".join(ARCHIVES)})')
    return cached(without_suffix(path.name), sha256(path), partial(decode, path, alone), size)


def without_suffix(name): return name[:-len(next(s for s in ARCHIVES if name.lower().endswith(s)))]


def run_name(name, size):
    "What names the folder of the runs on it: runs at another size are others"
    return (re.sub(r'[^A-Za-z0-9._-]+', '_', name).strip('.') or 'data') + (f',size={size}' if size else '')


# Digits

def digits(
    size:int|None=None, # Scale them, as photographs are
) -> Data:
    """Scikit-learn's 1,797 handwritten digits (8×8 grey), doubled to 16×16: every third one trains, the rest validate.

    So few train that the recipes differ; all of it comes with scikit-learn and needs no network.
    """
    if size and size > LARGEST_DIGITS: raise KdfastError(f'--size {size}: the digits are drawn 8×8; expected at most {LARGEST_DIGITS}')
    from sklearn.datasets import load_digits
    grey,labels = load_digits(return_X_y=True)
    large = [Image.fromarray(np.uint8(image.reshape(8, 8) * 255 / 16)).resize((16, 16), Image.BILINEAR).convert('RGB')
             for image in grey]
    if size: large = [square(image, presized(size)) for image in large]
    images,labels = np.stack([np.asarray(image) for image in large]),labels.astype(np.int64)
    train = np.arange(len(labels)) % 3 == 0
    return assemble(run_name('digits', size), [str(d) for d in range(10)], (images[train], labels[train]),
                    (images[~train], labels[~train]), flip=False, size=size)


def assemble(name, classes, train, valid, flip=True, size=None):
    mean,std = statistics(train[0])
    return Data(name, classes, train, valid, mean, std, flip, fingerprint(classes, train, valid), size=size)


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
    train,valid = ((Rows(images, np.flatnonzero(rows)), labels[rows]) for rows in (~held, held))
    def find(): # takes long for many images
        mean,std = statistics(train[0])
        return dict(mean=mean, std=std, fingerprint=fingerprint(data.classes, train, valid))
    key = hashlib.sha256(data.fingerprint.encode() + held.tobytes()).hexdigest()[:16]
    facts = facts_once(Path(images.filename).parent/f'holdout-{key}.json', find) if isinstance(images, np.memmap) else find()
    return replace(data, name=f'{data.name},holdout={share}', train=train, valid=valid, notes=(), **facts)


# The cache

def cache_home() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'kdfast'


def cached(name, identity, decode_into, size):
    "The decoded data set of that identity; decoded into a new folder first, which appears whole or not at all"
    key = f'{CACHE_VERSION} {identity}' + (f' size={size}' if size else '')
    folder = cache_home() / hashlib.sha256(key.encode()).hexdigest()[:16]
    def fill(new):
        classes,notes = decode_into(new, size and presized(size))
        train,valid = (arrays(new, split) for split in ('train', 'valid'))
        data = assemble(name, classes, train, valid)
        notes += leaked(train[0], valid[0])
        for note in notes: print(f'kdfast: {note}', file=sys.stderr)
        facts = dict(classes=classes, mean=data.mean, std=data.std, fingerprint=data.fingerprint, notes=notes)
        (new/'data.json').write_text(json.dumps(facts, indent=1))
    folder_once(folder, fill)
    facts = json.loads((folder/'data.json').read_text())
    return Data(run_name(name, size), train=arrays(folder, 'train'), valid=arrays(folder, 'valid'), flip=True, size=size, **facts)


def leaked(train, valid):
    "A note where validation images were trained on"
    n = shared(train, valid)
    return [f'validation images that are training images, too: {n:,} of {len(valid):,}'] if n else []


def arrays(folder, split):
    return np.load(folder/f'{split}_images.npy', mmap_mode='r'),np.load(folder/f'{split}_labels.npy')


def decode_cifar10(folder, side):
    "The official images, by torchvision's checksummed downloader"
    from torchvision.datasets import CIFAR10
    try: splits = {split: CIFAR10(cache_home()/'torchvision', train=split=='train', download=True) for split in ('train', 'valid')}
    except (OSError, RuntimeError) as e:
        raise KdfastError(f'CIFAR-10 could not be downloaded from {CIFAR10.url} ({e}): '
                          f'go online once, or pass a copy with --data PATH') from e
    if side: check_room(folder, 3*side*side*sum(len(images.data) for images in splits.values()))
    for split,images in splits.items():
        if side: scale(images.data, side, folder/f'{split}_images.npy')
        else: np.save(folder/f'{split}_images.npy', images.data)
        np.save(folder/f'{split}_labels.npy', np.array(images.targets))
    return splits['train'].classes,[]


def scale(images, side, file):
    "Write them as squares of that side"
    scaled = np.lib.format.open_memmap(file, 'w+', np.uint8, (len(images), side, side, 3))
    for row,image in enumerate(images): scaled[row] = np.asarray(square(Image.fromarray(image), side))
    scaled.flush()


def identity_of_folder(path):
    "Names, sizes and times of the files: cheap to ask at every start, and different after any change"
    try: stats = [(name, file.stat()) for name,file in files_of_folder(path)]
    except FileNotFoundError as e: raise KdfastError(f'{path}: {Path(e.filename).relative_to(path)} is a link to nothing: remove it') from e
    return json.dumps([str(path.resolve()), *((name, s.st_size, s.st_mtime_ns) for name,s in stats)])

