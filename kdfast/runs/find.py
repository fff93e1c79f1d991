"Find runs by data set, recipe, arguments and seed. Imports no torch."

import shlex
from collections.abc import Sequence
from pathlib import Path

from kdfast.core.errors import KdfastError, listed
from kdfast.core.format import ranges
from kdfast.core.names import is_run
from kdfast.runs.options import OF_ONE_RUN, SETTINGS, option_flags
from kdfast.runs.recipes import Recipe, find_recipe, read_recipe, recipe_names, study_order
from kdfast.runs.run_dir import NAME, RunDir
from kdfast.runs.run_files import MissingFile, is_run_place
from kdfast.runs.unfinished import unfinished_hint

# Arguments that a name of a run may leave out if it stays unique
OPTIONAL = {'epochs', 'teacher', *(s.name for s in SETTINGS if s.name not in OF_ONE_RUN)}


def find_runs(
    runs: Path,  # The directory of all runs
    data: str | None = None,  # Name of a data set; all data sets by default
) -> list[RunDir]:
    "Return all runs, sorted by data set, recipe and seed. Raises KdfastError if `data` is a path."
    found = [RunDir(path) for path in Path(runs).glob('*/*/*') if is_run_place(path)]
    if data and not NAME.fullmatch(data):
        names = sorted({folder.data for folder in found})
        raise KdfastError(
            f'--data {data}: expected the name of a data set, as its folder in {runs} has it'
            + (f': {listed(names)}' if names else '')
        )
    chosen = [folder for folder in found if data in (None, folder.data)]
    return sorted(chosen, key=lambda folder: (folder.data, study_order(folder.recipe), folder.seed))


def no_finished_run(
    runs: Path,  # The directory of all runs
    data: str | None = None,  # Name of the data set that was asked for
) -> KdfastError:
    "Return the error for a directory, or a data set in it, without a finished run."
    hint = unfinished_hint(find_runs(runs, data)) or '; start with: kdfast run exp1'
    return KdfastError(f'no finished run{f" on {data}" if data else ""} in {runs}{hint}')


def resolve_run_name(
    folders: Sequence[RunDir],  # Runs
    recipe: str,  # As a user names them: RECIPE or RECIPE,ARGUMENT=VALUE
) -> str | None:  # None if there is no unique match
    """Return the name of the finished runs that a user means.

    That is the exact name or, if there are none, the only name that differs in epochs, teacher and settings alone.
    """
    finished = [folder for folder in folders if folder.finished]
    if any(folder.recipe == recipe for folder in finished):
        return recipe
    name, *arguments = recipe.split(',')
    of_recipe = [folder for folder in finished if folder.run.get('recipe') == name]
    names = {folder.recipe for folder in of_recipe if differs_in_settings(folder, arguments)}
    return names.pop() if len(names) == 1 else None


def differs_in_settings(
    folder: RunDir,  # A run
    arguments: list[str],  # ARGUMENT=VALUE of each that the user gave
) -> bool:
    "Return whether a run has the given arguments and no others but settings."
    named = recipe_of_run(folder).named(changed_arguments(folder))
    return set(arguments) <= set(named.values()) and all(
        text in arguments or name in OPTIONAL for name, text in named.items()
    )


def changed_arguments(
    folder: RunDir,  # A run
) -> dict:
    "Return the arguments of a run that are not the defaults of its recipe."
    return recipe_of_run(folder).changed(folder.run.get('arguments', {}))


def arguments_today(
    folder: RunDir,  # A run
) -> dict:
    "Return the arguments of a run that commands of today need: those that are not today's defaults."
    return recipe_today(folder).changed(folder.run.get('arguments', {}))


def recipe_today(
    folder: RunDir,  # A run
) -> Recipe:
    "Return the recipe of a run as it is now; a recipe of the user's as it was then."
    name = folder.run.get('recipe')
    return find_recipe(name) if name in recipe_names() else recipe_of_run(folder)


def recipe_of_run(
    folder: RunDir,  # A run
) -> Recipe:
    "Read the recipe that a run directory holds. Raises KdfastError if the user has removed it."
    file = folder / 'recipe.py'
    if not file.is_file():
        raise MissingFile(f'{file} is missing, and with it what the run was asked for: put it back, or remove {folder}')
    return read_recipe(file)


def find_run(
    runs: Path,  # The directory of all runs
    name: str,  # A run directory, or the name of a recipe
    data: str | None = None,  # Name of the data set; needed if the recipe ran on several
    seed: int | None = None,  # The lowest by default
) -> RunDir:
    """Return the finished run of that name, or the run in that directory.

    Raises KdfastError unless there is one, on one data set, and for a directory beside a data set or a seed.
    """
    if is_run(name):
        refuse_choice(name, data, seed)
        return readable(RunDir(Path(name).resolve()))  # its name and those of the directories above say what it is
    found = find_runs(runs, data)
    finished = [folder for folder in found if folder.finished]
    recipe = resolve_run_name(finished, name)
    of_recipe = [folder for folder in finished if folder.recipe == recipe]
    matches = [folder for folder in of_recipe if seed in (None, folder.seed)]
    if not matches:
        if name not in recipe_names() and is_run_place(Path(name).resolve()):
            readable(RunDir(Path(name)))  # it has lost its run.json
        hint = finished_hint(of_recipe or finished, name, bool(of_recipe))
        others = unfinished_hint(found, name if finished else None)  # others do not matter beside finished runs
        raise KdfastError(f'no finished run {name}{chosen_text(data, seed)} in {runs}; {hint}{others}')
    data_sets = sorted({folder.data for folder in matches})
    if len(data_sets) > 1:
        raise KdfastError(f'{name} ran on {", ".join(data_sets)}: choose one with --data')
    return matches[0]


def readable(
    folder: RunDir,  # A run that was asked for by its path
) -> RunDir:
    "Return the run. Raises KdfastError if run.json does not tell its state."
    if folder.flaw:
        raise KdfastError(folder.flaw)
    return folder


def finished_hint(
    finished: Sequence[RunDir],  # Finished runs: those of the recipe that was asked for, or all
    name: str,  # Of the recipe that was asked for
    of_recipe: bool,  # Whether they are of this recipe, with other seeds
) -> str:
    "Return what can be asked for instead, for the end of a message."
    if of_recipe:
        return f'finished seeds: {ranges(sorted({folder.seed for folder in finished}))}'
    recipes = sorted({folder.recipe for folder in finished})
    return f'there are {", ".join(recipes)}' if recipes else start_hint(name)


def start_hint(
    name: str,  # RECIPE or RECIPE,ARGUMENT=VALUE, of which there is no run
) -> str:
    "Return the command that trains such a run, or why there is none."
    recipe, *arguments = name.split(',')
    try:
        find_recipe(recipe)
    except KdfastError as e:
        return str(e)
    values = dict(word.split('=', 1) for word in arguments if '=' in word)
    flags = option_flags({name: {'True': True, 'False': False}.get(value, value) for name, value in values.items()})
    return f'start with: {shlex.join(["kdfast", "run", recipe, *flags])}'


def chosen_text(
    data: str | None,  # Value of --data
    seed: int | None,  # Value of --seed
) -> str:
    "Return which runs of a recipe were asked for; nothing for all of them."
    return (f' on {data}' if data else '') + (f' with seed {seed}' if seed is not None else '')


def refuse_choice(
    path: str,  # Of a run directory or of a file
    data: str | None,  # Value of --data
    seed: int | None,  # Value of --seed
):
    "Raise KdfastError for options that choose among runs, as a path is one already."
    for option, value in (('--data', data), ('--seed', seed)):
        if value is not None:
            raise KdfastError(f'{option} {value} chooses among runs of a recipe, and {path} is one run: leave it out')
