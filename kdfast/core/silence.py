"Discard what libraries print, from Python and from C++."

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def silenced() -> Iterator[None]:
    "Discard what Python and C++ print to stdout and stderr."
    for stream in sys.stdout, sys.stderr:
        stream.flush()  # what was printed before
    before = os.dup(1), os.dup(2)
    with open(os.devnull, 'wb') as nowhere, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            for fd in 1, 2:
                os.dup2(nowhere.fileno(), fd)
            yield
        finally:
            for fd, copy in zip((1, 2), before):
                os.dup2(copy, fd)
                os.close(copy)
