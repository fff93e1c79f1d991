"Run directories: what is in them, and how they are found."

from kdfast.core.lazy import lazy_name

PLACES = dict(
    RunDir='kdfast.runs.run_dir',
    Folder='kdfast.runs.run_dir:RunDir',
)


def __getattr__(name):
    return lazy_name(PLACES, name)
