"Run directories: what they hold, and how to find them."

from kdfast.core.lazy import lazy_name

PLACES = dict(
    RunDir='kdfast.runs.run_dir',
    Folder='kdfast.runs.run_dir:RunDir',  # its name in version 0.1
)


def __getattr__(name):
    return lazy_name(PLACES, name)
