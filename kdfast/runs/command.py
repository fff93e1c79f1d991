"The command line that trains a run again, from what the run recorded. Imports no torch."

import shlex

from kdfast.runs.find import changed_arguments
from kdfast.runs.options import option_flags
from kdfast.runs.recipes import recipe_names
from kdfast.runs.run_dir import RunDir

DATA_DEFAULTS = dict(holdout=0.0, grow=1.0)  # of options of the data that are neither None nor False by default


def reproduce_command(
    folder: RunDir,  # Any run
) -> str | None:  # None for a run of an earlier version, which did not record how its data were loaded
    "Return the command that trains a run again: recipe, seed, data, arguments and, on a CPU, threads."
    images = dict(folder.run.get('images') or {})
    if images.get('resplit') is not None:  # recorded as the seed of the split, which is the run's
        images['resplit'] = True
    if not images.get('source'):
        return None
    words = ['kdfast', 'run', recipe_word(folder), '--data', str(images.pop('source')), '--seed', str(folder.seed)]
    words += option_flags(changed_arguments(folder))
    words += option_flags({name: value for name, value in images.items() if is_given(name, value)})
    if folder.run.get('device') == 'cpu' and folder.run.get('threads'):
        words += ['--threads', str(folder.run['threads'])]  # they affect the last bits of the weights
    return shlex.join(words)


def recipe_word(
    folder,  # A run
):
    "Return how a command names the recipe of a run: by name, or as a file that is not one of kdfast's."
    name = folder.run['recipe']
    return name if name in recipe_names() else f'./{name}.py'


def is_given(
    name: str,  # Of an option of the data
    value,  # As recorded
):
    "Return whether an option of the data is not at its default."
    return value is not None and value is not False and value != DATA_DEFAULTS.get(name)
