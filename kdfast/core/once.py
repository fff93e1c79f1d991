"What is computed once and kept on disk: a folder that appears whole or not at all, and facts that take long to find."

import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from kdfast.core import distributed
from kdfast.core.atomic import write_json

NEW = 'new-'  # in front of the name of a folder that is being filled; behind it the machine and the process


def folder_once(
    folder: Path,  # Where it belongs
    fill: Callable,  # Is given an empty folder
):
    """Fill the folder, unless it is there, and show it when it is whole.

    Of processes that train together the first fills it, and the others have it afterwards, or, on a machine of their own, fill theirs;
    of others that begin at once each does, and the first that is done counts. What a process left behind that was killed is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent)
    distributed.first_alone(lambda: None if folder.exists() else fill_new(folder, fill))


def fill_new(folder, fill):
    new = folder.with_name(f'{NEW}{folder.name}-{platform.node()}-{os.getpid()}')
    new.mkdir()
    try:
        fill(new)
        try:
            os.replace(new, folder)
        except OSError:
            if not folder.exists():
                raise  # else another process was done first
    finally:
        shutil.rmtree(new, ignore_errors=True)


def remove_abandoned(
    home: Path,  # Where folders are filled
):
    "Remove the folders that processes of this machine were filling when they ended."
    for new in home.glob(f'{NEW}*-{platform.node()}-*'):
        pid = new.name.rpartition('-')[2]
        if pid.isdigit() and not is_running(int(pid)):
            shutil.rmtree(new, ignore_errors=True)


def is_running(pid):
    if os.name != 'posix':
        return True  # nothing asks without ending it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True


def facts_once(
    file: Path,  # .json; its name says all that the facts depend on
    find: Callable,  # Gives them, as plain values
):
    "The facts in that file; found and written there first where it is missing and can be written."
    if file.exists():
        return json.loads(file.read_text())
    facts = find()
    if os.access(file.parent, os.W_OK):
        write_json(file, facts)
    return facts
