"Read records of a fixed size from a file."

from collections.abc import Callable

import numpy as np

from kdfast.data.files import READ_ERRORS


class Records:
    "Records of a fixed size after a header; the file may be compressed, so it is read forwards."

    def __init__(
        self,
        open_file: Callable,  # Return the file, opened for binary reading
        name: str,  # Of the file, in errors
        size: int,  # Bytes of a record
        start: int = 0,  # Offset of the first record, in bytes
    ):
        self.open_file = open_file
        self.name = name
        self.size = size
        self.start = start
        self.file = None
        self.next_record = 0

    def __call__(
        self,
        i: int,  # Index of the record
    ) -> np.ndarray:  # (size,), uint8
        "Return the bytes of a record. Raises OSError, with the name of the file, if that is damaged or too short."
        try:
            content = self._read(i)
        except READ_ERRORS as e:
            self.file = None
            raise OSError(f'{self.name}: {e}') from e
        if len(content) < self.size:
            raise OSError(f'{self.name} is truncated: it ends in image {i:,}')
        return np.frombuffer(content, np.uint8)

    def _read(self, i):
        if self.file is None or i < self.next_record:
            self.file = self.open_file()
        position = self.start + i * self.size
        if self.file.tell() != position:
            self.file.seek(position)
        content = self.file.read(self.size)
        self.next_record = i + 1
        return content
