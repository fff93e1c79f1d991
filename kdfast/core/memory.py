"Let the C library keep freed memory, so that steps of a training do not get new memory each."

import ctypes
import os
import sys
from collections.abc import Mapping

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h of the GNU C library
USERS_OWN = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'GLIBC_TUNABLES')  # a user's own settings, if set
LARGEST_BLOCK = 2**30  # bytes; larger ones are returned
UNLIMITED = 2**31 - 1  # bytes


def keep_freed_memory(
    environment: Mapping[str, str] = os.environ,  # In which the user may have settings
) -> bool:  # Whether it will be kept
    """Let the GNU C library keep freed memory for the next allocation; elsewhere do nothing.

    By default it returns large blocks to the system. The same activations of the next step then get new memory, whose
    pages the system clears one after the other.
    """
    if sys.platform != 'linux' or any(name in environment for name in USERS_OWN):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK) and mallopt(M_TRIM_THRESHOLD, UNLIMITED))
