"""The runs of a study, each with what it needs. Imports no torch."""

import sys
from dataclasses import dataclass
from pathlib import Path

from kdfast.core.format import percent
from kdfast.runs.options import option_flags
from kdfast.runs.recipes import Recipe, find_recipe, recipe_names
from kdfast.runs.run_dir import RunDir, locate_run

KDFAST = [sys.executable, '-P', '-m', 'kdfast']


@dataclass(eq=False)
class Task:
    "A run that is to be finished."

    recipe: Recipe
    given: dict  # Arguments that are not the recipe's defaults
    seed: int
    folder: RunDir
    needs: list  # The tasks it stands on
    failure: str = ''  # Why it has no result

    @property
    def name(self):
        return f'{self.folder.recipe}, seed {self.seed}'

    def command(self, common):
        "The command line that trains it"
        changed = {
            o.name: self.given[o.name] for o in self.recipe.options if self.given.get(o.name, o.default) != o.default
        }
        return [*KDFAST, 'run', self.where, '--seed', str(self.seed), *common, *option_flags(changed)]

    @property
    def where(self):
        "What the command line calls its recipe"
        return self.recipe.name if self.recipe.name in recipe_names() else str(self.recipe.file.resolve())


def plan(
    wanted: list[tuple[Recipe, dict]],  # Recipes, each with its arguments
    seeds: range,  # Of every recipe
    data: str,  # Name of the data set
    kept_in: Path,  # Where runs are kept
) -> list[Task]:
    "The wanted runs and all that they stand on, each once and behind what it needs. Raises KdfastError for wrong arguments."
    tasks = {}

    def add(recipe, given, seed):
        arguments = recipe.resolve(given)
        folder = locate_run(kept_in, data, recipe.folder_name(arguments), seed)
        if folder.path not in tasks:
            needs = [add(find_recipe(name), more, seed) for name, more in recipe.needed(arguments)]
            tasks[folder.path] = Task(recipe, given, seed, folder, needs)
        return tasks[folder.path]

    for seed in seeds:
        for recipe, given in wanted:
            add(recipe, given, seed)
    return list(tasks.values())


def foundations(task) -> set[Task]:
    "All that it stands on"
    return set(task.needs).union(*map(foundations, task.needs))


def short_name(folder):
    result = folder.result
    return f'fit {result["fit_loss"]:.3f}' if result['valid_accuracy'] is None else percent(result['valid_accuracy'])
