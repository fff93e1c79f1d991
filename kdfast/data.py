"Where images come from: a folder, an archive, a published data set. Decoded once, kept as memory-mapped uint8."
import hashlib
import json
import os
import re
import sys
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kdfast import augment as augmentation, imagenette, published
from kdfast.arrays import Rows, digests, fingerprint, statistics
from kdfast.decode import Reading, decode, is_table
from kdfast.errors import KdfastError
from kdfast.files import ARCHIVES, walk
from kdfast.once import facts_once, folder_once
from kdfast.pixels import square
from kdfast.writing import sha256

BUILT_IN = ('digits', *published.NAMES, *imagenette.URLS)
CACHE_VERSION = 3
HELD_OUT = .2 # share of the training images that validates where there are no validation images
SMALLEST,LARGEST = 8,1024 # --size
SMALLEST_BATCH,LARGEST_BATCH = 8,128 # of training images, unless --batch-size says otherwise
LONGEST_NAME = 150 # bytes
GROWN = 3/4 # of the epochs, after which images are shown whole
LARGEST_DIGITS = 64 # they are drawn 8×8, and are not kept on disk


@dataclass(frozen=True)
class Data:
    "A data set: two splits of equally large colour images, decoded."
    name: str                # Names the folder of its runs
    classes: list[str]       # In the order of the labels
    train: tuple             # Images (n, height, width, 3) uint8, labels (n,) int64; arrays on disk, or rows of such
    valid: tuple             # The same, of the validation images
    mean: list[float]        # Of the training images, a channel each, in 0 … 1
    std: list[float]         # Likewise, their standard deviation
    augment: str             # How training varies its images: none, shift, flip or strong
    fingerprint: str         # SHA-256 of classes, labels and pixels
    test: tuple|None = None  # Test images and labels beside validation images, kept apart
    notes: tuple = ()        # What a user should know about it
    skipped: int = 0         # Images and rows that were left out because they cannot be read
    range: list|None = None  # Values that became black and white, where images have more than 8 bits a channel
    about: dict|None = None  # Layout, formats and sizes of the files
    size: int|None = None    # Networks see squares of this side, cut out of the decoded ones; None: all that is decoded
    grow: float = 1.         # Share of height and width at which training begins to show them; 1: as they are
    batch_size: int|None = None # Training images a batch; None: as many as is usual for their number
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
    source:str='digits', # digits, a published data set by its name, or the path of a folder, an archive or a table
    holdout:float=0., # Share of the training images to validate on instead
    size:int|None=None, # Take images of any size, and show networks squares of this side
    grow:float=1., # Share of height and width at which training begins to show images, above 0; 1 for none of it
    augment:str|None=None, # none, shift, flip or strong; flip, or shift where classes seem to be sides, unless given
    columns:str|None=None, # Of a table: name=COLUMN,label=COLUMN,split=COLUMN, or some of them
    range:str|None=None, # LOW:HIGH, values that become black and white, of images of more than 8 bits a channel
    batch_size:int|None=None, # Training images a batch; 128, or less for a small training set, unless given
    skip_broken:bool=False, # Leave out images that cannot be read
) -> Data:
    """The data set that `source` names, decoded on its first use and memory-mapped from a cache afterwards.

    Without validation images a fifth of each class validates. With a `size`, images are kept as fastai presizes them:
    scaled so that the shorter side is 8/7 of it, the central square. Training crops them at random, validation
    centrally, to `size`. With `grow`, training shows them scaled down at first, and whole for the last quarter of the
    epochs (progressive resizing). The cache lies in `$XDG_CACHE_HOME/kdfast` (`~/.cache/kdfast`), keyed by the size and
    a fingerprint of the source: an archive's SHA-256, or a folder's names, sizes and times. Raises KdfastError, naming
    the file, for a missing path, another layout, a class that nothing trains, and an image that does not decode or
    differs in size.
    """
    check_options(holdout, size, grow, augment, batch_size)
    data = named(source, size, Reading(columns, range, skip_broken))
    if data.skipped and not skip_broken:
        raise KdfastError(f'{source}: {data.skipped:,} images cannot be read: replace or remove them, or leave them '
                          'out with --skip-broken')
    if source in BUILT_IN and Path(source).exists():
        print(f'kdfast: {source} is the built-in data set; write ./{source} for the folder or file of that name',
              file=sys.stderr)
    data = adjusted(data, holdout, grow, augment, batch_size)
    return replace(data, asked=dict(source=located(source), holdout=holdout, size=size, grow=grow, augment=augment,
                                    batch_size=batch_size, columns=columns, range=range, skip_broken=skip_broken))


def check_options(holdout, size, grow, augment, batch_size):
    "Raise KdfastError for a value out of range"
    if not 0 <= holdout < 1:
        raise KdfastError(f'--holdout {holdout}: expected a share of the training images, from 0 to below 1')
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise KdfastError(f'--size {size}: expected {SMALLEST} to {LARGEST} pixels')
    if not 0 < grow <= 1:
        raise KdfastError(f'--grow {grow}: expected a share of the images\' height and width, above 0 and up to 1')
    if augment not in (None, *augmentation.AUGMENTS):
        raise KdfastError(f'--augment {augment}: expected {", ".join(augmentation.AUGMENTS)}')
    if batch_size is not None and batch_size < 2:
        raise KdfastError(f'--batch-size {batch_size}: expected at least 2 images, which batch norm needs')


def adjusted(data, holdout, grow, augment, batch_size):
    "The decoded data set as it was asked for; its name tells what is not as usual"
    if not holdout and not len(data.valid[1]): print(f'kdfast: {no_validation(data, HELD_OUT)}', file=sys.stderr)
    if holdout or not len(data.valid[1]): data = hold_out(data, holdout or HELD_OUT)
    if grow < 1: data = replace(data, name=f'{data.name},grow={grow}', grow=grow)
    if augment not in (None, data.augment): data = replace(data, name=f'{data.name},augment={augment}', augment=augment)
    if batch_size in (None, usual_batch_size(n := len(data.train[1]))): return data
    if batch_size > n: raise KdfastError(f'--batch-size {batch_size}: expected at most {n:,}, the number of training images')
    return replace(data, name=f'{data.name},batch_size={batch_size}', batch_size=batch_size)


def usual_batch_size(
    n:int, # Training images
) -> int:
    "128 images, or the power of two that makes at least eight batches of a small training set."
    return min(LARGEST_BATCH, max(SMALLEST_BATCH, 2**((n//8).bit_length() - 1)))


def located(
    source:str, # Of a data set
) -> str:
    "What names it from anywhere: the whole path, or the name of a built-in one, whatever lies there under that name."
    path = Path(source).expanduser()
    return str(path.resolve()) if source not in BUILT_IN and path.exists() else source


def named(source, size, reading):
    "The data set that `source` names, whole"
    if source == 'digits': return digits(size)
    if source in published.NAMES:
        return cached(source, published.identity(source), partial(published.decode, source, reading), size)
    if source in imagenette.URLS:
        if size is None:
            raise KdfastError(f'{source} holds photographs of any size: say at which networks should see them, such '
                              'as --size 128')
        path = imagenette.fetch(source)
        return cached(source, f'{source} {sha256(path)}{reading.key}',
                      partial(imagenette.decode_words, path, reading), size)
    path = Path(source).expanduser()
    if not path.exists():
        raise KdfastError(f'no data at {source}: expected the path of a folder or an archive, or digits, '
                          f'{", ".join((*published.NAMES, *imagenette.URLS))}')
    if (path/'data.json').is_file() and path.resolve().parent == cache_home().resolve():
        return decoded_before(path, size)
    identity = stamp(path) if path.is_dir() or is_table(path) else sha256(path)
    return cached(name_of(path), identity + reading.key, partial(decode, path, reading), size, path)


def name_of(path):
    "What a data set is called: as its folder or its archive"
    path = path.resolve()
    if path.is_dir(): return path.name
    return path.parent.name if is_table(path) else without_suffix(path.name)


def stamp(
    path:Path, # A folder, an archive or a table
) -> str:
    "Names, sizes and times of the files: cheap to ask at every start, and different after any change."
    if path.is_dir(): return identity_of_folder(path)
    if is_table(path): return f'{path.name} {identity_of_folder(path.parent)}'
    return f'{path.stat().st_size} {path.stat().st_mtime_ns}'


def without_suffix(name):
    suffix = next((s for s in ARCHIVES if name.lower().endswith(s)), Path(name).suffix)
    return name.removesuffix(name[len(name) - len(suffix):]) if suffix else name


def run_name(name, size):
    "What names the folder of the runs on it: runs at another size are others"
    plain = re.sub(r'[^\w.-]+', '_', unicodedata.normalize('NFC', name)).strip('.') or 'data'
    if len(plain.encode()) > LONGEST_NAME:
        plain = f'{plain[:LONGEST_NAME//5]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'
    return plain + (f',size={size}' if size else '')


def apart(
    data:Data,
    runs_dir:Path, # Where runs are kept
) -> Data:
    "The data set, by another name where that folder has runs on other images of its name."
    for file in sorted((runs_dir/data.name).glob('*/*/run.json')):
        try: fingerprint = json.loads(file.read_text()).get('data_sha256')
        except (OSError, ValueError, AttributeError): continue
        if fingerprint not in (None, data.fingerprint): return replace(data, name=f'{data.name}-{data.fingerprint[:8]}')
        if fingerprint: return data
    return data


# Digits

def digits(
    size:int|None=None, # Scale them, as photographs are
) -> Data:
    """Scikit-learn's 1,797 handwritten digits (8×8 grey), doubled to 16×16: every third one trains, the rest validate.

    So few train that the recipes differ; all of it comes with scikit-learn and needs no network.
    """
    if size and size > LARGEST_DIGITS:
        raise KdfastError(f'--size {size}: the digits are drawn 8×8; expected at most {LARGEST_DIGITS}')
    from sklearn.datasets import load_digits
    grey,labels = load_digits(return_X_y=True)
    large = [Image.fromarray(np.uint8(image.reshape(8, 8) * 255 / 16)).resize((16, 16), Image.BILINEAR).convert('RGB')
             for image in grey]
    if size: large = [square(image, presized(size)) for image in large]
    images,labels = np.stack([np.asarray(image) for image in large]),labels.astype(np.int64)
    train = np.arange(len(labels)) % 3 == 0
    return assemble(run_name('digits', size), [str(d) for d in range(10)], (images[train], labels[train]),
                    (images[~train], labels[~train]), size=size)


def assemble(name, classes, train, valid, test=None, size=None):
    mean,std = statistics(train[0])
    splits = (train, valid, test) if test else (train, valid)
    return Data(name, classes, train, valid, mean, std, augmentation.default(classes), fingerprint(classes, *splits),
                test, size=size)


def hold_out(
    data:Data, # A data set
    share:float, # Of its training images, above 0 and below 1
) -> Data:
    """Validate on a share of the training images of each class: options can be chosen, validation images stay unseen.

    The same images for every seed and recipe; the data set's name tells the share, so that its runs stay apart, but for
    the usual one of a data set without validation images. At least one image of each class trains.
    Raises KdfastError where no image is held out.
    """
    images,labels = data.train
    held = np.zeros(len(labels), bool)
    for label in range(len(data.classes)):
        of_class = np.random.default_rng(label).permutation(np.flatnonzero(labels == label))
        held[of_class[:min(round(share*len(of_class)), len(of_class) - 1)]] = True
    if not held.any():
        raise KdfastError(f'--holdout {share} takes none of the {len(labels):,} training images, of '
                          f'{len(data.classes)} classes: expected a larger share')
    train,valid = ((Rows(images, np.flatnonzero(rows)), labels[rows]) for rows in (~held, held))
    def find(): # takes long for many images
        made = assemble(data.name, data.classes, train, valid, data.test)
        return dict(mean=made.mean, std=made.std, fingerprint=made.fingerprint)
    key = digest(data.fingerprint + hashlib.sha256(held.tobytes()).hexdigest())
    if isinstance(images, np.memmap): facts = facts_once(Path(images.filename).parent/f'holdout-{key}.json', find)
    else: facts = find()
    usual = share == HELD_OUT and not len(data.valid[1])
    name = data.name if usual else f'{data.name},holdout={share}'
    notes = [*data.notes, *held_notes(data, share, valid[1])]
    return replace(data, name=name, train=train, valid=valid, notes=notes, **facts)


def held_notes(data, share, labels):
    "What a user should know about the images that were held out"
    lacking = [name for label,name in enumerate(data.classes) if not (labels == label).any()]
    said = [] if len(data.valid[1]) else [no_validation(data, share)]
    return said + ([f'classes without validation images: {len(lacking):,} '
                    f'({lacking[0]}{", …" if len(lacking) > 1 else ""})'] if lacking else [])


def no_validation(data, share):
    return (f'no validation images: {share:.0%} of each class validates, chosen at random '
            f'({data.name}; --holdout sets the share)')


# The cache

def cache_home() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'kdfast'


def digest(key): return hashlib.sha256(key.encode()).hexdigest()[:16]


def cached(name, identity, decode_into, size, path=None):
    "The decoded data set of that identity; decoded into a new folder first, which appears whole or not at all"
    key = f'{CACHE_VERSION} {identity}' + (f' size={size}' if size else '')
    folder = cache_home()/digest(key)
    folder_once(folder, partial(fill, name=name, decode_into=decode_into, size=size, path=path))
    return decoded_before(folder, size)


def fill(folder, name, decode_into, size, path=None):
    "Decode into a folder, and write beside the arrays what is known of them"
    origin = dict(source=str(path.resolve()), stamp=digest(stamp(path))) if path else {}
    facts = decode_into(folder, size and presized(size))
    data = assemble(name, facts['classes'], *(arrays(folder, split) for split in ('train', 'valid', 'test')))
    facts['notes'] += repeated(data)
    for note in [*facts['notes'], mirroring(data.augment)]: print(f'kdfast: {note}', file=sys.stderr)
    facts |= dict(name=name, size=size, origin=origin, mean=data.mean, std=data.std, fingerprint=data.fingerprint)
    (folder/'data.json').write_text(json.dumps(facts, indent=1))
    return data.fingerprint


def decoded_before(folder, size):
    "The data set in a folder of the cache"
    facts = json.loads((folder/'data.json').read_text())
    name,made,_ = facts.pop('name'),facts.pop('size'),facts.pop('origin')
    if made != size:
        raise KdfastError(f'{folder} was decoded for --size {made}: expected that size, or the images it was decoded '
                          'from')
    with suppress(OSError): os.utime(folder) # when it was last used, where that can be written
    train,valid,test = (arrays(folder, split) for split in ('train', 'valid', 'test'))
    return Data(run_name(name, size), train=train, valid=valid, test=test,
                augment=augmentation.default(facts['classes']), size=size, **facts)


def repeated(data):
    "Notes where images are there more than once"
    train = digests(data.train[0])
    seen,notes = set(train),[]
    n = len(train) - len(seen)
    if n:
        notes.append(f'training images that are there more than once: {n:,} of {len(train):,}'
                     + ('' if len(data.valid[1]) else '; held-out images may be copies of them'))
    for what,split in (('validation', data.valid), ('test', data.test)):
        n = sum(digest in seen for digest in digests(split[0])) if split else 0
        if n: notes.append(f'{what} images that are training images, too: {n:,} of {len(split[1]):,}')
    return notes


def mirroring(augment):
    "What training does to left and right"
    if augment == 'flip':
        return 'training mirrors images at random; where left and right matter, turn that off with --augment shift'
    return 'training does not mirror images, whose classes seem to be sides, digits or letters; --augment flip would'


def arrays(folder, split):
    "Images, mapped, and labels; None where there is no such split"
    file = folder/f'{split}_images.npy'
    return (np.load(file, mmap_mode='r'), np.load(folder/f'{split}_labels.npy')) if file.exists() else None


def identity_of_folder(path):
    "Names, sizes and times of the files: cheap to ask at every start, and different after any change"
    stats = [(name, entry.stat()) for name,entry in walk(path)]
    return json.dumps([str(path.resolve()), *((name, s.st_size, s.st_mtime_ns) for name,s in stats)])
