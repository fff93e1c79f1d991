"Paths from untrusted input."

from pathlib import PurePosixPath


def is_unsafe_path(
    name: str,  # From an archive, a table or a list of files
) -> bool:
    "Return whether a path could point outside the directory that it should stay in."
    return name.startswith(('/', '\\')) or '..' in PurePosixPath(name).parts or '\0' in name or name[1:2] == ':'
