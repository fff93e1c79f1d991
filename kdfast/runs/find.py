"""Find runs by what they are: recipe, arguments, data, seed. Imports no torch."""

from pathlib import Path

from kdfast.core.errors import KdfastError, listed
from kdfast.runs.recipes import read_recipe, study_order
from kdfast.runs.run_dir import NAME, RunDir


def find_runs(
    runs: Path,  # Where runs are kept
    data: str | None = None,  # Of this data set alone
) -> list[RunDir]:
    "Every run's folder, by data set, recipe and seed. Raises KdfastError for a data set that is no name, but a path."
    found = [RunDir(file.parent) for file in Path(runs).glob('*/*/*/run.json') if file.parent.name.isdigit()]
    if data and not NAME.fullmatch(data):
        names = sorted({f.data for f in found})
        raise KdfastError(
            f'--data {data}: expected the name of a data set, as its folder in {runs} has it'
            + (f': {listed(names)}' if names else '')
        )
    return sorted((f for f in found if data in (None, f.data)), key=lambda f: (f.data, study_order(f.recipe), f.seed))


def resolve_run_name(
    folders: list[RunDir],  # Runs
    recipe: str,  # What a user calls them
) -> str | None:
    "What finished runs of the recipe are called: as it is; or, where it ran with other epochs, optimizer or teacher alone, with those. None where nothing is, or several things are."
    finished = [folder for folder in folders if folder.finished]
    if any(folder.recipe == recipe for folder in finished):
        return recipe
    name, *asked = recipe.split(',')
    of_recipe = [folder for folder in finished if folder.run.get('recipe') == name]
    fuller = {folder.recipe for folder in of_recipe if differs_in_settings(folder, asked)}
    return fuller.pop() if len(fuller) == 1 else None


OTHERWISE = {'epochs', 'optimizer', 'teacher'}


def differs_in_settings(folder, asked):
    "Whether a run's arguments that are not defaults are those asked for and, besides, epochs, optimizer or teacher"
    recipe, given = recipe_of_run(folder), changed_arguments(folder)
    named = recipe.named(given)
    return set(asked) <= set(named.values()) and all(part in asked or name in OTHERWISE for name, part in named.items())


def changed_arguments(
    folder: RunDir,  # A run
) -> dict:
    "The arguments, as its run.json has them, that were not the defaults of its recipe."
    return recipe_of_run(folder).changed(folder.run.get('arguments', {}))


def recipe_of_run(folder):
    return read_recipe(folder / 'recipe.py')


def find_run(
    runs: Path,  # Where runs are kept
    name: str,  # A run's folder, or a recipe's name
    data: str | None = None,  # The data set, needed where the recipe ran on several
    seed: int | None = None,  # The seed; the lowest that there is, unless given
) -> RunDir:
    "The finished run that `name` means. Raises KdfastError where none or several could be meant."
    if (Path(name) / 'run.json').exists():
        return RunDir(Path(name))
    finished = [f for f in find_runs(runs, data) if f.finished]
    called = resolve_run_name(finished, name)
    matches = [f for f in finished if f.recipe == called and seed in (None, f.seed)]
    if not matches:
        have = sorted({f.recipe for f in finished})
        raise KdfastError(
            f'no finished run {name} in {runs}; '
            + (f'there are {", ".join(have)}' if have else f'start with: kdfast run {name}')
        )
    data_sets = sorted({f.data for f in matches})
    if len(data_sets) > 1:
        raise KdfastError(f'{name} ran on {", ".join(data_sets)}: choose one with --data')
    return matches[0]
