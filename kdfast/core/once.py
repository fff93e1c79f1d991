"Results that are computed once and cached on the disk: whole directories, and JSON files."

import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from kdfast.core import distributed
from kdfast.core.atomic import write_json

NEW = 'new-'  # prefix of a directory that is being filled; machine and process are its suffix
being_filled = set()  # the directories that threads of this process are filling


def create_folder_once(
    folder: Path,  # The directory to create
    fill: Callable,  # Called with an empty directory
):
    """Create and fill a directory unless it exists; it appears only when it is complete.

    In distributed training rank 0 fills it first; the other processes then find it or, on another machine, fill their
    own. If independent processes start at once, each fills a directory of its own, and the first that is done counts.
    What killed processes have left is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent)
    distributed.first_then_others(
        lambda: None if folder.exists() else fill_new(folder.parent, folder.name, fill, lambda new: folder)
    )


def fill_new(
    home: Path,  # The parent, which exists
    key: str,  # What is made, as a part of the temporary name
    fill: Callable,  # Called with an empty directory
    name_of: Callable[[Path], Path],  # Return the final name, given the filled directory
) -> Path:  # The final name
    "Fill a temporary directory, then rename it; if another process was first, its directory remains."
    new = home / f'{NEW}{key}-{platform.node()}-{os.getpid()}'
    if new not in being_filled:  # one of that name is of a killed process that had the same number, as in a container
        shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    being_filled.add(new)
    try:
        fill(new)
        folder = name_of(new)
        try:
            os.replace(new, folder)
        except OSError:
            if not folder.exists():  # if it does, another process was first
                raise
    finally:
        being_filled.discard(new)
        shutil.rmtree(new, ignore_errors=True)
    return folder


def remove_abandoned(
    home: Path,  # The parent of such directories
):
    "Remove the temporary directories of processes of this machine that have ended."
    for new in home.glob(f'{NEW}*-{platform.node()}-*'):
        pid = new.name.rpartition('-')[2]
        if pid.isdigit() and not is_running(int(pid)):
            shutil.rmtree(new, ignore_errors=True)


def is_running(
    pid: int,  # Of a process of this machine
) -> bool:
    "Return whether a process is running."
    if os.name != 'posix':
        return True  # on Windows os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def compute_once(
    file: Path,  # .json; its name identifies everything that the result depends on
    compute: Callable,  # Called without arguments; returns plain values
) -> object:
    """Return the content of a file; without the file, compute the content and write it.

    In a directory that is not writable nothing is written.
    """
    if file.exists():
        return json.loads(file.read_text('utf-8'))
    result = compute()
    if os.access(file.parent, os.W_OK):
        write_json(file, result)
    return result
