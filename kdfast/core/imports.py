"Import large packages, and leave them again at the end of the process, in less time."

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Import in the context without searching for garbage, and never search what exists at its end.

    Imports create a million objects, hardly any of which becomes garbage: searching them takes a fifth of the time of
    an import of fastai, and as long again when the process ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
