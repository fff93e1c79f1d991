"Load a data set by its path or name, and apply options to it."

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.core.notes import print_note
from kdfast.data import imagenette, published
from kdfast.data.augment import AUGMENTS
from kdfast.data.built_in import PHOTOGRAPHS, PHOTOGRAPHS_FILE
from kdfast.data.cache import archive_sha256, load_cached, load_or_decode
from kdfast.data.dataset import Data, digits, usual_batch_size
from kdfast.data.decode import Reading
from kdfast.data.decode import decode as decode_files
from kdfast.data.decode_choice import check_choice
from kdfast.data.holdout import DEFAULT_FRACTION, hold_out, no_validation_note
from kdfast.data.labels import ONE, check_kind
from kdfast.data.layouts.base import unreadable
from kdfast.data.layouts.rows import is_table
from kdfast.data.naming import dataset_name, source_stamp

BUILT_IN = (PHOTOGRAPHS, 'digits', *published.NAMES, *imagenette.URLS)
SMALLEST, LARGEST = 8, 1024  # values of --size


def load(
    source: str = PHOTOGRAPHS,  # A built-in or published data set, or the path of a folder, an archive or a table
    holdout: float = 0.0,  # Fraction of the training images to validate on instead
    size: int | None = None,  # Side of the squares that networks receive, for images of any size
    grow: float = 1.0,  # Progressive resizing: fraction of height and width at which training starts; 1 for none
    augment: str | None = None,  # none, shift, flip or strong; default flip, or shift if classes seem to be sides
    columns: str | None = None,  # Columns of a table: name=COLUMN,label=COLUMN,split=COLUMN, or some of them
    range: str | None = None,  # LOW:HIGH, values of black and white, for images of more than 8 bits per channel
    batch_size: int | None = None,  # Training images per batch; default 128, or less for a small training set
    skip_broken: bool = False,  # Skip images that cannot be read
    labels: str | None = None,  # one, several, or spaces: several, separated by spaces; default: one
    resplit: int | None = None,  # Seed of a split of its own; default: the split that all seeds have
    decode: str | None = None,  # once (to arrays on the disk) or each-epoch; default: once, if the disk has the space
) -> Data:
    """Load a data set. It is decoded on first use, and memory-mapped from a cache afterwards.

    If there are no validation images, a fifth of each class validates (of several labels: of all images). With a
    `size`, images are presized as in fastai: scaled until the shorter side is 8/7 of the size, and cut to the central
    square. Training takes random crops of `size` from them, validation the central one. With `grow`, training starts
    with smaller images, and has full ones for the last quarter of the epochs (progressive resizing). The cache is in
    `$XDG_CACHE_HOME/kdfast` (`~/.cache/kdfast`). Its key is the size with the SHA-256 of an archive, or with names,
    sizes and times of the files of a folder. Images that would take more than three quarters of the free space of the
    disk are decoded in every epoch instead, to the same pixels. Raises KdfastError, with the name of the file, for a
    missing path, an unknown layout, a class without training images, and an image that cannot be decoded or has another
    size.
    """
    arguments = dict(locals())
    check_options(holdout, size, grow, augment, batch_size)
    check_kind(labels)
    check_choice(decode)
    data = _find_dataset(source, size, Reading(columns, range, skip_broken, labels, decode))
    check_skipped(data, source, skip_broken)
    arguments['source'] = located(source)
    return replace(apply_options(data, holdout, grow, augment, batch_size, resplit), load_arguments=arguments)


def check_options(
    holdout: float,  # As of `load`
    size: int | None,  # As of `load`
    grow: float,  # As of `load`
    augment: str | None,  # As of `load`
    batch_size: int | None,  # As of `load`
):
    "Raise KdfastError for a value out of range."
    if not 0 <= holdout < 1:
        raise KdfastError(f'--holdout {holdout}: expected a fraction of the training images, from 0 to below 1')
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise KdfastError(f'--size {size}: expected {SMALLEST} to {LARGEST} pixels')
    if not 0 < grow <= 1:
        raise KdfastError(f'--grow {grow}: expected a fraction of height and width, above 0 and up to 1')
    if augment not in (None, *AUGMENTS):
        raise KdfastError(f'--augment {augment}: expected {", ".join(AUGMENTS)}')
    if batch_size is not None and batch_size < 2:
        raise KdfastError(f'--batch-size {batch_size}: expected at least 2 images, which batch norm needs')


def check_skipped(
    data: Data,  # Decoded images
    source: str,  # Where they are from
    skip_broken: bool,  # Whether images that cannot be read may be skipped
):
    "Print the notes on a data set of which images were skipped. Raises KdfastError if they must not be."
    if data.skipped and not skip_broken:
        raise unreadable(source, (data.about or {}).get('broken') or f'{data.skipped:,} images')
    for note in data.notes if data.skipped else ():
        print_note(note)


def apply_options(
    data: Data,  # Decoded images
    holdout: float,  # As of `load`
    grow: float,  # As of `load`
    augment: str | None,  # As of `load`
    batch_size: int | None,  # As of `load`
    resplit: int | None = None,  # As of `load`
) -> Data:
    "Apply options to a decoded data set; its name gets those that are not defaults. Raises KdfastError."
    if data.several:
        data = replace(data, name=f'{data.name},labels=several')
    has_validation = len(data.valid[1]) > 0
    if resplit is not None and has_validation and not holdout:
        raise KdfastError(
            f'--resplit: {data.name} has validation images of its own, the same for every seed; --holdout SHARE draws '
            'others from its training images, such as --holdout 0.2'
        )
    if not holdout and not has_validation:
        print_note(no_validation_note(data, DEFAULT_FRACTION))
    if holdout or not has_validation:
        data = hold_out(data, holdout or DEFAULT_FRACTION, resplit)
    if grow < 1:
        data = replace(data, name=f'{data.name},grow={grow}', grow=grow)
    if augment not in (None, data.augment):
        data = replace(data, name=f'{data.name},augment={augment}', augment=augment)
    n_train = len(data.train[1])
    if batch_size in (None, usual_batch_size(n_train)):
        return data
    if batch_size > n_train:
        raise KdfastError(f'--batch-size {batch_size}: expected at most {n_train:,}, the number of training images')
    return replace(data, name=f'{data.name},batch_size={batch_size}', batch_size=batch_size)


def located(
    source: str,  # As of `load`
) -> str:
    "Return the absolute path of a data set, or the name of a built-in one."
    path = Path(source).expanduser()
    return str(path.resolve()) if source not in BUILT_IN and path.exists() else source


def _find_dataset(source, size, reading):
    "The data set without any options applied"
    if source in BUILT_IN and Path(source).exists():
        print_note(f'{source} is the built-in data set; write ./{source} for the folder or file of that name')
    if reading.labels not in (None, ONE) and source in BUILT_IN:
        raise KdfastError(f'--labels {reading.labels}: the images of {source} have one label each')
    if source == 'digits':
        return digits(size)
    if source == PHOTOGRAPHS:
        decode_into = partial(decode_files, PHOTOGRAPHS_FILE, reading)
        identity = archive_sha256(PHOTOGRAPHS_FILE) + reading.key
        return load_or_decode(source, identity, decode_into, size, PHOTOGRAPHS_FILE, reading.decode)
    if source in published.NAMES:
        return load_or_decode(
            source,
            published.cache_identity(source),
            partial(published.decode, source, reading),
            size,
            how=reading.decode,
            skip_broken=reading.skip_broken,
        )
    if source in imagenette.URLS:
        if size is None:
            raise KdfastError(f'{source} has photographs of any size: scale them to one size, such as --size 128')
        path = imagenette.download(source)
        decode_into = partial(imagenette.decode_with_class_names, path, reading)
        identity = f'{source} {archive_sha256(path)}{reading.key}'
        return load_or_decode(source, identity, decode_into, size, path, reading.decode, reading.skip_broken)
    path = Path(source).expanduser()
    if not path.exists():
        raise KdfastError(f'no data at {source}: expected the path of a folder or an archive, or {", ".join(BUILT_IN)}')
    if (path / 'data.json').is_file() and path.resolve().parent == cache_home().resolve():
        return _load_from_cache(path, size, reading)
    identity = source_stamp(path) if path.is_dir() or is_table(path) else archive_sha256(path)
    decode_into = partial(decode_files, path, reading)
    name, key = dataset_name(path), identity + reading.key
    return load_or_decode(name, key, decode_into, size, path, reading.decode, reading.skip_broken)


def _load_from_cache(folder, size, reading):
    "The data set in a folder of the cache. Raises KdfastError if it has another kind of labels"
    data = load_cached(folder, size)
    if reading.labels and data.several != (reading.labels != ONE):
        raise KdfastError(
            f'--labels {reading.labels}: the images in {folder} were decoded with '
            f'{"several labels" if data.several else "one label"} each; pass the path of the original images'
        )
    return data


def with_own_name(
    data: Data,  # Decoded images
    runs_dir: Path,  # Directory of all runs
) -> Data:
    "Return the data set; its name gets its fingerprint if there are runs on other images of that name."
    for file in sorted((runs_dir / data.name).glob('*/*/run.json')):
        try:
            recorded = json.loads(file.read_text('utf-8'))
            fingerprint = recorded.get('drawn_from') or recorded.get('data_sha256')
        except (OSError, ValueError, AttributeError):
            continue
        if fingerprint not in (None, data.images_sha256):
            return replace(data, name=f'{data.name}-{data.images_sha256[:8]}')
        if fingerprint:
            return data
    return data
