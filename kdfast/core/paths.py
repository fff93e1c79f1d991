"Paths from untrusted input."

import re
from pathlib import PurePosixPath

ABSOLUTE = re.compile(r'[/\\]|[A-Za-z]:')  # also on Windows, whose drives are letters: 1:2.jpg is a name


def is_unsafe_path(
    name: str,  # From an archive, a table or a list of files
) -> bool:
    "Return whether a path could point outside the directory that it should stay in."
    return bool(ABSOLUTE.match(name)) or '..' in PurePosixPath(name).parts or '\0' in name
