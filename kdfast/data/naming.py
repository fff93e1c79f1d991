"Names of data sets and of the directories of their runs, and stamps that change with their files."

import hashlib
import json
import re
import unicodedata
from pathlib import Path

from kdfast.data import archives
from kdfast.data.files import walk
from kdfast.data.layouts.rows import is_table

MAX_NAME_BYTES = 150


def dataset_name(
    path: Path,  # A folder, an archive or a table
) -> str:
    "Return the name of a data set: of its folder, or of its archive without the suffix."
    path = path.resolve()
    if path.is_dir():
        return path.name
    return path.parent.name if is_table(path) else _without_suffix(path.name)


def _without_suffix(name):
    suffix = next((suffix for suffix in archives.SUFFIXES if name.lower().endswith(suffix)), Path(name).suffix)
    return name[: len(name) - len(suffix)]


def run_name(
    name: str,  # Of a data set
    size: int | None,  # Image size, which keeps runs apart
) -> str:
    "Return the name of the directory of the runs on a data set, safe on every file system."
    safe = re.sub(r'[^\w.-]+', '_', unicodedata.normalize('NFC', name)).strip('.') or 'data'
    if len(safe.encode()) > MAX_NAME_BYTES:
        safe = f'{safe[: MAX_NAME_BYTES // 5]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'
    return safe + (f',size={size}' if size else '')


def source_stamp(
    path: Path,  # A folder, an archive or a table
) -> str:
    "Return names, sizes and times of the files: fast to collect, and different after any change."
    if path.is_dir():
        return _folder_stamp(path)
    if is_table(path):
        return f'{path.name} {_folder_stamp(path.parent)}'
    return f'{path.stat().st_size} {path.stat().st_mtime_ns}'


def _folder_stamp(path):
    "JSON of names, sizes and times; text by text, because searching a million lists for garbage would take seconds"
    stats = ((json.dumps(name), entry.stat()) for name, entry in walk(path))
    files = (f'[{name}, {stat.st_size}, {stat.st_mtime_ns}]' for name, stat in stats)
    return f'[{", ".join([json.dumps(str(path.resolve())), *files])}]'
