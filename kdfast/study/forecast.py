"Forecast the time and the disk space of a study, from the costs of its runs. Imports no torch."

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from kdfast.runs.cost import RunCost
from kdfast.study.tasks import Task

Costs = Mapping[str, RunCost]  # By the name of the recipe's directory


def open_tasks(
    tasks: Sequence[Task],  # From `plan`
) -> list[Task]:
    "Return the tasks that are not finished."
    return [task for task in tasks if not task.folder.finished]


def seconds_needed(
    tasks: Sequence[Task],  # From `plan`
    costs: Costs,  # Of all their recipes
    jobs: int,  # Number of parallel runs
) -> float:
    "Return how long the unfinished runs take: at least as long as a run after all that it needs."
    waiting = set(open_tasks(tasks))

    def chain(task):
        own = costs[task.folder.recipe].seconds if task in waiting else 0.0
        return own + max(map(chain, task.needs), default=0.0)

    total = sum(costs[task.folder.recipe].seconds for task in waiting)
    return max(total / jobs, max(map(chain, waiting), default=0.0))


def bytes_needed(
    tasks: Sequence[Task],  # From `plan`
    costs: Costs,  # Of all their recipes
    jobs: int,  # Number of parallel runs
) -> int:
    "Return the bytes that the unfinished runs keep, and the checkpoints of parallel ones need."
    found = [costs[task.folder.recipe] for task in open_tasks(tasks)]
    checkpoints = sorted((cost.while_trained for cost in found), reverse=True)
    return sum(cost.kept for cost in found) + sum(checkpoints[:jobs])


def seeds_within(
    seconds: float,  # That the study may take
    tasks_of: Callable[[int], Sequence[Task]],  # From a number of seeds to the tasks of the study
    costs: Costs,  # Of all their recipes
    jobs: int,  # Number of parallel runs
    most: int,  # Seeds to consider
) -> int:
    "Return the largest number of seeds that can be trained in time; 0 if not even one can."
    return bisect_right(range(1, most + 1), seconds, key=lambda n: seconds_needed(tasks_of(n), costs, jobs))
