"Where images come from: a folder, an archive, a published data set. Decoded once, kept as memory-mapped uint8."

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from kdfast.core.atomic import sha256
from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import imagenette, published
from kdfast.data.augment import AUGMENTS
from kdfast.data.cache import cached_dataset, decoded_before
from kdfast.data.dataset import Data, digits, usual_batch_size
from kdfast.data.decode import Reading, decode, is_table
from kdfast.data.holdout import HELD_OUT, hold_out, no_validation
from kdfast.data.naming import dataset_name, source_stamp

BUILT_IN = ('digits', *published.NAMES, *imagenette.URLS)
SMALLEST, LARGEST = 8, 1024  # --size


def load(
    source: str = 'digits',  # digits, a published data set by its name, or the path of a folder, an archive or a table
    holdout: float = 0.0,  # Share of the training images to validate on instead
    size: int | None = None,  # Take images of any size, and show networks squares of this side
    grow: float = 1.0,  # Share of height and width at which training begins to show images, above 0; 1 for none of it
    augment: str
    | None = None,  # none, shift, flip or strong; flip, or shift where classes seem to be sides, unless given
    columns: str | None = None,  # Of a table: name=COLUMN,label=COLUMN,split=COLUMN, or some of them
    range: str | None = None,  # LOW:HIGH, values that become black and white, of images of more than 8 bits a channel
    batch_size: int | None = None,  # Training images a batch; 128, or less for a small training set, unless given
    skip_broken: bool = False,  # Leave out images that cannot be read
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
    data = find_dataset(source, size, Reading(columns, range, skip_broken))
    if data.skipped and not skip_broken:
        raise KdfastError(
            f'{source}: {data.skipped:,} images cannot be read: replace or remove them, or leave them '
            'out with --skip-broken'
        )
    if source in BUILT_IN and Path(source).exists():
        print(
            f'kdfast: {source} is the built-in data set; write ./{source} for the folder or file of that name',
            file=sys.stderr,
        )
    data = adjusted(data, holdout, grow, augment, batch_size)
    return replace(
        data,
        asked=dict(
            source=located(source),
            holdout=holdout,
            size=size,
            grow=grow,
            augment=augment,
            batch_size=batch_size,
            columns=columns,
            range=range,
            skip_broken=skip_broken,
        ),
    )


def check_options(holdout, size, grow, augment, batch_size):
    "Raise KdfastError for a value out of range"
    if not 0 <= holdout < 1:
        raise KdfastError(f'--holdout {holdout}: expected a share of the training images, from 0 to below 1')
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise KdfastError(f'--size {size}: expected {SMALLEST} to {LARGEST} pixels')
    if not 0 < grow <= 1:
        raise KdfastError(f'--grow {grow}: expected a share of the images\' height and width, above 0 and up to 1')
    if augment not in (None, *AUGMENTS):
        raise KdfastError(f'--augment {augment}: expected {", ".join(AUGMENTS)}')
    if batch_size is not None and batch_size < 2:
        raise KdfastError(f'--batch-size {batch_size}: expected at least 2 images, which batch norm needs')


def adjusted(data, holdout, grow, augment, batch_size):
    "The decoded data set as it was asked for; its name tells what is not as usual"
    if not holdout and not len(data.valid[1]):
        print(f'kdfast: {no_validation(data, HELD_OUT)}', file=sys.stderr)
    if holdout or not len(data.valid[1]):
        data = hold_out(data, holdout or HELD_OUT)
    if grow < 1:
        data = replace(data, name=f'{data.name},grow={grow}', grow=grow)
    if augment not in (None, data.augment):
        data = replace(data, name=f'{data.name},augment={augment}', augment=augment)
    if batch_size in (None, usual_batch_size(n := len(data.train[1]))):
        return data
    if batch_size > n:
        raise KdfastError(f'--batch-size {batch_size}: expected at most {n:,}, the number of training images')
    return replace(data, name=f'{data.name},batch_size={batch_size}', batch_size=batch_size)


def located(
    source: str,  # Of a data set
) -> str:
    "What names it from anywhere: the whole path, or the name of a built-in one, whatever lies there under that name."
    path = Path(source).expanduser()
    return str(path.resolve()) if source not in BUILT_IN and path.exists() else source


def find_dataset(source, size, reading):
    "The data set that `source` names, whole"
    if source == 'digits':
        return digits(size)
    if source in published.NAMES:
        return cached_dataset(source, published.identity(source), partial(published.decode, source, reading), size)
    if source in imagenette.URLS:
        if size is None:
            raise KdfastError(
                f'{source} holds photographs of any size: say at which networks should see them, such as --size 128'
            )
        path = imagenette.fetch(source)
        return cached_dataset(
            source, f'{source} {sha256(path)}{reading.key}', partial(imagenette.decode_words, path, reading), size
        )
    path = Path(source).expanduser()
    if not path.exists():
        raise KdfastError(
            f'no data at {source}: expected the path of a folder or an archive, or digits, '
            f'{", ".join((*published.NAMES, *imagenette.URLS))}'
        )
    if (path / 'data.json').is_file() and path.resolve().parent == cache_home().resolve():
        return decoded_before(path, size)
    identity = source_stamp(path) if path.is_dir() or is_table(path) else sha256(path)
    return cached_dataset(dataset_name(path), identity + reading.key, partial(decode, path, reading), size, path)


def with_own_name(
    data: Data,
    runs_dir: Path,  # Where runs are kept
) -> Data:
    "The data set, by another name where that folder has runs on other images of its name."
    for file in sorted((runs_dir / data.name).glob('*/*/run.json')):
        try:
            fingerprint = json.loads(file.read_text()).get('data_sha256')
        except (OSError, ValueError, AttributeError):
            continue
        if fingerprint not in (None, data.fingerprint):
            return replace(data, name=f'{data.name}-{data.fingerprint[:8]}')
        if fingerprint:
            return data
    return data
