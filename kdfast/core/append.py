"Files that only grow while a run trains, such as the metrics of each step."

import csv
import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path

from kdfast.core import distributed
from kdfast.core.errors import KdfastError


class AppendOnlyFile:
    """Append to a file whose length is saved in checkpoints.

    What a killed process wrote after its last checkpoint is overwritten. In distributed training only the process of
    rank 0 writes.
    """

    def __init__(
        self,
        file: Path,  # Created by the first `write`
    ):
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.pending = []

    def add(
        self,
        content: bytes,  # Kept in memory until the next `write`
    ):
        "Add content to what the next `write` appends."
        self.pending.append(content)

    def write(
        self,
        sync: bool = False,  # Wait until the content is on the disk
    ):
        "Append the pending content to the file. Raises OSError with the name of the file."
        content = b''.join(self.pending)
        self.pending = []
        if distributed.rank or not (content or sync and self.size):
            return
        try:
            with self.file.open('r+b' if self.size or self.file.exists() else 'wb') as f:
                f.seek(self.size)
                f.write(content)
                f.flush()
                if sync:
                    os.fsync(f.fileno())
        except OSError as e:
            e.filename = e.filename or str(self.file)
            raise
        self.size += len(content)
        self.sha256.update(content)

    def state(self) -> dict:
        "Write everything to the disk, then return the size and the SHA-256 that `restore` needs."
        self.write(sync=True)
        return dict(size=self.size, sha256=self.sha256.hexdigest())

    def restore(
        self,
        state: dict,  # Returned by `state`, in this process or an earlier one
    ) -> bytes:  # The content of the file at that time
        "Continue after the content that `state` describes. Raises KdfastError if that content has changed."
        content = self.file.read_bytes()[: state['size']] if state['size'] else b''
        self.size = len(content)
        self.sha256 = hashlib.sha256(content)
        self.pending = []
        if self.state() != state:
            raise KdfastError(
                f'{self.file} has changed since this run wrote it: remove {self.file.parent} to start over'
            )
        return content

    def truncate(self):
        "Remove what the file holds beyond the content that this object has written."
        if distributed.rank or not self.file.exists() or self.file.stat().st_size == self.size:
            return
        with self.file.open('r+b') as f:
            f.truncate(self.size)


def csv_row(
    values: Iterable,  # Of a row
) -> bytes:
    "Return a row of a CSV file."
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerow(values)
    return text.getvalue().encode()
