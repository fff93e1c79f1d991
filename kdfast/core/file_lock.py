"Look at the lock of a file without taking it: other processes that look see no lock, and nothing is written."

from pathlib import Path

from filelock import FileLock, Timeout

try:
    from fcntl import LOCK_NB, LOCK_SH, flock
except ImportError:  # Windows
    flock = None


def is_held(
    file: Path,  # Of a FileLock
) -> bool:
    "Return whether a process holds a lock; also if this user may not look, for then nothing refutes it."
    if flock is None:
        return is_held_by_trying(file)
    try:
        with open(file, 'rb') as f:  # another user's, too, to which this user has no right to write
            flock(f, LOCK_SH | LOCK_NB)  # which any number of processes may share; closing the file ends it
    except FileNotFoundError:
        return False
    except (BlockingIOError, PermissionError):
        return True
    except OSError:  # a file system without such locks, for which FileLock has another way
        return is_held_by_trying(file)
    return False


def is_held_by_trying(
    file: Path,  # Of a FileLock
) -> bool:
    "Return whether a process holds a lock, by taking it for a moment."
    if not file.exists():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except (Timeout, PermissionError):
        return True
