"Measure what the runs of a study cost, with a few steps of each recipe in another process. Imports no torch."

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from kdfast.runs.cost import RunCost
from kdfast.study.process import Process
from kdfast.study.schedule import finish_process
from kdfast.study.tasks import KDFAST, Task


def measure_costs(
    tasks: Sequence[Task],  # From `plan`: all seeds of all recipes
    common: list[str],  # Options that all runs share
    threads: int,  # Of each run
    start: Callable = Process,  # As of `run_tasks`
) -> dict[str, RunCost]:  # By the name of the recipe's directory
    """Measure the cost of each recipe that is needed next; of others, return that of finished runs.

    Recipes are rehearsed, too: KdfastError if one cannot be trained. Nothing of it remains.
    """
    waiting = [task for task in tasks if not task.folder.finished]
    first = [task for task in waiting if task.seed == waiting[0].seed]
    costs = {name: recorded_cost(of_recipe) for name, of_recipe in finished_by_recipe(tasks).items()}
    return costs | (timed(first, common, threads, start) if first else {})


def timed(
    tasks: Sequence[Task],  # Of one seed, each after what it needs
    common: list[str],  # Options that all runs share
    threads: int,  # Of each run
    start: Callable = Process,  # As of `run_tasks`
) -> dict[str, RunCost]:
    "Time the recipes in another process; what that takes besides is the start of every run."
    listed = [(task.recipe_argument, task.given, task.seed) for task in tasks]
    with tempfile.TemporaryDirectory(prefix='kdfast-') as folder:
        file = Path(folder) / 'costs.json'
        finish_process([*KDFAST, '--version'], threads, start)  # the first of several forks has to wait for imports
        began = time.monotonic()
        finish_process([*KDFAST, 'probe', json.dumps(listed), str(file), *common], threads, start)
        found = json.loads(file.read_text('utf-8'))
        to_start = max(0.0, time.monotonic() - began - found['seconds'])
    costs = {name: RunCost(**cost) for name, cost in found['costs'].items()}
    return {name: RunCost(to_start + cost.seconds, cost.kept, cost.while_trained) for name, cost in costs.items()}


def finished_by_recipe(
    tasks: Sequence[Task],  # From `plan`
) -> dict[str, list[Task]]:
    "Return the finished tasks of each recipe that has some."
    found: dict[str, list[Task]] = {}
    for task in tasks:
        if task.folder.finished:
            found.setdefault(task.folder.recipe, []).append(task)
    return found


def recorded_cost(
    tasks: Sequence[Task],  # Finished, of one recipe
) -> RunCost:
    "Return what finished runs took on average."
    files = [file for file in tasks[0].folder.path.rglob('*') if file.is_file()]
    return RunCost(mean(task.folder.result['seconds'] for task in tasks), sum(file.stat().st_size for file in files))
