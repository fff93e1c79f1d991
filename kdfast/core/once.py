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
    distributed.first_then_others(lambda: None if folder.exists() else fill_new(folder, fill))


def fill_new(
    folder: Path,  # Does not exist yet
    fill: Callable,  # Called with an empty directory
):
    "Fill a temporary directory, then rename it."
    new = folder.with_name(f'{NEW}{folder.name}-{platform.node()}-{os.getpid()}')
    new.mkdir()
    try:
        fill(new)
        try:
            os.replace(new, folder)
        except OSError:
            if not folder.exists():  # if it does, another process was first
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


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
        return json.loads(file.read_text())
    result = compute()
    if os.access(file.parent, os.W_OK):
        write_json(file, result)
    return result
