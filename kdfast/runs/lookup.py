"Find runs by the recipe and the arguments that they recorded. Imports no torch."

from collections.abc import Sequence

from kdfast.runs.find import changed_arguments
from kdfast.runs.options import OF_ONE_RUN, SETTINGS
from kdfast.runs.recipes import STUDY, Recipe, find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream_paths import upstream_entries

# Arguments that the recipes of one study have in common
SHARED = {'epochs', 'teacher', 'student', 'hint', *(s.name for s in SETTINGS if s.name not in OF_ONE_RUN)}
UPSTREAM_RECIPES = 'teacher', 'hint'  # their number of epochs is their own


def runs_by_seed(
    folders: Sequence[RunDir],  # Finished runs on one data set
    recipe: Recipe,  # Of the runs
    arguments: dict,  # Not its defaults; those that the recipe does not have are ignored
) -> dict[int, RunDir]:  # By seed
    "Return the runs of a recipe with exactly these arguments."
    wanted = all_arguments(recipe, arguments)
    of_recipe = [folder for folder in folders if folder.run.get('recipe') == recipe.name]
    return {
        folder.seed: folder
        for folder in of_recipe
        if all_arguments(recipe, {}) | folder.run.get('arguments', {}) == wanted
    }


def all_arguments(
    recipe: Recipe,  # Any recipe
    arguments: dict,  # Not its defaults
) -> dict:
    "Return arguments and settings of a recipe, completed by their defaults."
    return {option.name: arguments.get(option.name, option.default) for option in (*recipe.options, *recipe.settings)}


def settings(
    folders: Sequence[RunDir],  # Finished runs
    but: tuple = (),  # Arguments that are ignored
) -> list[dict]:
    "Return the different sets of arguments that are not defaults, the most frequent first."
    found = [{name: value for name, value in changed_arguments(f).items() if name not in but} for f in folders]
    different = [arguments for i, arguments in enumerate(found) if arguments not in found[:i]]
    return sorted(different, key=lambda arguments: -found.count(arguments))


def arguments_text(
    arguments: dict,  # By name
) -> str:
    "Format arguments, for example: epochs=6, optimizer=muon."
    return ', '.join(f'{name}={value}' for name, value in arguments.items())


def next_recipe(
    folder: RunDir,  # A finished run
    folders: Sequence[RunDir],  # Others on the same data
) -> tuple[str, dict] | None:  # A recipe and its arguments; None if all have been run
    "Return the first recipe of the study that has not been run with the settings of this run."
    finished = [f for f in folders if f.finished and f.seed == folder.seed]
    run = folder.run
    done = {run['recipe'], *(entry['recipe'] for entry in upstream_entries(folder))}
    shared = {name: value for name, value in changed_arguments(folder).items() if name in SHARED}
    for name in STUDY:
        if name in done:
            continue
        recipe = find_recipe(name)
        known = {option.name for option in (*recipe.options, *recipe.settings)}
        arguments = {argument: value for argument, value in shared.items() if argument in known}
        if run['recipe'] in UPSTREAM_RECIPES or name in UPSTREAM_RECIPES:
            arguments.pop('epochs', None)
        if not runs_by_seed(finished, recipe, arguments):
            return name, arguments
    return None
