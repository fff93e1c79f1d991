"Check that there is room on the disk before anything is written."

import shutil
import sys
from pathlib import Path

from kdfast.core.errors import KdfastError

LARGE = 2**30  # bytes of decoded images that are worth a message


def check_disk_space(
    folder: Path,  # Where decoded images will be written
    n_bytes: int,  # Their size
):
    """Print a message for a large data set. Raises KdfastError if the disk is too small.

    Writing to a memory-mapped file on a full disk would end the process.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise KdfastError(
            f'the decoded images need {gigabytes(n_bytes)} in {folder.parent}, {gigabytes(free)} are free: '
            'make room, use a smaller --size, set XDG_CACHE_HOME to a folder on a larger disk, or decode image files '
            'in every epoch (--decode each-epoch; archives that are compressed as a whole have to be unpacked)'
        )
    if n_bytes > LARGE:
        print(f'kdfast: the decoded images take {gigabytes(n_bytes)} in {folder.parent}', file=sys.stderr)


def gigabytes(
    n_bytes: int,  # Size of files
) -> str:
    "Format a number of bytes: 1.5 GB."
    return f'{n_bytes / 2**30:.1f} GB'
