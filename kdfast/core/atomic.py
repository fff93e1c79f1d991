"Write files atomically (text, bytes, JSON, CSV) and compute their SHA-256. Imports no torch."

import csv
import hashlib
import io
import json
import os
from pathlib import Path

from kdfast.core import distributed

FORMULA_STARTS = ('=', '+', '-', '@', '\t', '\r')  # a spreadsheet evaluates cells that begin with one of these


def write(
    file: Path,  # Replaced if it exists
    content: str | bytes,  # Text is encoded as UTF-8
):
    """Write a file atomically: a reader sees the old content or the new.

    The content is on the disk on return. In distributed training only the process of rank 0 writes. Raises OSError with
    the name of the file.
    """
    if distributed.rank:
        return
    new = file.with_name(f'.{file.name}.{os.getpid()}')  # one per process: the last of two writers wins
    try:
        with new.open('wb') as f:
            f.write(content.encode() if isinstance(content, str) else content)
            f.flush()
            os.fsync(f.fileno())
        replace(new, file)
    except OSError as e:
        e.filename = e.filename or str(file)  # fsync sets no file name
        raise
    finally:
        new.unlink(missing_ok=True)


def replace(
    new: Path,  # A file on the same disk, which is on it completely
    file: Path,  # Replaced if it exists
):
    "Give a file the name of another one; that it has it is on the disk on return."
    os.replace(new, file)
    if os.name == 'posix':  # elsewhere a directory cannot be opened
        fsync_folder(file.parent)


def fsync_folder(
    path: Path,  # A directory
):
    "Flush a directory's entries to the disk."
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_half_written(
    path: Path,  # A directory in which no other process writes
):
    "Remove the temporary files that `write` left in a directory when its process was killed."
    for file in path.glob('.*.[0-9]*'):
        file.unlink(missing_ok=True)


def sha256(
    file: Path,  # Any file
) -> str:  # 64 hexadecimal digits
    "Compute the SHA-256 of a file."
    with Path(file).open('rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def write_json(
    file: Path,  # Replaced if it exists
    content: object,  # Plain values; NaN and infinity raise ValueError
):
    "Write a JSON file atomically."
    write(file, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + '\n')


def write_csv(
    file: Path,  # Replaced if it exists
    header: list,  # Names of the columns
    rows: list,  # A list of cells per row
):
    "Write a CSV file atomically; cells that a spreadsheet would evaluate are escaped."
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow([escape_csv_cell(cell) for cell in header])
    table.writerows([escape_csv_cell(cell) for cell in row] for row in rows)
    write(file, text.getvalue())


def escape_csv_cell(
    cell: object,  # Text is escaped, anything else is returned unchanged
) -> object:
    "Prefix ' to text that a spreadsheet would evaluate, and to text that already looks escaped."
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip("'").startswith(FORMULA_STARTS) else cell


def unescape_csv_cell(
    cell: str,  # As read from a CSV file
) -> str:
    "Undo `escape_csv_cell`."
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA_STARTS) else cell
