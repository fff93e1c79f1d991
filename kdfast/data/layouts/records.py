"Records of one size in a file."

import numpy as np


class Records:
    "Records of one size behind a header, in a file that may be packed: read one after the other."

    def __init__(
        self,
        open_file,  # Opens the file
        size: int,  # Bytes of a record
        start: int = 0,  # Where the first one begins
    ):
        self.open, self.size, self.start, self.f, self.next = open_file, size, start, None, 0

    def __call__(self, i):
        "The bytes of record i"
        if self.f is None or i < self.next:
            self.f = self.open()
        position = self.start + i * self.size
        if self.f.tell() != position:
            self.f.seek(position)
        content = self.f.read(self.size)
        self.next = i + 1
        if len(content) < self.size:
            raise EOFError(f'the file breaks off in record {i}')
        return np.frombuffer(content, np.uint8)
