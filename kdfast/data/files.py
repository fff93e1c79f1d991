"Walk folders, read files within a size limit, and recognize system files."

import io
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fnmatch import translate
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import Any

from kdfast.core.errors import KdfastError
from kdfast.core.notes import Notes

FILE_LIMIT = 2**28  # bytes of an image

READ_ERRORS = (
    OSError,
    EOFError,
    zlib.error,
    LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,  # a zip that is encrypted
    NotImplementedError,  # a zip with an unknown compression
)

# Names of files and folders that systems and programs leave behind
SYSTEM_PATTERNS = (
    *'.* __MACOSX @eaDir @Recycle @Recently-Snapshot #recycle #snapshot $RECYCLE.BIN RECYCLER lost+found'.split(),
    *('System Volume Information', 'Network Trash Folder', 'Temporary Items', 'Icon\r'),
    *'__pycache__ Thumbs.db ehthumbs.db ehthumbs_vista.db desktop.ini SYNOFILE_THUMB* SYNOPHOTO_THUMB*'.split(),
    *'~$* *.crdownload *.part *.partial'.split(),
)
SYSTEM_NAME = re.compile('|'.join(map(translate, SYSTEM_PATTERNS)))
SYSTEM_NOTE = 'skipped, system files'


def find_system_file(
    name: str,  # Path of a file in a source, with forward slashes
) -> str | None:
    "Return the part of a path up to its first system file or folder, or None."
    parts = PurePosixPath(name).parts
    return next(('/'.join(parts[: i + 1]) for i, part in enumerate(parts) if SYSTEM_NAME.match(part)), None)


def walk(
    path: Path,  # A folder
    notes: Notes | None = None,  # Receives a note on system files
) -> Iterator[tuple[str, os.DirEntry]]:
    """Yield (name, entry) of all files below a folder, sorted by name within each folder.

    Links are followed, except to a folder that the link lies in. Raises KdfastError for a broken link.
    """
    notes = notes or Notes()
    yield from _walk_below(path, path.resolve(), '', (path.resolve(),), notes)


def _walk_below(root, folder, prefix, ancestors, notes):
    with os.scandir(folder) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if SYSTEM_NAME.match(entry.name):
            notes.add(SYSTEM_NOTE, name)
        elif entry.is_dir():
            target = Path(entry.path).resolve() if entry.is_symlink() else Path(entry.path)
            if target not in ancestors:
                yield from _walk_below(root, target, f'{name}/', (*ancestors, target), notes)
        elif entry.is_file():
            yield name, entry
        elif entry.is_symlink():
            raise KdfastError(f'{root}: {name} is a broken link: remove it')


def list_folders(
    path: Path,  # A folder
) -> list[str]:
    "Return the names of the folders in a folder, without system folders, sorted."
    if not path.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not SYSTEM_NAME.match(entry.name))


def read_part(
    open_file: Callable,  # Return the file, opened for binary reading
    start: int,  # Offset of the part, in bytes
    size: int,  # Of the part
) -> io.BytesIO:
    "Return a part of a file, as a file."
    with open_file() as file:
        file.seek(start)
        return io.BytesIO(file.read(size))


def read_file(
    open_file: Callable,  # Return a binary file, an array of pixels or a PIL image
) -> bytes | Any | Exception:
    "Return the content of a file, or the opened array or image; return errors, too."
    try:
        content = open_file()
        if not hasattr(content, 'read'):
            return content
        with content as file:
            content = file.read(FILE_LIMIT + 1)
    except READ_ERRORS as e:
        return e
    return content if len(content) <= FILE_LIMIT else ValueError(f'more than {FILE_LIMIT / 2**20:.0f} MB')
