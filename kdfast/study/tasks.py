"""Plan a study: which runs it needs, and in which order they can be trained. Imports no torch."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.runs.options import option_flags
from kdfast.runs.recipes import Recipe, find_recipe, recipe_names
from kdfast.runs.run_dir import RunDir, locate_run

KDFAST = [sys.executable, '-P', '-m', 'kdfast']  # starts another process of this installation


@dataclass(eq=False)
class Task:
    "A run that a study needs."

    recipe: Recipe
    given: dict  # Arguments that differ from the defaults of the recipe
    seed: int
    folder: RunDir
    needs: list['Task']  # Tasks that must be finished first
    failure: str = ''  # Why there is no result; empty as long as there may be one

    @property
    def name(self):
        "Name for messages: recipe with arguments, and seed."
        return f'{self.folder.recipe}, seed {self.seed}'

    @property
    def recipe_argument(self):
        "What `kdfast run` takes for the recipe: its name, or the path of the user's file."
        return self.recipe.name if self.recipe.name in recipe_names() else str(self.recipe.file.resolve())

    @property
    def is_new(self):
        "Whether nothing of the run exists: no result, no checkpoints, no process that trains it."
        folder = self.folder
        return not (folder.status in ('finished', 'diverged') or folder.has_checkpoints or folder.is_locked)

    def command(
        self,
        common: list[str],  # Options that all runs of the study share
    ) -> list[str]:
        "Return the command line that trains the run."
        flags = [*common, *option_flags(self.recipe.changed(self.given))]
        return [*KDFAST, 'run', self.recipe_argument, '--seed', str(self.seed), *flags]

    def upstream(self) -> set['Task']:
        "Return all tasks that must be finished first, also indirectly."
        return set(self.needs).union(*(task.upstream() for task in self.needs))


def plan(
    wanted: Sequence[tuple[Recipe, dict]],  # Recipes with their arguments
    seeds: range,  # Of every recipe
    data: str,  # Name of the data set
    runs_dir: Path,  # Directory of the runs
) -> list[Task]:
    "Return the wanted runs and all that they need, each once and after its needs. Raises KdfastError."
    tasks = {}

    def add(recipe, given, seed):
        arguments = recipe.resolve(given)
        folder = locate_run(runs_dir, data, recipe.folder_name(arguments), seed)
        if folder.path not in tasks:
            needs = [add(find_recipe(name), own, seed) for name, own in recipe.needed(arguments)]
            tasks[folder.path] = Task(recipe, given, seed, folder, needs)
        found = tasks[folder.path]
        refuse_mixture(found, recipe, arguments)
        return found

    for seed in seeds:
        for recipe, given in wanted:
            add(recipe, given, seed)
    return list(tasks.values())


def refuse_mixture(
    task: Task,  # The first run with this directory
    recipe: Recipe,  # Of another run with this directory
    arguments: dict,  # All of its arguments
):
    "Raise KdfastError if two runs that share a directory are not the same."
    if task.recipe.file.resolve() != recipe.file.resolve():
        raise KdfastError(
            f'{task.recipe.file} and {recipe.file} have the same directory of runs, {task.folder.path.parent}, so that '
            'their runs would be mixed up: rename one of the files'
        )
    known = task.recipe.resolve(task.given)
    if known != arguments:
        raise KdfastError(
            f'{task.folder.path.parent} would hold runs with arguments {known} and with {arguments}: '
            'use a --runs directory for each'
        )
