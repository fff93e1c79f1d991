"""What a data set and the directory of its runs are called."""

import hashlib
import json
import re
import unicodedata
from pathlib import Path

from kdfast.data.archives import ARCHIVES, walk
from kdfast.data.decode import is_table

LONGEST_NAME = 150  # bytes


def dataset_name(path):
    "What a data set is called: as its folder or its archive"
    path = path.resolve()
    if path.is_dir():
        return path.name
    return path.parent.name if is_table(path) else without_suffix(path.name)


def source_stamp(
    path: Path,  # A folder, an archive or a table
) -> str:
    "Names, sizes and times of the files: cheap to ask at every start, and different after any change."
    if path.is_dir():
        return identity_of_folder(path)
    if is_table(path):
        return f'{path.name} {identity_of_folder(path.parent)}'
    return f'{path.stat().st_size} {path.stat().st_mtime_ns}'


def without_suffix(name):
    suffix = next((s for s in ARCHIVES if name.lower().endswith(s)), Path(name).suffix)
    return name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name


def run_name(name, size):
    "What names the folder of the runs on it: runs at another size are others"
    plain = re.sub(r'[^\w.-]+', '_', unicodedata.normalize('NFC', name)).strip('.') or 'data'
    if len(plain.encode()) > LONGEST_NAME:
        plain = f'{plain[: LONGEST_NAME // 5]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'
    return plain + (f',size={size}' if size else '')


def identity_of_folder(path):
    "Names, sizes and times of the files: cheap to ask at every start, and different after any change"
    stats = [(name, entry.stat()) for name, entry in walk(path)]
    return json.dumps([str(path.resolve()), *((name, s.st_size, s.st_mtime_ns) for name, s in stats)])
