"Decode all images of a folder, an archive or a data set into arrays, before anything is trained."

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from kdfast.core.errors import KdfastError
from kdfast.core.notes import Notes
from kdfast.data.archives import open_entries
from kdfast.data.arrangement import Arrangement, arrange
from kdfast.data.arrays import PixelSummary, count_values, digest
from kdfast.data.bit_depth import describe_scaling
from kdfast.data.decode_choice import decode_each_epoch
from kdfast.data.decode_progress import show_progress
from kdfast.data.decoding_threads import decoding_threads
from kdfast.data.disk_space import writing_images
from kdfast.data.files import read_file
from kdfast.data.image_statistics import ImageStatistics
from kdfast.data.jpeg import prepare
from kdfast.data.labels import ONE
from kdfast.data.layouts import registry
from kdfast.data.layouts.base import Source
from kdfast.data.layouts.rows import is_table
from kdfast.data.pixels import decode_image
from kdfast.data.split_table import SplitTable, table_facts
from kdfast.data.split_writer import SplitWriter

MAX_PENDING, MAX_PENDING_BYTES = 16, 2**26  # groups of images, and bytes of files, that are read but not yet written
GROUP, GROUP_BYTES = 16, 2**20  # images, and bytes of files, that a thread decodes at once: fewer switches of threads
SMALL_IMAGE = 2**14  # bytes of pixels; each call of Pillow takes longer than their computation
SMALL_FILE = 2**12  # bytes; threads would wait for Python's lock longer than they decode


@dataclass(frozen=True)
class Reading:
    "Options for reading a data set that do not depend on where it is."

    columns: str | None = None  # Columns of a table: name=…,label=…,split=…
    range: str | None = None  # LOW:HIGH, values of black and white, for images of more than 8 bits
    skip_broken: bool = False  # Skip images and rows that cannot be read
    labels: str | None = None  # one, several, or spaces: several, separated by spaces
    decode: str | None = None  # once: to arrays on the disk; each-epoch: from the files; None: by the space on the disk

    @property
    def key(self) -> str:
        "The part of a cache key for the options that change pixels or labels."
        options = dict(columns=self.columns, range=self.range, labels=self.labels if self.labels != ONE else None)
        return ''.join(f' {name}={value}' for name, value in options.items() if value)


def decode(
    path: Path,  # A folder, an archive or a table
    reading: Reading,  # How to read the images
    folder: Path,  # Where the arrays go, <split>_images.npy and <split>_labels.npy
    side: int | None = None,  # Scale images to squares of this side; None: all images must have one size
) -> dict:  # Facts about the data set: classes, notes, range, skipped, about
    """Decode every image of a folder or an archive.

    Images that cannot be decoded are left out; `skipped` and `about` tell of them. Raises KdfastError, with the names
    of the files, for an unknown layout, a class without training images, images that differ in size, an archive that
    could do harm, and a full disk.
    """
    with open_source(path, reading) as (source, arrangement):
        return decode_arrangement(source, arrangement, reading, folder, side)


def decode_listing(
    path: Path,  # Name of the data set in errors
    listing: Callable,  # Return a Listing, given a Source
    reading: Reading,  # How to read the images
    folder: Path,  # Where the arrays go
    side: int | None = None,  # Scale images to squares of this side
) -> dict:  # As `decode`
    "Decode images that are not files of a folder or an archive. Raises KdfastError as `decode` does."
    return decode_arrangement(*arrange_listing(path, listing, reading), reading, folder, side)


def arrange_listing(
    path: Path,  # Name of the data set in errors
    listing: Callable,  # Return a Listing, given a Source
    reading: Reading,  # How to read the images
) -> tuple[Source, Arrangement]:
    "Return images that are not files of a folder or an archive, by split. Raises KdfastError."
    source = Source(
        path, {}, columns=parse_columns(reading.columns), skip_broken=reading.skip_broken, labels=reading.labels
    )
    return source, arrange(source, listing(source))


@contextmanager
def open_source(
    path: Path,  # A folder, an archive or a table
    reading: Reading,  # How to read the images
) -> Iterator[tuple[Source, Arrangement]]:
    "Open a data set and find its images, which stay open in the context. Raises KdfastError."
    root, table = (path.parent, path.name) if path.is_file() and is_table(path) else (path, None)
    notes = Notes()
    with open_entries(root, notes) as files:
        if table and table not in files:
            raise KdfastError(f'{path} is named like a system file, and these are never read: rename it')
        source = Source(root, files, notes, parse_columns(reading.columns), reading.skip_broken, table, reading.labels)
        yield source, arrange(source, registry.read(source))


def parse_columns(
    text: str | None,  # name=COLUMN,label=COLUMN,split=COLUMN, or some of them
) -> dict[str, str]:
    "Return names of columns by role. Raises KdfastError for other roles."
    if not text:
        return {}
    columns = dict(part.partition('=')[::2] for part in text.split(','))
    if not columns.keys() <= {'name', 'label', 'split'} or not all(columns.values()):
        raise KdfastError(f'--columns {text}: expected name=COLUMN,label=COLUMN,split=COLUMN, or some of them')
    return columns


def decode_arrangement(
    source: Source,  # Files of the data set
    arrangement: Arrangement,  # Its images by split
    reading: Reading,  # How to read the images
    folder: Path,  # Where the arrays go
    side: int | None,  # Scale images to squares of this side
) -> dict:  # As `decode`
    "Decode the images of each split. Raises KdfastError as `decode` does."
    each_epoch = decode_each_epoch(reading.decode, source, arrangement, folder, side)
    writers, splits = _writers(source, arrangement, folder, each_epoch)
    statistics = writers['train'].statistics
    with writing_images(folder):
        _write_images(source, splits, writers, side)
        value_range = statistics.value_range(reading.range)
        try:
            for writer in writers.values():
                writer.finish(value_range, source)
        except KdfastError:
            source.check()  # names the images that cannot be read, which may be why
            raise
        if 'valid' not in writers:
            writers['train'].write_empty('valid')
    for name in statistics.deep:
        source.notes.add(describe_scaling(value_range, statistics.kind), name)
    if reading.range and not statistics.deep:
        source.notes.add('--range has no effect: no image has more than 8 bits', '')
    facts = dict(
        classes=arrangement.classes,
        notes=source.notes.messages(),
        range=value_range if statistics.deep else None,
        skipped=len(source.broken),
        about=dict(
            layout=arrangement.layout,
            validates=arrangement.validates,
            broken=source.broken_text(),
            **statistics.summary(),
        ),
    )
    facts |= table_facts(writers['train'], side) if each_epoch else {}
    return facts | (writers['train'].summary.facts if all(w.in_one_pass for w in writers.values()) else {})


def _writers(source, arrangement, folder, each_epoch):
    "(what receives the images of each split: an array on the disk, or a table of their places; images of each split)"
    splits, classes = arrangement.splits, arrangement.classes
    shared = (folder, classes, ImageStatistics(), PixelSummary(classes))
    if not each_epoch:
        return {split: SplitWriter(split, items, *shared) for split, items in splits.items() if items}, splits
    splits = {split: sorted(items, key=lambda item: item.name) for split, items in splits.items()}
    return {split: SplitTable(source, split, items, *shared) for split, items in splits.items() if items}, splits


def _write_images(source, splits, writers, side):
    "Decode and write all images; those that cannot be read are recorded in the source"
    n_images = sum(map(len, splits.values()))
    prepare(n_images)
    with show_progress(source.path, splits) as advance:
        for split, writer in writers.items():
            for item, image, found in _decoded_items(splits[split], partial(_decode_group, side, split == 'train')):
                for remark in image.remarks:
                    source.notes.add(remark, item.name)
                if image.problem:
                    source.reject(item.name, image.problem)
                else:
                    writer.write(item, image, found, source.path, n_images)
                advance(1)


def _decode_group(side, is_train, group):
    """Decode some images, and compute what is slow to find out about their pixels later.

    Returns (item, image, (SHA-256, how often each value occurs)) of each; only training images are counted.
    """
    images = [(item, decode_image(content, side)) for item, content in group]
    counts = _count_once([image.pixels for _, image in images if not image.problem and image.low is None], is_train)
    return [
        (item, image, () if image.problem else (digest(image.pixels), None if image.low is not None else next(counts)))
        for item, image in images
    ]


def _count_once(pixels, is_train):
    "Yield the counts of each image; of small ones all with the first, then zeros, because one call is much faster"
    if not is_train:
        return repeat(None)
    same_size = len({image.shape for image in pixels}) == 1
    groups = [np.stack(pixels)] if same_size and pixels[0].nbytes <= SMALL_IMAGE else pixels
    return chain(map(count_values, map(np.ascontiguousarray, groups)), repeat(0))


def _decoded_items(items, decode_group):
    "Yield what `decode_group` returns, in order; files are read in this thread, and decoded in others unless small"
    pool = ThreadPoolExecutor(decoding_threads(), 'kdfast-decode')  # more would wait for Python's lock
    pending, pending_bytes = deque(), 0
    try:
        for group, n_bytes in _groups(items):
            is_small = 0 < n_bytes < SMALL_FILE * len(group)
            pending.append((_done(decode_group(group)) if is_small else pool.submit(decode_group, group), n_bytes))
            pending_bytes += n_bytes
            while len(pending) > MAX_PENDING or pending_bytes > MAX_PENDING_BYTES and pending:
                decoded, n_bytes = pending.popleft()
                pending_bytes -= n_bytes
                yield from decoded.result()
        for decoded, _ in pending:
            yield from decoded.result()
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt need not wait for what is not begun


def _done(result):
    "What a pool returns for work that is done"
    future = Future()
    future.set_result(result)
    return future


def _groups(items):
    "Read the files of items, and yield groups of (item, content) with their bytes"
    group, n_bytes = [], 0
    for item in items:
        content = read_file(item.open)
        group.append((item, content))
        n_bytes += getattr(content, 'nbytes', None) or (len(content) if isinstance(content, bytes) else 0)
        if len(group) == GROUP or n_bytes > GROUP_BYTES:
            yield group, n_bytes
            group, n_bytes = [], 0
    if group:
        yield group, n_bytes
