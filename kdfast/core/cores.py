"How many things may run side by side."

import os

from kdfast.core.errors import KdfastError

LIMIT = 'LOKY_MAX_CPU_COUNT'  # environment variable of joblib


def usable_cores() -> int:
    """Return the number of cores that this process may use.

    Its affinity, the quota of its container, and the limit of joblib count. Raises KdfastError for a limit that is no
    number; an empty one is none.
    """
    from joblib import cpu_count  # takes a moment to import

    limit = os.environ.get(LIMIT, '')
    if not limit.strip():
        os.environ.pop(LIMIT, None)
    elif not limit.strip().isdecimal():
        raise KdfastError(f'{LIMIT}={limit}: expected a number of cores; unset it to use all')
    return cpu_count()
