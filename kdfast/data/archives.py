"The files of a folder or an archive, found, checked and opened; nothing is unpacked to disk."

import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import translate
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from kdfast.core.errors import KdfastError
from kdfast.core.notes import Notes
from kdfast.core.paths import is_unsafe_path

ARCHIVES = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tbz', '.tar.xz', '.txz', '.tar.zst', '.tzst', '.zip')
FILE_LIMIT = 2**28  # bytes of an image
ARCHIVE_LIMIT, MEMBER_LIMIT = 200 * 2**30, 5_000_000  # bytes that an archive unpacks to, and files that it holds


# the last two: a zip's encryption, its compression
READ_ERRORS = (
    OSError,
    EOFError,
    zlib.error,
    LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,
    NotImplementedError,
)


MACHINE_MADE = (
    '.*',
    '__MACOSX',
    '@eaDir',
    '@Recycle',
    '@Recently-Snapshot',
    '#recycle',
    '#snapshot',
    '$RECYCLE.BIN',
    'RECYCLER',
    'System Volume Information',
    'lost+found',
    'Network Trash Folder',
    'Temporary Items',
    '__pycache__',
    'Thumbs.db',
    'ehthumbs.db',
    'ehthumbs_vista.db',
    'desktop.ini',
    'Icon\r',
    'SYNOFILE_THUMB*',
    'SYNOPHOTO_THUMB*',
    '~$*',
    '*.crdownload',
    '*.part',
    '*.partial',
)  # files and folders


MACHINE_MADE_NAME = re.compile('|'.join(map(translate, MACHINE_MADE)))
MADE = 'left out, made by programs'


@contextmanager
def archive_entries(
    path: Path,  # A folder, an archive or a single file
    notes: Notes | None = None,  # Where to report what is left out
) -> Iterator[dict[str, Callable]]:
    """The opener of every file by its name, in the order in which the source is read fastest.

    Nothing is unpacked to disk. Names have forward slashes, whatever packed them. What programs leave behind
    (.DS_Store, @eaDir, …) is left out and noted.
    Raises KdfastError for an archive that cannot be read, or holds what no archive of images does.
    """
    notes = notes or Notes()
    try:
        if path.is_dir():
            yield {name: partial(open, entry.path, 'rb') for name, entry in walk(path, notes)}
        elif is_zip(path):
            with zipfile.ZipFile(path) as z:
                yield members(path, zip_members(z), notes)
        elif is_tar(path):
            with unpacked(path) as f, tarfile.open(fileobj=f) if f else tarfile.open(path) as t:
                yield members(
                    path, ((m.name, m.size, m.isfile(), partial(t.extractfile, m)) for m in t if not m.isdir()), notes
                )
        elif path.name.lower().endswith(ARCHIVES):
            raise KdfastError(f'{path} is not a readable archive ({kind_of_archive(path)}): download or pack it again')
        else:
            yield {path.name: partial(open, path, 'rb')}
    except (tarfile.TarError, zipfile.BadZipFile, LZMAError, zlib.error, EOFError) as e:
        raise KdfastError(f'{path} is not a readable archive ({e}): download or pack it again') from e


def is_archive(
    path: Path,  # A file
) -> bool:
    "Whether it is, or is called, an archive of one of the known kinds."
    return path.name.lower().endswith(ARCHIVES) or is_zip(path) or is_tar(path)


def is_zip(path):
    return first_bytes(path, 2) == b'PK' and zipfile.is_zipfile(path)  # a tar may end like one


def is_tar(path):
    if first_bytes(path, 4) == ZSTD:
        return True
    try:
        return tarfile.is_tarfile(path)
    except (LZMAError, zlib.error, EOFError):
        return False  # one that breaks off at once


def first_bytes(path, n):
    with open(path, 'rb') as f:
        return f.read(n)


ZSTD = b'\x28\xb5\x2f\xfd'


@contextmanager
def unpacked(path):
    "The tar inside a .tar.zst; None for what tarfile itself unpacks"
    if first_bytes(path, 4) != ZSTD:
        yield None
        return
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError as e:
            raise KdfastError(
                f"{path} is packed with Zstandard, which needs a package that is not installed: pip "
                "install 'kdfast[zst]'"
            ) from e
    try:
        with zstd.open(path) as f:
            yield f
    except zstd.ZstdError as e:
        raise KdfastError(f'{path} is not a readable archive ({e}): download or pack it again') from e


def kind_of_archive(path):
    "What is wrong with a file that is called an archive"
    start = first_bytes(path, 8)
    if not start:
        return 'it is empty'
    for magic, said in {
        b'7z\xbc\xaf\x27\x1c': 'it is a 7z archive: unpack it and pass the folder',
        b'Rar!': 'it is a RAR archive: unpack it and pass the folder',
        b'<': 'it is a web page',
        b'\x1f\x8b': 'it breaks off, or holds no tar',
        b'\xfd7zX': 'it breaks off, or holds no tar',
        b'BZh': 'it breaks off, or holds no tar',
        b'PK': 'it breaks off',
        b'version ': 'it is a Git LFS pointer: fetch the file with git lfs pull',
    }.items():
        if start.startswith(magic):
            return said
    return 'neither a zip nor a tar'


def zip_members(z):
    for info in z.infolist():
        name = info.filename.replace('\\', '/')  # as PowerShell 5 and .NET write them
        if not info.flag_bits & 0x800:
            name = utf8(name)
        if not name.endswith('/'):
            yield name, info.file_size, not is_special(info.external_attr >> 16), partial(z.open, info)


def utf8(name):
    "A name that was packed as UTF-8 and not marked as such"
    try:
        return name.encode('cp437').decode()
    except UnicodeError:
        return name


def is_special(mode):
    "Neither a plain file nor unsaid: a link, a device, a pipe"
    return mode & 0o170000 not in (0, 0o100000)


def members(path, found, notes):
    "The opener of each by its name, where the archive is what it should be"
    seen, made, total, n = {}, {}, 0, 0
    for name, n_bytes, plain, open_file in found:
        total, n = total + n_bytes, n + 1
        name = PurePosixPath(name).as_posix()
        problem = (
            'is a link, a device or a pipe; pack the files themselves'
            if not plain
            else 'leads out of the archive'
            if is_unsafe_path(name)
            else 'is there twice'
            if name in seen
            else f'is one file too many, more than {MEMBER_LIMIT:,}: unpack it and pass the folder'
            if n > MEMBER_LIMIT
            else f'makes it more than {ARCHIVE_LIMIT / 2**30:.0f} GB unpacked: unpack it and pass the folder'
            if total > ARCHIVE_LIMIT
            else ''
        )
        if problem:
            raise KdfastError(f'{path}: {name!r} {problem}')
        root = machine_made(name)
        if root:
            made[root] = True
        else:
            seen[name] = open_file
    for root in made:
        notes.add(MADE, root)
    return seen


def machine_made(name):
    "The file or folder of the path that a program has left there; None where it is all the user's"
    parts = PurePosixPath(name).parts
    return next(('/'.join(parts[: i + 1]) for i, part in enumerate(parts) if is_made(part)), None)


def is_made(part):
    return bool(MACHINE_MADE_NAME.match(part))


def walk(
    path: Path,  # A folder
    notes: Notes | None = None,  # Where to report what is left out
) -> Iterator[tuple[str, os.DirEntry]]:
    """(name, entry) of all files below, in order; links are followed, but not in a circle.

    Raises KdfastError for a link to nothing.
    """
    notes = notes or Notes()
    yield from files_below(path, path.resolve(), '', (path.resolve(),), notes)


def files_below(root, folder, prefix, inside, notes):
    with os.scandir(folder) as found:
        below = sorted(found, key=lambda entry: entry.name)
    for entry in below:
        name = prefix + entry.name
        if is_made(entry.name):
            notes.add(MADE, name)
        elif entry.is_dir():
            target = Path(entry.path).resolve() if entry.is_symlink() else Path(entry.path)
            if target not in inside:
                yield from files_below(root, target, f'{name}/', (*inside, target), notes)
        elif entry.is_file():
            yield name, entry
        elif entry.is_symlink():
            raise KdfastError(f'{root}: {name} is a link to nothing: remove it')


def folders_of(
    path: Path,  # A folder
    depth: int = 2,  # How far to look below it
) -> list[str]:
    "The names of the folders in it, but for those that programs have made."
    if not path.is_dir() or not depth:
        return []
    found = [entry.name for entry in os.scandir(path) if entry.is_dir() and not is_made(entry.name)]
    return sorted([*found, *(f'{name}/{below}' for name in found for below in folders_of(path / name, depth - 1))])


def read_file(open_file):
    "The file's bytes, or the pixels that are there already, or the error"
    try:
        content = open_file()
        if not hasattr(content, 'read'):
            return content
        with content as f:
            content = f.read(FILE_LIMIT + 1)
    except READ_ERRORS as e:
        return e
    return content if len(content) <= FILE_LIMIT else ValueError(f'more than {FILE_LIMIT / 2**20:.0f} MB')
