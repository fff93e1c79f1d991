"Open the files of a folder or an archive, without unpacking; reject harmful archives."

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from kdfast.core.errors import KdfastError
from kdfast.core.notes import Notes
from kdfast.core.paths import is_unsafe_path
from kdfast.data.files import SYSTEM_NOTE, find_system_file, walk

SUFFIXES = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tbz', '.tar.xz', '.txz', '.tar.zst', '.tzst', '.zip')
SIZE_LIMIT = 200 * 2**30  # bytes of the unpacked files
MEMBER_LIMIT = 5_000_000  # files
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
REGULAR_FILE, FILE_TYPE_MASK = 0o100000, 0o170000  # of a Unix mode
UTF8_FLAG = 0x800  # of a zip member

# What a file with the suffix of an archive is, by its first bytes
PROBLEMS = {
    b'7z\xbc\xaf\x27\x1c': 'it is a 7z archive: unpack it and pass the folder',
    b'Rar!': 'it is a RAR archive: unpack it and pass the folder',
    b'<': 'it is a web page',
    b'\x1f\x8b': 'it is truncated, or contains no tar',
    b'\xfd7zX': 'it is truncated, or contains no tar',
    b'BZh': 'it is truncated, or contains no tar',
    b'PK': 'it is truncated',
    b'version ': 'it is a Git LFS pointer: fetch the file with git lfs pull',
}


@contextmanager
def open_entries(
    path: Path,  # A folder, an archive or a single file
    notes: Notes | None = None,  # Receives a note on system files
) -> Iterator[dict[str, Callable]]:
    """Open a folder or an archive, and yield the opener of every file by its name.

    Files are in the order that is fastest to read. Names have forward slashes on every platform. System files
    (.DS_Store, @eaDir, …) are skipped. Raises KdfastError for an archive that cannot be read, and for one with links,
    devices, duplicate names, paths outside the archive, or more files or bytes than the limits.
    """
    notes = notes or Notes()
    try:
        if path.is_dir():
            yield {name: partial(open, entry.path, 'rb') for name, entry in walk(path, notes)}
        elif _is_zip(path):
            with zipfile.ZipFile(path) as archive:
                yield _checked_members(path, _zip_members(archive), notes)
        elif _is_tar(path):
            with _open_zstd(path) as file, tarfile.open(fileobj=file) if file else tarfile.open(path) as archive:
                yield _checked_members(path, _tar_members(archive), notes)
        elif path.name.lower().endswith((*SUFFIXES, '.npz')):
            raise _unreadable(path, _problem(path))
        else:
            yield {path.name: partial(open, path, 'rb')}
    except (tarfile.TarError, zipfile.BadZipFile, LZMAError, zlib.error, EOFError) as e:
        raise _unreadable(path, e) from e


def _unreadable(path, reason):
    return KdfastError(f'{path} is not a readable archive ({reason}): download or pack it again')


def _is_zip(path):
    return _first_bytes(path, 2) == b'PK' and zipfile.is_zipfile(path)  # a tar may end like a zip


def _is_tar(path):
    if _first_bytes(path, 4) == ZSTD_MAGIC:
        return True
    try:
        return tarfile.is_tarfile(path)
    except (LZMAError, zlib.error, EOFError):
        return False  # truncated at once


def _first_bytes(path, n):
    with open(path, 'rb') as file:
        return file.read(n)


@contextmanager
def _open_zstd(path):
    "The tar inside a .tar.zst; None for other archives, which tarfile unpacks itself"
    if _first_bytes(path, 4) != ZSTD_MAGIC:
        yield None
        return
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError as e:
            raise KdfastError(f"{path}: Zstandard archives need backports.zstd: pip install 'kdfast[zst]'") from e
    try:
        with zstd.open(path) as file:
            yield file
    except zstd.ZstdError as e:
        raise _unreadable(path, e) from e


def _problem(path):
    "Why a file with the suffix of an archive cannot be read"
    start = _first_bytes(path, 8)
    if not start:
        return 'it is empty'
    return next((problem for magic, problem in PROBLEMS.items() if start.startswith(magic)), 'neither a zip nor a tar')


def _tar_members(archive):
    "(name, bytes, whether it is a regular file, opener) of each file"
    for member in archive:
        if not member.isdir():
            yield member.name, member.size, member.isfile(), partial(archive.extractfile, member)
    check_end(archive)


def check_end(
    archive: tarfile.TarFile,  # After all of its members
):
    "Raise tarfile.ReadError if a tar does not end as it should: tarfile ends at any damaged member."
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError('it is truncated or damaged')


def _zip_members(archive):
    "(name, bytes, whether it is a regular file, opener) of each file"
    for info in archive.infolist():
        name = info.filename.replace('\\', '/')  # as PowerShell 5 and .NET write names
        if not info.flag_bits & UTF8_FLAG:
            name = _decode_unmarked(name)
        if not name.endswith('/'):
            file_type = info.external_attr >> 16 & FILE_TYPE_MASK
            yield name, info.file_size, file_type in (0, REGULAR_FILE), partial(archive.open, info)


def _decode_unmarked(name):
    "A name that is UTF-8 without the flag for it; other names as they are"
    try:
        return name.encode('cp437').decode()
    except UnicodeError:
        return name


def _checked_members(path, members, notes):
    "Openers by name, without system files. Raises KdfastError for a member that could do harm"
    openers, system_files, n_bytes = {}, {}, 0
    for n, (name, size, is_regular, open_file) in enumerate(members, 1):
        n_bytes += size
        name = PurePosixPath(name).as_posix()
        problem = member_problem(name, is_regular, name in openers) or _limit_problem(n, n_bytes)
        if problem:
            raise KdfastError(f'{path}: {name!r} {problem}')
        system_path = find_system_file(name)
        if system_path:
            system_files[system_path] = True
        else:
            openers[name] = open_file
    for system_path in system_files:
        notes.add(SYSTEM_NOTE, system_path)
    return openers


def member_problem(
    name: str,  # Of a member of an archive
    is_regular: bool,  # Whether it is a file, not a link, a device or a pipe
    is_duplicate: bool,  # Whether another member has the name
) -> str:
    "Return why an archive with this member is rejected; empty if it is not."
    if not is_regular:
        return 'is a link, a device or a pipe: pack the files themselves'
    if is_unsafe_path(name):
        return 'is a path outside the archive'
    return 'appears twice' if is_duplicate else ''


def _limit_problem(n, n_bytes):
    "Why an archive of so many files and bytes is rejected; empty if it is not"
    if n > MEMBER_LIMIT:
        return f'is one file too many, more than {MEMBER_LIMIT:,}: unpack it and pass the folder'
    if n_bytes > SIZE_LIMIT:
        return f'makes it more than {SIZE_LIMIT / 2**30:.0f} GB unpacked: unpack it and pass the folder'
    return ''
