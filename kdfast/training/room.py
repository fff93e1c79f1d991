"""Disk space of a run."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.core.format import size_text


@dataclass
class Room:
    "Bytes that a run needs on the disk."

    kept: int = 0  # by the finished run: weights, predictions
    while_trained: int = 0  # by its checkpoints


def check_room(
    runs_dir: Path,  # Directory of the runs
    n_bytes: int,  # Bytes that they need
):
    "Raise KdfastError if the disk has less free space."
    free = free_space(runs_dir)
    if n_bytes > free:
        raise KdfastError(
            f'training needs about {size_text(n_bytes)} in {runs_dir} for weights and checkpoints, '
            f'{size_text(free)} are free: free some space, or use --runs'
        )


def free_space(
    runs_dir: Path,  # Directory of the runs; it may not exist yet
) -> int:
    "Return the free bytes on the disk of a directory."
    path = runs_dir.absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free
