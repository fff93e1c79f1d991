"The command line that trains a run again, from what the run recorded. Imports no torch."

import shlex

from kdfast.runs.find import arguments_today, recipe_today
from kdfast.runs.options import given_options, option_flag, option_flags
from kdfast.runs.recipes import recipe_names
from kdfast.runs.resume_check import default_changes, same_code
from kdfast.runs.run_dir import RunDir


def reproduce_command(
    folder: RunDir,  # Any run
) -> str | None:  # None for a run of an earlier version, which did not record how its data were loaded
    """Return the command that trains a run again: recipe, seed, data, arguments and, on a CPU, threads.

    Arguments that are today's defaults are left out; those of then may have been others.
    """
    images = dict(folder.run.get('images') or {})
    if not images.get('source'):
        return None
    words = ['kdfast', 'run', recipe_word(folder), '--data', str(images.pop('source')), '--seed', str(folder.seed)]
    words += option_flags(arguments_today(folder))
    words += option_flags(given_options(images))
    if folder.run.get('device') == 'cpu' and folder.run.get('threads'):
        words += ['--threads', str(folder.run['threads'])]  # they affect the last bits of the weights
    return shlex.join(words)


def command_note(
    folder: RunDir,  # Any run
) -> str:
    "Return why the command does not train the same run; nothing if it does."
    if not (folder / 'recipe.py').exists():
        return ''  # an interrupted run whose code the user has removed
    recipe = recipe_today(folder)
    gone = folder.run.get('arguments', {}).keys() - {option.name for option in (*recipe.options, *recipe.settings)}
    source = folder.parsed('recipe.py', bytes.decode)
    if same_code(source, recipe.source):
        return ''
    changed = default_changes(source, recipe.source)
    without = f'; it no longer has {", ".join(map(option_flag, sorted(gone)))}' if gone else ''
    return f'The code of {recipe.name} has changed since{changed}: the command trains its version of today{without}.'


def recipe_word(
    folder,  # A run
):
    "Return how a command names the recipe of a run: by name, or as a file that is not one of kdfast's."
    name = folder.run['recipe']
    return name if name in recipe_names() else f'./{name}.py'
