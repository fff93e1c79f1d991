"What all layouts share: the types Source, Item and Listing."

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kdfast.core.errors import LIST_LIMIT, KdfastError, listed
from kdfast.core.notes import Notes
from kdfast.data.formats import is_image
from kdfast.data.labels import SEVERAL, SPACES
from kdfast.data.layouts.splits import split_of

# Of other files that may hold labels, or where they are
UNREAD_SUFFIXES = frozenset(
    '.mat .npy .npz .pkl .pickle .pt .h5 .hdf5 .parquet .arrow .feather .xml .db .sqlite'.split()
)
# Names of images up to their number: cat.0, Abyssinian_100
NUMBERED = re.compile(r'([^\W\d_].*?)[\W_]*\d+\W*')
LEAST_PER_PREFIX = 3  # images whose names begin alike, on average, so that these may be classes


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
    classes: list[str] | None = None  # In the order of the labels; None: by number or by name
    by_text: bool = False  # Without `classes`: always by name, as torchvision, timm and fastai sort folders


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
    broken: list[tuple[str, str]] = field(default_factory=list)  # Images that cannot be read, and why

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
        self.broken.append((name, reason))
        self.notes.add('skipped, cannot be read', f'{name} ({reason})')

    def check(self):
        "Raise KdfastError if images cannot be read and must not be skipped."
        if self.broken and not self.skip_broken:
            raise unreadable(self.path, self.broken_text())

    def broken_text(self) -> str:
        "Return the names of the images that cannot be read, with the reasons, each once."
        by_reason = defaultdict(list)
        for name, reason in self.broken:
            by_reason[reason].append(name)
        shown = [f'{listed(names)} ({reason})' for reason, names in list(by_reason.items())[:LIST_LIMIT]]
        others = sum(map(len, list(by_reason.values())[LIST_LIMIT:]))
        return '; '.join(shown) + (f' and {others:,} more' if others else '')


def unreadable(
    source: Path | str,  # Of the images
    broken: str,  # Names of those that cannot be read, with the reasons
) -> KdfastError:
    "Return the error for images that cannot be read."
    return KdfastError(
        f'{source}: cannot read {broken}: replace or remove these images, or skip them with --skip-broken (in Python, '
        'skip_broken=True)'
    )


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
    for name in source.files:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in UNREAD_SUFFIXES:
            return f'; labels in {suffix} files such as {name} are not read beside images: write them to labels.csv'
    return ''


def names_hint(
    source: Source,  # Files of the data set
) -> str:
    "Return what to do about classes in names of images (cat.0.jpg), for the end of an error message."
    numbered = (NUMBERED.fullmatch(PurePosixPath(name).stem) for name in source.images)
    counts = Counter(match[1] for match in numbered if match)
    prefixes = [prefix for prefix, n in sorted(counts.items()) if n > 1 and not split_of(prefix)]
    n_images = sum(counts[prefix] for prefix in prefixes)
    if len(prefixes) < 2 or n_images < max(LEAST_PER_PREFIX * len(prefixes), len(source.images) / 2):
        return ''
    return (
        f'; the names of the images begin with {listed(prefixes)}: if these are the classes, move the images into a '
        'folder for each, or list them in a table labels.csv with the columns image and label'
    )
