"The files of a folder or an archive, found, checked and opened; nothing is unpacked to disk."
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from kdfast.errors import KdfastError

FILE_LIMIT = 2**26 # bytes
ARCHIVE_LIMIT,MEMBER_LIMIT = 20 * 2**30,2_000_000 # bytes that an archive unpacks to, and files that it holds
TABLE = 'labels.csv' # in place of folders, it says the class of every image
READ_ERRORS = (OSError, EOFError, zlib.error, LZMAError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError) # the last two: a zip's encryption, its compression


@contextmanager
def entries(
    path:Path, # A folder or an archive
) -> Iterator[list[tuple[str,Callable]]]:
    """(name, opener) of every file, in the order in which the source is read fastest; nothing is unpacked to disk.

    Raises KdfastError for an archive that does not read, or holds what no archive of images does.
    """
    try:
        if path.is_dir(): yield [(name, partial(open, file, 'rb')) for name,file in files_of_folder(path)]
        elif path.suffix.lower() == '.zip':
            with zipfile.ZipFile(path) as z:
                yield members(path, ((i.filename, i.file_size, not is_special(i.external_attr >> 16), partial(z.open, i))
                                     for i in z.infolist() if not i.is_dir()))
        else:
            with tarfile.open(path) as t: yield members(path, ((m.name, m.size, m.isfile(), partial(t.extractfile, m)) for m in t if not m.isdir()))
    except (tarfile.TarError, zipfile.BadZipFile, LZMAError, zlib.error, EOFError) as e:
        raise KdfastError(f'{path} is not a readable archive ({e}): fetch it again') from e


def is_special(mode):
    "Neither a plain file nor unsaid: a link, a device, a pipe"
    return mode & 0o170000 not in (0, 0o100000)


def members(path, found):
    "(name, opener) of each, where the archive is what it should be"
    seen,total = {},0
    for name,n_bytes,plain,open_file in found:
        total += n_bytes
        problem = ('is a link, a device or a pipe; pack the files themselves' if not plain else
                   'leads out of the archive' if leads_out(name) else
                   'is there twice' if name in seen else
                   f'is one file too many, more than {MEMBER_LIMIT:,}' if len(seen) >= MEMBER_LIMIT else
                   f'makes it more than {ARCHIVE_LIMIT/2**30:.0f} GB unpacked' if total > ARCHIVE_LIMIT else '')
        if problem: raise KdfastError(f'{path}: {name!r} {problem}')
        seen[name] = open_file
    return list(seen.items())


def leads_out(name): return name.startswith(('/', '\\')) or '..' in PurePosixPath(name).parts or '\0' in name or name[1:2] == ':'


def files_of_folder(
    path:Path, # A folder
) -> list[tuple[str,Path]]:
    "(name, file) of what lies in the folders of the classes; or, where there are none but a labels.csv, of everything."
    table = [path/TABLE] if (path/TABLE).is_file() else []
    by_table = table and not any(d.is_dir() for d in path.glob('train/[!.]*'))
    return [(file.relative_to(path).as_posix(), file) for file in (walk(path, (path.resolve(),)) if by_table else [*table, *sorted(path.glob('*/*/*'))])]


def walk(folder, inside):
    "All files below, in order; links are followed, but not in a circle"
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith('.') or entry.is_dir() and entry.resolve() in inside: continue
        if entry.is_dir(): yield from walk(entry, (*inside, entry.resolve()))
        elif entry.is_file(): yield entry


def read(open_file):
    "The file's bytes, or the error"
    try:
        with open_file() as f: content = f.read(FILE_LIMIT + 1)
    except READ_ERRORS as e: return e
    return content if len(content) <= FILE_LIMIT else ValueError(f'more than {FILE_LIMIT/2**20:.0f} MB')
