"""Where kdfast keeps what it can make again."""

import os
from pathlib import Path

# The cache


def cache_home() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'kdfast'
