"Files that are written whole or not at all: text, bytes, JSON and CSV; and their SHA-256. Imports no torch."

import csv
import hashlib
import io
import json
import os
from pathlib import Path

from kdfast.core import distributed


def write(
    file: Path,  # Where to
    content: str | bytes,
):
    """Write the whole file or nothing: a reader meets the old content or the new, never a part. It is on the disk when this returns.

    Of several processes that train one run, the first alone writes.
    """
    if distributed.rank:
        return
    new = file.with_name(
        f'.{file.name}.{os.getpid()}'
    )  # two processes may write one file: each its own, the last one stays
    try:
        with new.open('wb') as f:
            f.write(content.encode() if isinstance(content, str) else content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(new, file)
        if os.name == 'posix':
            fsync_folder(file.parent)  # where a folder can be opened
    except OSError as e:
        e.filename = e.filename or str(file)  # fsync names none
        raise
    finally:
        new.unlink(missing_ok=True)


def fsync_folder(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_half_written(path):
    "What `write` left in a folder when its process was killed; for whoever alone writes there"
    for file in path.glob('.*.[0-9]*'):
        file.unlink()


def sha256(file):
    with Path(file).open('rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def write_json(file, content):
    write(file, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + '\n')


def write_csv(file, header, rows):
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow([harmless(cell) for cell in header])
    table.writerows([harmless(cell) for cell in row] for row in rows)
    write(file, text.getvalue())


ACTS = ('=', '+', '-', '@', '\t', '\r')  # what a spreadsheet would calculate


def harmless(cell):
    "With ' in front of what a spreadsheet would calculate; and of what would be taken for that when it is read again"
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip("'").startswith(ACTS) else cell


def as_it_was(cell):
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(ACTS) else cell
