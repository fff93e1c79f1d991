"Where the bytes of an image are, so that they can be read at random, and again by another process."

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from kdfast.data.files import FILE_LIMIT, READ_ERRORS, read_part

WHOLE, PART, ZIP_STORED, ZIP_DEFLATED = range(4)  # a file; a part of one; a member of a zip
PACKING_OF_METHOD = {zipfile.ZIP_STORED: ZIP_STORED, zipfile.ZIP_DEFLATED: ZIP_DEFLATED}
ENCRYPTED = 1  # flag of a zip member
ZIP_HEADER = struct.Struct('<26xHH')  # lengths of the name and of the extra field, which precede the content


class Place(NamedTuple):
    "A file, or a part of it."

    path: str  # Of the file, the archive or the shard
    start: int = 0  # Offset in bytes; of a zip member, that of its header
    size: int = -1  # Bytes of the part
    packing: int = WHOLE


def place_of(
    open_file: Callable,  # Opener of an image
) -> Place | None:
    "Return where an image is; None if it cannot be read at random."
    if not (isinstance(open_file, partial) and open_file.args):
        return None
    owner, first = getattr(open_file.func, '__self__', None), open_file.args[0]
    if open_file.func is open:
        return Place(str(first))
    if open_file.func is read_part:
        start, size = open_file.args[1:]
        around = place_of(first)
        return around and _part_of(around, start, size)
    if isinstance(owner, tarfile.TarFile) and isinstance(owner.fileobj, BufferedReader) and not first.issparse():
        return Place(owner.name, first.offset_data, first.size, PART)
    if isinstance(owner, zipfile.ZipFile) and not first.flag_bits & ENCRYPTED:
        packing = PACKING_OF_METHOD.get(first.compress_type)
        return packing and Place(owner.filename, first.header_offset, first.compress_size, packing)
    return None


def _part_of(around, start, size):
    "The place of a part of a file, or of a part of a part"
    return Place(around.path, around.start + start, size, PART) if around.packing in (WHOLE, PART) else None


def read_place(
    path: Path,  # Of the file, the archive or the shard
    start: int,  # As of Place
    size: int,  # As of Place
    packing: int,  # As of Place
) -> bytes | Exception:
    "Return the bytes of an image, or the error."
    try:
        with open(path, 'rb') as file:
            if packing == WHOLE:
                return file.read(FILE_LIMIT)
            file.seek(start)
            if packing != PART:
                file.seek(sum(ZIP_HEADER.unpack(file.read(ZIP_HEADER.size))), 1)
            content = file.read(size)
        return zlib.decompress(content, -zlib.MAX_WBITS) if packing == ZIP_DEFLATED else content
    except (*READ_ERRORS, struct.error) as e:
        return e
