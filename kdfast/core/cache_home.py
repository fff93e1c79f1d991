"The directory for cached files, which can be created again at any time."

import os
from pathlib import Path


def cache_home() -> Path:  # $XDG_CACHE_HOME/kdfast, or ~/.cache/kdfast
    "Return the cache directory of kdfast; it may not exist yet."
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'kdfast'
