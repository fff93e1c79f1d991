"Find runs by what they recorded, the recipe and its arguments, whatever their folders are called. Imports no torch."

from kdfast.runs.find import changed_arguments
from kdfast.runs.recipes import STUDY, Recipe, find_recipe
from kdfast.runs.run_dir import RunDir

SHARED = 'epochs', 'optimizer', 'teacher', 'student', 'hint'  # arguments that the recipes of one study have in common
FOUNDATIONS = 'teacher', 'hint'  # recipes with epochs of their own


def matching(
    folders: list[RunDir],  # Finished runs on one data set
    recipe: Recipe,
    given: dict,  # Arguments that are not its defaults; those that it has not got are left out
) -> dict[int, RunDir]:  # By seed
    "The runs of a recipe with exactly these arguments."
    wanted = complete(recipe, given)
    of_recipe = [(f, f.run.get('arguments', {})) for f in folders if f.run.get('recipe') == recipe.name]
    return {f.seed: f for f, recorded in of_recipe if complete(recipe, {}) | recorded == wanted}


def complete(recipe, given):
    return {o.name: given.get(o.name, o.default) for o in recipe.options}


def settings(
    folders: list[RunDir],  # Finished runs
    but: tuple = (),  # Arguments that are left out
) -> list[dict]:
    "The different sets of arguments that are not defaults, the most frequent first."
    found = [{name: value for name, value in changed_arguments(f).items() if name not in but} for f in folders]
    different = [given for at, given in enumerate(found) if given not in found[:at]]
    return sorted(different, key=lambda given: -found.count(given))


def described(
    given: dict,  # Arguments
) -> str:
    "For example: epochs=6, optimizer=muon."
    return ', '.join(f'{name}={value}' for name, value in given.items())


def following(
    folder: RunDir,  # A finished run
    folders: list[RunDir],  # Others on the same data
) -> tuple[str, dict] | None:  # A recipe and its arguments; None where all have been run
    "The first recipe of the study not yet run like this one: with its seed, epochs, optimizer and networks."
    finished, run = [f for f in folders if f.finished and f.seed == folder.seed], folder.run
    like = {name: value for name, value in changed_arguments(folder).items() if name in SHARED}
    own_epochs = run['recipe'] in FOUNDATIONS
    for name in STUDY:
        if name == run['recipe'] or name in run.get('stands_on', {}):
            continue
        recipe = find_recipe(name)
        given = {o.name: like[o.name] for o in recipe.options if o.name in like}
        if own_epochs or name in FOUNDATIONS:
            given.pop('epochs', None)
        if not matching(finished, recipe, given):
            return name, given
    return None
