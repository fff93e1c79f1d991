"What every layout shares: one image of a source, the names of splits, and what a user is told about the data."

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import KdfastError, listed
from kdfast.core.notes import Notes
from kdfast.data.formats import is_image

SPLITS = dict(
    train={'train', 'training', 'trn', 'trainval'},
    valid={
        'valid',
        'validation',
        'validate',
        'val',
        'dev',
        'devel',
        'development',
        'eval',
        'evaluation',
        'holdout',
        'publictest',
    },
    test={'test', 'testing', 'tst', 'privatetest'},
)


BESIDE = {
    'set',
    'split',
    'splits',
    'seg',
    'image',
    'images',
    'img',
    'imgs',
    'picture',
    'pictures',
    'pic',
    'pics',
    'photo',
    'photos',
    'data',
    'dataset',
    'sample',
    'samples',
    'file',
    'files',
    'folder',
    'label',
    'labels',
}  # words that may stand beside a split's name


SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}


class Item(NamedTuple):
    "One image of a source."

    name: str  # Where it is: unique, and what errors call it
    split: str | None  # train, valid or test; None where the source does not say
    label: str  # Name of its class
    open: Callable  # Returns a binary file, an array of pixels or a PIL image


@dataclass
class Listing:
    "The images of a source, as one layout reads them."

    layout: str  # What the layout is, for reports
    items: list[Item]
    classes: list[str] | None = None  # In the order of their labels; None: sorted by name


@dataclass
class Source:
    "What a layout reads from: the files of a folder or an archive, and what the user has said about them."

    path: Path
    files: dict[str, Callable]  # By name, in the order in which they are read fastest
    notes: Notes = field(default_factory=Notes)
    columns: dict[str, str] = field(default_factory=dict)  # Of a table: name, label, split
    skip_broken: bool = False  # Leave out what cannot be read
    table: str | None = None  # The table that the user has named, if any
    empty: list[str] = field(default_factory=list)  # Folders without any file
    broken: list[str] = field(default_factory=list)  # What cannot be read, with the reason

    @cached_property
    def images(self):
        "The names of the files that are images, in the order of the source"
        return [name for name, open_file in self.files.items() if is_image(name, open_file)]

    def reject(self, name, why):
        "Note that an image cannot be read. `check` raises the error, unless such images are to be skipped"
        self.broken.append(f'{name} ({why})')

    def check(self):
        "Raise KdfastError that names what cannot be read; with `skip_broken`, note it instead"
        if not self.broken:
            return
        if not self.skip_broken:
            raise KdfastError(
                f'{self.path}: {listed(self.broken, "; ")} cannot be read: replace or remove, or leave '
                'out what is broken with --skip-broken'
            )
        for said in self.broken:
            self.notes.add('left out, cannot be read', said)


def split_of(
    word: str,  # The name of a folder, a file or a cell
) -> str | None:  # train, valid or test
    "The split that a name stands for: Training_Set, val2017, seg_train, test-images."
    whole = re.sub(r'[^a-z]', '', word.lower())
    words = [whole] if whole in SPLIT_OF else [w.lower() for w in re.findall(r'[A-Z]?[a-z]+|[A-Z]+', word)]
    found = {SPLIT_OF.get(w) or SPLIT_OF.get(w.removesuffix('set')) for w in words if w not in BESIDE}
    return found.pop() if len(found) == 1 else None


def tables(source):
    "What is wrong with a table that does not tell the classes"
    for name in source.files:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in ('.csv', '.tsv', '.jsonl'):
            return f'; {name} names none of them'
        if suffix in ('.xlsx', '.xls', '.ods'):
            return f'; save {name} as labels.csv'
    return ''
