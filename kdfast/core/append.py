"Files that only grow while a run trains: its steps, a row each."

import hashlib
import os
from pathlib import Path

from kdfast.core import distributed
from kdfast.core.errors import KdfastError


class Appended:
    """A file to which is only appended, and of which a checkpoint knows how much was there: what a kill left behind that is written over.

    Of several processes that train one run, the first alone writes.
    """

    def __init__(
        self,
        file: Path,
    ):
        self.file, self.size, self.sha256, self.waiting = file, 0, hashlib.sha256(), []

    def add(
        self,
        content: bytes,  # Kept in memory until the next `write`
    ):
        self.waiting.append(content)

    def write(
        self,
        sync: bool = False,  # Wait until it is on the disk
    ):
        "Append what was added."
        content, self.waiting = b''.join(self.waiting), []
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
        "What `restore` needs. Everything is on the disk by then."
        self.write(sync=True)
        return dict(size=self.size, sha256=self.sha256.hexdigest())

    def restore(
        self,
        state: dict,  # Of `state`, in this process or another
    ) -> bytes:  # What the file held then, and holds again
        "Go on from there. Raises KdfastError where the file is not as it was written."
        content = self.file.read_bytes()[: state['size']] if state['size'] else b''
        self.size, self.sha256, self.waiting = len(content), hashlib.sha256(content), []
        if self.state() != state:
            raise KdfastError(f'{self.file} is not as this run wrote it: remove {self.file.parent} to start over')
        return content

    def cut(self):
        "Leave nothing behind the end."
        if distributed.rank or not self.file.exists() or self.file.stat().st_size == self.size:
            return
        with self.file.open('r+b') as f:
            f.truncate(self.size)
