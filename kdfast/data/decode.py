"The images of a folder or an archive: found, checked and decoded, every one of them before anything trains."

import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdfast.core.errors import KdfastError
from kdfast.core.notes import Notes
from kdfast.data.archives import archive_entries, read_file
from kdfast.data.layout import Arrangement, arrange
from kdfast.data.layouts import registry, table
from kdfast.data.layouts.base import Source
from kdfast.data.pixels import parse_span, picture, scaling, span_of, to_bytes

CHUNK, CHUNK_BYTES = 256, 2**26  # images, and their bytes, that are read and not yet written
LARGE = 2**30  # bytes of decoded images that a user should hear of
NAMES = dict(train='training', valid='validation', test='test')


@dataclass(frozen=True)
class Reading:
    "How to read a data set, beside where it is and how large its images are to be."

    columns: str | None = None  # Of a table: name=…,label=…,split=…
    range: str | None = None  # LOW:HIGH, values that become black and white, of images of more than 8 bits
    skip_broken: bool = False  # Leave out what cannot be read

    @property
    def key(self):
        "What of it decides the pixels and labels"
        return ''.join(
            f' {name}={value}' for name, value in (('columns', self.columns), ('range', self.range)) if value
        )


class SizesDiffer(KdfastError):
    "Images of several sizes, and no size to bring them to."


def decode(
    path: Path,  # A folder, an archive or a table
    reading: Reading,  # How to read it
    folder: Path,  # Where the arrays go, <split>_images.npy and <split>_labels.npy
    side: int | None = None,  # Scale images of any size to squares of this side; without it they must have one size
) -> dict:  # `classes`, `notes` and what there is to know about the images
    """Decode every image of `path`.

    Raises KdfastError, naming the files, for another layout, a class that nothing trains, images that do not decode
    or differ in size, an archive that could do harm, and a disk without room.
    """
    with opened(path, reading) as (source, found):
        return decode_all(source, found, reading, folder, side)


def decode_listing(
    path: Path,  # What errors call the images
    listing: Callable,  # Gives them, of a Source
    reading: Reading,  # How to read them
    folder: Path,  # Where the arrays go
    side: int | None = None,  # Scale images to squares of this side
) -> dict:  # As `decode`
    "Decode images that lie in no files of their own."
    source = Source(path, {}, columns=columns_asked(reading.columns), skip_broken=reading.skip_broken)
    return decode_all(source, arrange(source, listing(source)), reading, folder, side)


@contextmanager
def opened(
    path: Path,  # A folder, an archive or a table
    reading: Reading,  # How to read it
) -> Iterator[tuple[Source, Arrangement]]:
    "What is to be decoded, as long as its files are open."
    root, table = (path.parent, path.name) if path.is_file() and is_table(path) else (path, None)
    notes = Notes()
    with archive_entries(root, notes) as files:
        source = Source(root, files, notes, columns_asked(reading.columns), reading.skip_broken, table)
        yield source, arrange(source, registry.read(source))


def is_table(
    path: Path,  # A file
) -> bool:
    "Whether it is a table by its suffix."
    return path.suffix.lower() in table.SUFFIXES


def columns_asked(said):
    "Columns by what they hold. Raises KdfastError"
    if not said:
        return {}
    asked = dict(part.partition('=')[::2] for part in said.split(','))
    if not asked.keys() <= {'name', 'label', 'split'} or not all(asked.values()):
        raise KdfastError(f'--columns {said}: expected name=COLUMN,label=COLUMN,split=COLUMN, or some of them')
    return asked


def decode_all(source, found, reading, folder, side):
    "As `decode`, of what was found"
    facts = Facts()
    writers = {
        split: Writer(folder, split, items, found.classes, facts) for split, items in found.splits.items() if items
    }
    n_all = sum(map(len, found.splits.values()))
    with progress(source.path, found.splits) as advance:
        for split, writer in writers.items():
            for item, made in pictures(found.splits[split], side):
                for remark in made.remarks:
                    source.notes.add(remark, item.name)
                if made.problem:
                    source.reject(item.name, made.problem)
                else:
                    writer.write(item, made, source.path, n_all)
                advance(1)
    source.check()
    span = facts.span(reading)
    for writer in writers.values():
        writer.finish(span, source)
    if 'valid' not in writers:
        (
            np.save(folder / 'valid_images.npy', np.load(folder / 'train_images.npy', mmap_mode='r')[:0]),
            np.save(folder / 'valid_labels.npy', np.empty(0, np.int64)),
        )
    for item in facts.deep:
        source.notes.add(scaling(span, facts.kind), item)
    if reading.range and not facts.deep:
        source.notes.add('--range changes nothing: no image has more than 8 bits', '')
    return dict(
        classes=found.classes,
        notes=source.notes.messages(),
        range=span if facts.deep else None,
        skipped=len(source.broken),
        about=dict(layout=found.layout, validates=found.validates, **facts.said()),
    )


def pictures(items, side) -> Iterator:
    "(item, picture) of each, in their order, decoded in threads; archives are read by this one"
    with ThreadPoolExecutor() as pool:
        waiting, n_bytes = deque(), 0
        for item in items:
            content = read_file(item.open)
            n = getattr(content, 'nbytes', None) or (len(content) if isinstance(content, bytes) else 0)
            waiting.append((item, pool.submit(picture, content, side), n))
            n_bytes += n
            while len(waiting) > CHUNK or n_bytes > CHUNK_BYTES and waiting:
                item, future, n = waiting.popleft()
                n_bytes -= n
                yield item, future.result()
        for item, future, _ in waiting:
            yield item, future.result()


class Facts:
    "What all images have in common, and in what they differ."

    def __init__(self):
        self.kinds = Counter()  # formats and modes
        self.widths, self.heights = [], []
        self.deep = []  # names of images of more than 8 bits
        self.low, self.high = np.inf, -np.inf  # their values
        self.kind = ''  # of them all: floats if any is
        self.first = None  # (name, height and width) of the first image, which all others must have

    def add(self, item, found):
        self.kinds[found.kind] += 1
        self.widths.append(found.size[0]), self.heights.append(found.size[1])
        if found.low is None:
            return
        self.deep.append(item.name)
        self.low, self.high = min(self.low, found.low), max(self.high, found.high)
        if not self.kind.endswith('float'):
            self.kind = found.kind

    def span(self, reading):
        "The values that become black and white"
        if reading.range:
            return parse_span(reading.range)
        return span_of(self.low, self.high, self.kind) if self.deep else None

    def said(self):
        def spread(sides):
            return [int(min(sides)), int(np.median(sides)), int(max(sides))]

        return dict(
            kinds=dict(self.kinds.most_common()),
            widths=spread(self.widths),
            heights=spread(self.heights),
            shorter=int(np.median(np.minimum(self.widths, self.heights))),
        )


class Writer:
    "Writes the arrays of one split. Rows are in the order of the names, whatever order the source gives them in."

    def __init__(self, folder, split, items, classes, facts):
        self.folder, self.split, self.facts, self.images = folder, split, facts, None
        self.order = {name: row for row, name in enumerate(sorted(item.name for item in items))}
        self.label = {name: label for label, name in enumerate(classes)}
        self.labels = np.full(len(items), -1, np.int64)
        # (row, shape) of images of more than 8 bits, whose pixels wait there until the range of all is known
        self.deep, self.staged = [], folder / f'{split}_deep.bin'

    def write(self, item, found, path, n_all):
        height, width = found.pixels.shape[:2]
        if self.images is None:
            if self.facts.first is None:
                check_room(self.folder, n_all * height * width * 3)
            self.images = np.lib.format.open_memmap(
                self.folder / f'{self.split}_images.npy', 'w+', np.uint8, (len(self.order), height, width, 3)
            )
        self.facts.first = self.facts.first or (item.name, (height, width))
        name, shape = self.facts.first
        if (height, width) != shape:
            raise SizesDiffer(
                f'{path}: images differ in size: {name} is {shape[1]}×{shape[0]}, {item.name} is '
                f'{width}×{height}; '
                'for photographs of any size say at which networks should see them, such as --size 128'
            )
        row = self.order[item.name]
        self.labels[row] = self.label[item.label]
        self.facts.add(item, found)
        if found.low is None:
            self.images[row] = found.pixels
        else:
            if not self.deep:
                check_room(self.folder, len(self.order) * found.pixels.nbytes)
                self.stage = open(self.staged, 'wb')
            self.deep.append((row, found.pixels.shape))
            self.stage.write(found.pixels.tobytes())

    def finish(self, span, source):
        "Scale what has more than 8 bits, close up the rows of images that could not be read, write the labels"
        if self.deep:
            self.stage.close()
            with open(self.staged, 'rb') as f:
                for row, shape in self.deep:
                    self.images[row] = to_bytes(np.fromfile(f, np.float32, int(np.prod(shape))).reshape(shape), span)
            self.staged.unlink()
        if self.images is None:
            raise KdfastError(f'{source.path}: none of the {NAMES[self.split]} images can be read')
        if (self.labels < 0).any():
            self.close_up()
        self.images.flush()
        np.save(self.folder / f'{self.split}_labels.npy', self.labels)
        lost = [
            name for name, label in self.label.items() if self.split == 'train' and not (self.labels == label).any()
        ]
        if lost and source.broken:
            raise KdfastError(f'{source.path}: no training image of {lost[0]} can be read')

    def close_up(self):
        kept, file = np.flatnonzero(self.labels >= 0), self.folder / f'{self.split}_images.npy'
        whole = np.lib.format.open_memmap(file.with_suffix('.new'), 'w+', np.uint8, (len(kept), *self.images.shape[1:]))
        for start in range(0, len(kept), CHUNK):
            whole[start : start + CHUNK] = self.images[kept[start : start + CHUNK]]
        whole.flush()
        file.with_suffix('.new').replace(file)
        self.images, self.labels = whole, self.labels[kept]


@contextmanager
def progress(path, splits):
    "On a terminal one live line; elsewhere a line a split. Gives what to call with the number of images done"
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        for split, items in splits.items():
            if items:
                print(f'kdfast: reading {len(items):,} {NAMES[split]} images from {path}', file=sys.stderr, flush=True)
        yield lambda n: None
    else:
        columns = (
            TextColumn('reading {task.description}'),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=console, transient=True, expand=True) as bar:
            task = bar.add_task(path.name, total=sum(map(len, splits.values())))
            yield partial(bar.advance, task)


def check_room(
    folder: Path,  # Where decoded images are to be written
    n_bytes: int,  # How much they will take
):
    "Say so where it is much. Raises KdfastError where the disk has less: a mapped file would end the process."
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise KdfastError(
            f'the decoded images need {gigabytes(n_bytes)} in {folder.parent}, {gigabytes(free)} are '
            'free: '
            'make room, take a smaller --size, or name a folder on a larger disk with XDG_CACHE_HOME'
        )
    if n_bytes > LARGE:
        print(f'kdfast: the decoded images take {gigabytes(n_bytes)} in {folder.parent}', file=sys.stderr)


def gigabytes(n_bytes):
    return f'{n_bytes / 2**30:.1f} GB'
