"How the threads of PyTorch wait for each other."

import os
from collections.abc import MutableMapping

SPIN_COUNT = '20000'  # checks before a waiting thread of GNU OpenMP sleeps: as fast as the default on idle cores
WAIT_SETTINGS = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')  # a user's own choice, if set


def share_cores(
    environment: MutableMapping[str, str] = os.environ,  # OpenMP reads it when it is loaded: before `import torch`
):
    """Let waiting OpenMP threads sleep after a while.

    By default they keep their cores busy, which slows down other processes on the same cores many times.
    """
    if not any(name in environment for name in WAIT_SETTINGS):
        environment['GOMP_SPINCOUNT'] = SPIN_COUNT
