"""Paths that lead out of where they should stay."""

from pathlib import PurePosixPath


def leads_out(name):
    return name.startswith(('/', '\\')) or '..' in PurePosixPath(name).parts or '\0' in name or name[1:2] == ':'
