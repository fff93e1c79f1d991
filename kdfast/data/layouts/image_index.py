"Find the image that a cell of a table or a line of a list names."

import unicodedata
from collections import defaultdict
from pathlib import PurePosixPath

from kdfast.core.paths import is_unsafe_path
from kdfast.data.layouts.base import Source, split_of


class ImageIndex:
    """The images of a source by name: with or without their folder, with or without their suffix.

    Paths of another computer count by their last parts. Case and the encoding of accents may differ, as on Windows and
    macOS, if no name is equal.
    """

    def __init__(
        self,
        source: Source,  # Files of the data set
    ):
        self.path = source.path
        self.files = source.files
        self.images = source.images
        self.known = set(source.images)
        self.by_file_name = defaultdict(list)  # the name of the file, with and without its suffix
        for name in self.images:
            path = PurePosixPath(name)
            for file_name in {path.name, path.stem}:
                self.by_file_name[file_name].append(name)
        self.by_folded_name = defaultdict(list)
        for file_name, names in self.by_file_name.items():
            self.by_folded_name[_folded(file_name)] += names

    def find(
        self,
        cell: str,  # Name of an image
        table: str = '',  # Name of the table or list, which the cell may be relative to
        split: str | None = None,  # Of several candidates, take the one in a folder of this split
    ) -> str | None:
        "Return the name of the only image that the cell can mean, or None."
        if not cell or '\0' in cell or '..' in PurePosixPath(cell).parts:
            return None
        wanted = _path(self._relative(cell) or cell)
        beside_table = (PurePosixPath(table).parent / wanted).as_posix()
        if beside_table in self.known:
            return beside_table
        candidates = self._candidates(wanted)
        if len(candidates) > 1:
            candidates = _longest_match(candidates, wanted)
        if len(candidates) > 1 and split:
            candidates = [name for name in candidates if split in map(split_of, PurePosixPath(name).parts[:-1])]
        return candidates[0] if len(candidates) == 1 else None

    def is_ambiguous(
        self,
        cell: str,  # Name of an image
    ) -> bool:
        "Return whether several images match the cell equally well."
        return len(_longest_match(self._candidates(_path(cell)), _path(cell))) > 1

    def is_outside(
        self,
        cell: str,  # Name of an image
    ) -> bool:
        "Return whether the cell is a path outside the source."
        return is_unsafe_path(cell) and not self._relative(cell)

    def is_complete(
        self,
        cell: str,  # Name of an image
        table: str,  # Name of the table that has the cell
        image: str,  # Name of the image in the source
    ) -> bool:
        "Return whether the cell is the whole name of the image, relative to the table or absolute."
        return image in (self._relative(cell), (PurePosixPath(table).parent / cell).as_posix())

    def _candidates(self, wanted):
        "The images with the file name of a path"
        return self.by_file_name.get(wanted.name) or self.by_folded_name.get(_folded(wanted.name), [])

    def _relative(self, cell):
        "The name in the source of an absolute path; None for other cells"
        if not cell.startswith('/') or '..' in PurePosixPath(cell).parts:
            return None
        for root in (self.path.absolute(), self.path.resolve()):
            if PurePosixPath(cell).is_relative_to(root):
                return PurePosixPath(cell).relative_to(root).as_posix()
        return None


def _path(cell):
    "A path with forward slashes or with those of Windows"
    return PurePosixPath(cell.replace('\\', '/'))


def _folded(name):
    "A file name as file systems that ignore case compare it"
    return unicodedata.normalize('NFC', name).casefold()


def _longest_match(candidates, wanted):
    "The candidates that share most folders with the wanted path, counted from the file upwards"

    def n_shared(name):
        folders = zip(PurePosixPath(name).parts[-2::-1], wanted.parts[-2::-1])
        return next(
            (n for n, (a, b) in enumerate(folders) if a != b),
            min(len(PurePosixPath(name).parts), len(wanted.parts)) - 1,
        )

    best = max(map(n_shared, candidates), default=0)
    return [name for name in candidates if n_shared(name) == best]
