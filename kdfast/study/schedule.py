"""Train the runs of a study in parallel. Imports no torch."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf

from rich.console import Console

from kdfast.core.errors import KdfastError
from kdfast.runs.unfinished import diverged_advice
from kdfast.study.board import Board
from kdfast.study.jobs import Jobs
from kdfast.study.process import Process, memory_ran_out, stop_processes
from kdfast.study.tasks import KDFAST, Task

POLL_SECONDS = 0.25


class OutOfTime(Exception):
    "The time for the runs of a study is over; their checkpoints are saved."


def rehearse_tasks(
    tasks: Sequence[Task],  # From `plan`
    common: list[str],  # Options that all runs share
    jobs: int,  # Number of parallel runs
    threads: int,  # Of each run
    start: Callable = Process,  # As of `run_tasks`
):
    """Rehearse every recipe once, whatever the number of seeds, in another process.

    Raises KdfastError if a rehearsal fails.
    Runs that are finished, have checkpoints, or are trained by another process are not rehearsed.
    """
    new = [task for task in tasks if task.is_new]
    if new:
        finish_process([*KDFAST, 'rehearse', by_recipe(new), '--jobs', str(jobs), *common], threads, start)


def check_finished(
    tasks: Sequence[Task],  # From `plan`, finished
    common: list[str],  # Options that all runs share
    threads: int,  # Of the process
    start: Callable = Process,  # As of `run_tasks`
):
    "Raise KdfastError if finished runs are not those that the study would train; in another process."
    if tasks:
        finish_process([*KDFAST, 'identify', by_recipe(tasks), *common], threads, start)


def by_recipe(
    tasks: Sequence[Task],  # From `plan`
) -> str:  # JSON
    "Return recipe, arguments and seeds of each kind of run, as the hidden commands take them."
    seeds = {}
    for task in tasks:
        _, _, of_recipe = seeds.setdefault(task.folder.recipe, (task.recipe_argument, task.given, []))
        of_recipe.append(task.seed)
    return json.dumps(list(seeds.values()))


def finish_process(
    command: list[str],  # The command line
    threads: int,  # For OpenMP and MKL
    start: Callable = Process,  # As of `run_tasks`
):
    "Run a command in another process until it ends. Raises KdfastError with its last line if it fails."
    process = start(command, threads)
    try:
        while not process.ended:
            time.sleep(POLL_SECONDS)
    finally:
        stop_processes([process])
    if process.failure:
        raise KdfastError(process.failure)


def run_tasks(
    tasks: Sequence[Task],  # From `plan`
    common: list[str],  # Options that all runs share
    jobs: Jobs,  # Number of parallel runs; changes while the study goes on
    threads: int,  # Of each run. They affect the last bits of its weights; the number of jobs does not
    console: Console,  # Where the progress is shown
    start: Callable = Process,  # Starts a command with a number of threads: in a process, a fork, a task of a cluster
    deadline: float = inf,  # Value of time.monotonic() at which runs are stopped, so that they can be resumed
) -> list[Task]:  # Those without a result, each with its failure
    """Train every task that is not finished. Raises OutOfTime at the deadline.

    A failure stops only the tasks that need it. A run for which memory ran out beside others goes on with fewer
    beside it. If this function is left early, it stops all processes first.
    """
    queue = Queue(tasks)
    running = {}
    with Board(tasks, running, console) as board:
        try:
            while queue.waiting or running:
                if time.monotonic() > deadline:
                    raise OutOfTime()
                for task in queue.fail_blocked():
                    board.ended(task)
                for task in queue.take(jobs.number - len(running)):
                    running[task] = start(task.command(common), threads)
                take_ended(running, queue, jobs, board)
                jobs.look(running)
                board.show()
                time.sleep(POLL_SECONDS)
        finally:
            stop_processes(running.values())
    return [task for task in tasks if task.failure]


def take_ended(
    running: dict,  # Processes by task; those that have ended are removed
    queue: 'Queue',  # Where tasks wait again for which memory ran out beside others
    jobs: Jobs,  # Number of parallel runs, which falls then
    board: Board,  # Which tells
):
    "Note results and failures of the processes that have ended."
    beside = len(running) - 1
    for task in [task for task, process in running.items() if process.ended]:
        failure = running.pop(task).failure
        if beside and memory_ran_out(failure):
            jobs.keep(beside)
            queue.waiting.append(task)
            board.again(task, jobs.number)
        else:
            task.failure = failure
            board.ended(task)


class Queue:
    "Tasks that wait to be started."

    def __init__(
        self,
        tasks: Sequence[Task],  # All tasks; finished and diverged ones do not wait, failed ones are tried again
    ):
        self.n_dependents = Counter(upstream for task in tasks for upstream in task.upstream())
        self.waiting = []
        for task in tasks:
            if task.folder.status == 'diverged':
                reason = task.folder.run.get('reason')
                task.failure = f'diverged before ({reason}): {diverged_advice(task.folder)}'
            elif not task.folder.finished:
                self.waiting.append(task)

    def fail_blocked(self) -> list[Task]:
        "Remove and return the tasks that need one that failed; they fail, too."
        blocked = []
        for task in list(self.waiting):
            failed = [need.name for need in task.needs if need.failure]
            if failed:
                task.failure = f'it needs {failed[0]}, which has no result'
                self.waiting.remove(task)
                blocked.append(task)
        return blocked

    def take(
        self,
        n: int,  # At most
    ) -> list[Task]:
        "Remove and return tasks that can start, first those that most others need, so that no job idles."
        ready = [t for t in self.waiting if not t.folder.is_locked and all(need.folder.finished for need in t.needs)]
        ready = sorted(ready, key=lambda task: -self.n_dependents[task])[:n]
        for task in ready:
            self.waiting.remove(task)
        return ready  # one that another process has trained meanwhile is checked by its own
