"""Room on the disk for a run."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.data.disk_space import gigabytes


@dataclass
class Room:
    "Bytes on the disk that a run takes."

    kept: int = 0  # In the end: weights, predictions
    while_trained: int = 0  # By its checkpoints


# Room


def check_room(
    kept_in: Path,  # Where runs are to be kept
    n_bytes: int,  # That they will take
):
    "Raise KdfastError where the disk has less."
    there = next(path for path in (kept_in.absolute(), *kept_in.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if n_bytes > free:
        raise KdfastError(
            f'training needs about {gigabytes(n_bytes)} in {kept_in}, for weights and checkpoints, {gigabytes(free)} are free: make room, or use --runs'
        )
