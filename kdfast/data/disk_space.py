"Check that there is room on the disk before anything is written."

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.core.format import size_text
from kdfast.core.notes import say

LARGE = 2**30  # bytes of decoded images that are worth a message


def check_disk_space(
    folder: Path,  # Where decoded images will be written
    n_bytes: int,  # Their size
):
    "Print a message for a large data set. Raises KdfastError if the disk is too small."
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise KdfastError(
            f'the decoded images need {size_text(n_bytes)} in {folder.parent}, {size_text(free)} are free: '
            'make room, use a smaller --size, set XDG_CACHE_HOME to a folder on a larger disk, or decode image files '
            'in every epoch (--decode each-epoch; archives that are compressed as a whole have to be unpacked)'
        )
    if n_bytes > LARGE:
        say(f'the decoded images take {size_text(n_bytes)} in {folder.parent}')


@contextmanager
def writing_images(
    folder: Path,  # Where decoded images are written
) -> Iterator[None]:
    "Raise KdfastError if the disk has become full, or fails, while images are written in the context."
    try:
        yield
    except OSError as e:
        raise KdfastError(
            f'cannot write the decoded images in {folder.parent} ({e.strerror or e}): make room, use a smaller --size, '
            'or set XDG_CACHE_HOME to a folder on a larger disk'
        ) from e
