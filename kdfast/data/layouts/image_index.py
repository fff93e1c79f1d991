"Find the image that a cell of a table or a line of a list names."

import unicodedata
from collections import Counter, defaultdict
from functools import cached_property
from pathlib import PurePosixPath

from kdfast.core.paths import is_unsafe_path
from kdfast.data.layouts.base import Source
from kdfast.data.layouts.splits import find_folder_splits


class ImageIndex:
    """The images of a source by name: with or without their folder, with or without their suffix.

    A relative name with folders may have more folders in front than the image, or fewer. Absolute paths of another
    computer count by their last parts. Case and the encoding of accents may differ, as on Windows and macOS, if no name
    is equal.
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
        inside = self._relative(cell)
        wanted = _path(inside or cell)
        for whole in (wanted,) if inside else (PurePosixPath(table).parent / wanted, wanted):
            if whole.as_posix() in self.known:
                return whole.as_posix()
        candidates = self._candidates(cell)
        if len(candidates) > 1 and split:
            candidates = [name for name in candidates if self._is_in_split(name, split)]
        return candidates[0] if len(candidates) == 1 else None

    def find_all(
        self,
        cells: list[str],  # Names of images in a table or a list
        table: str = '',  # Name of the table or list, which the cells may be relative to
        split: str | None = None,  # Of several candidates, take the one in a folder of this split
    ) -> list[tuple[str | None, str]]:  # (image, problem)
        """Return the image that each cell means, or what is wrong.

        Where an image is missing, one of the same name in another folder must not take its label. So the images of one
        folder of the table are in one folder of the source; and what is left out in front of some cells is not left out
        with more folders in front of others.
        """
        images = [self.find(cell, table, split) for cell in cells]
        places = [self._folders(cell, image) for cell, image in zip(cells, images)]
        usual = _usual_folders(filter(None, places))
        found = []
        for cell, image, place in zip(cells, images, places):
            if not image:
                found.append((None, self._problem(cell, table)))
            elif place and usual.get(place[0], '') != place[1]:
                beside = f' in {usual[place[0]]}, which has the others' if usual.get(place[0]) else ''
                found.append((None, f'there is no file {cell}{beside}'))
            else:
                found.append((image, ''))
        return found

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

    def _candidates(self, cell):
        "The images that match a cell best"
        inside = self._relative(cell)
        wanted = _path(inside or cell)
        for by_name, same in ((self.by_file_name, str), (self.by_folded_name, _folded)):
            folders = [same(part) for part in wanted.parts[:-1]]
            candidates = {
                name: [same(part) for part in PurePosixPath(name).parts[:-1]]
                for name in by_name.get(same(wanted.name), ())
            }
            if inside:
                candidates = {name: found for name, found in candidates.items() if found == folders}
            elif not is_unsafe_path(cell):
                candidates = {name: found for name, found in candidates.items() if _is_end(found, folders)}
            if candidates:
                shared = {name: _n_shared(found, folders) for name, found in candidates.items()}
                return [name for name, n in shared.items() if n == max(shared.values())]
        return []

    @cached_property
    def _splits(self):
        "Splits by folder"
        return find_folder_splits(PurePosixPath(name).parts for name in self.images)

    def _is_in_split(self, name, split):
        parts = PurePosixPath(name).parts
        return any(self._splits.get(parts[:n]) == split for n in range(1, len(parts)))

    def _folders(self, cell, image):
        "The folder of a cell, and that of its image if they share a name; None without a folder or an image"
        folder = _path(self._relative(cell) or cell).parent
        if not image or not folder.parts:
            return None
        found = PurePosixPath(image).parent
        return folder, found if _n_shared_folded(folder, found) else None

    def _problem(self, cell, table):
        "Why a cell means no image"
        if not cell:
            return 'no name'
        if self.is_outside(cell):
            return f'{cell!r} is outside the folder: names are relative to the table'
        if len(self._candidates(cell)) > 1:
            return f'several files are called {cell}: add their folders'
        if (PurePosixPath(table).parent / cell).as_posix() in self.files:
            return f'{cell} is not an image'
        return f'there is no file {cell}'

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


def _n_shared(folders, others):
    "The number of folders that two paths share, counted from the file upwards"
    pairs = zip(reversed(folders), reversed(others))
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(folders), len(others)))


def _is_end(folders, others):
    "Whether one of two paths ends in the other"
    return _n_shared(folders, others) == min(len(folders), len(others))


def _n_shared_folded(folder, other):
    return _n_shared(*([_folded(part) for part in path.parts] for path in (folder, other)))


def _usual_folders(places):
    "The folder of the source for each folder of a table, without those that leave out more in front than others"
    usual = {}
    for (folder, found), _ in Counter(places).most_common():
        usual.setdefault(folder, found)
    left_out = {
        folder: folder.parts[: len(folder.parts) - (_n_shared_folded(folder, found) if found else 0)]
        for folder, found in usual.items()
    }
    fewest = set(left_out.values())
    return {
        folder: usual[folder]
        for folder, front in left_out.items()
        if not any(front[:n] in fewest for n in range(len(front)))
    }
