"What all layouts share: the types Source, Item and Listing, and the names of splits."

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import KdfastError, listed
from kdfast.core.notes import Notes
from kdfast.data.formats import is_image
from kdfast.data.labels import SEVERAL, SPACES

SPLIT_NAMES = dict(train='training', valid='validation', test='test')  # in messages
SPLIT_WORDS = dict(
    train='train training trn trainval'.split(),
    valid='valid validation validate val dev devel development eval evaluation holdout publictest'.split(),
    test='test testing tst privatetest'.split(),
)
SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}

# Words that may stand beside the name of a split: train_images, Test Set
FILLER_WORDS = frozenset(
    'set split splits seg image images img imgs picture pictures pic pics photo photos data dataset '
    'sample samples file files folder label labels'.split()
)


class Item(NamedTuple):
    "One image of a source."

    name: str  # Unique in the source; errors and notes use it
    split: str | None  # train, valid or test; None if the source does not define one
    label: str | tuple[str, ...]  # Name of the class; or names of all labels of the image
    open: Callable  # Return a binary file, an array of pixels or a PIL image


@dataclass
class Listing:
    "All images of a source, as one layout reads them."

    layout: str  # Name of the layout, for reports
    items: list[Item]  # In any order
    classes: list[str] | None = None  # In the order of the labels; None: sorted by name


@dataclass
class Source:
    "The input of a layout: the files of a folder or an archive, and the user's options."

    path: Path  # Of the folder or archive
    files: dict[str, Callable]  # Openers by name, in the order that is fastest to read
    notes: Notes = field(default_factory=Notes)
    columns: dict[str, str] = field(default_factory=dict)  # Columns of a table by role: name, label, split
    skip_broken: bool = False  # Skip images and rows that cannot be read
    table: str | None = None  # The table that the user named, if any
    labels: str | None = None  # Kind of labels, as --labels has it
    broken: list[str] = field(default_factory=list)  # Images that cannot be read, with the reason

    @property
    def several(self) -> bool:
        "Whether images have several labels."
        return self.labels in (SEVERAL, SPACES)

    @cached_property
    def images(self) -> list[str]:
        "Names of the files that are images, in the order of the source."
        return [name for name, open_file in self.files.items() if is_image(name, open_file)]

    def reject(
        self,
        name: str,  # Of the image
        reason: str,  # Why it cannot be read
    ):
        "Record an image that cannot be read, with a note; all images are decoded before any error is raised."
        self.broken.append(f'{name} ({reason})')
        self.notes.add('skipped, cannot be read', self.broken[-1])

    def check(self):
        "Raise KdfastError if images cannot be read and must not be skipped."
        if self.broken and not self.skip_broken:
            raise unreadable(self.path, listed(self.broken, '; '))


def unreadable(
    source: Path | str,  # Of the images
    broken: str,  # Names of those that cannot be read, with the reasons
) -> KdfastError:
    "Return the error for images that cannot be read."
    return KdfastError(
        f'{source}: cannot read {broken}: replace or remove these files, or skip them with --skip-broken'
    )


def split_of(
    word: str,  # Name of a folder or a file, or a cell of a table
) -> str | None:  # train, valid or test
    "Return the split that a name stands for (Training_Set, val2017, test-images), or None."
    letters = re.sub(r'[^a-z]', '', word.lower())
    words = [letters] if letters in SPLIT_OF_WORD else [w.lower() for w in re.findall(r'[A-Z]?[a-z]+|[A-Z]+', word)]
    found = {SPLIT_OF_WORD.get(w) or SPLIT_OF_WORD.get(w.removesuffix('set')) for w in words if w not in FILLER_WORDS}
    return found.pop() if len(found) == 1 else None


def split_of_file(
    name: str,  # Such as data/train-00000-of-00002.parquet
    *stems: str,  # Parts of the file name to try first
) -> str | None:  # train, valid or test
    "Return the split by the name of a file, else by its nearest folder that is named after a split."
    path = PurePosixPath(name)
    return next(filter(None, map(split_of, (*stems, path.stem, *reversed(path.parent.parts)))), None)


def table_hint(
    source: Source,  # Files of the data set
) -> str:
    "Return what to do about a table that does not define the classes, for the end of an error message."
    for name in source.files:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in ('.csv', '.tsv', '.jsonl'):
            return f'; {name} names none of them'
        if suffix in ('.xlsx', '.xls', '.ods'):
            return f'; save {name} as labels.csv'
    return ''
