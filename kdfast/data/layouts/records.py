"Read records of a fixed size from a file."

from collections.abc import Callable

import numpy as np


class Records:
    "Records of a fixed size after a header; the file may be compressed, so it is read forwards."

    def __init__(
        self,
        open_file: Callable,  # Return the file, opened for binary reading
        size: int,  # Bytes of a record
        start: int = 0,  # Offset of the first record, in bytes
    ):
        self.open_file = open_file
        self.size = size
        self.start = start
        self.file = None
        self.next_record = 0

    def __call__(
        self,
        i: int,  # Index of the record
    ) -> np.ndarray:  # (size,), uint8
        "Return the bytes of a record. Raises EOFError if the file is too short."
        if self.file is None or i < self.next_record:
            self.file = self.open_file()
        position = self.start + i * self.size
        if self.file.tell() != position:
            self.file.seek(position)
        content = self.file.read(self.size)
        self.next_record = i + 1
        if len(content) < self.size:
            raise EOFError(f'the file ends in record {i}')
        return np.frombuffer(content, np.uint8)
