"""Train the runs of a study in processes side by side. Imports no torch."""

import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from statistics import mean

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdfast.core import signals
from kdfast.core.errors import KdfastError
from kdfast.core.format import duration, fits_width, percent
from kdfast.runs.recipes import study_order
from kdfast.study.plan import KDFAST, Task, foundations, short_name

LOOK_EVERY = 0.25  # seconds


def rehearse_tasks(
    tasks: list[Task],  # From `plan`
    common: list[str],  # Options of every run: where its data are, and where it is kept
    jobs: int,  # How many will train side by side
    threads: int,  # Of each
):
    """Try every recipe in small, in a process of its own, before the first run is trained. Raises KdfastError.

    Once, whatever the number of seeds. What is finished, or has begun and will go on, is not tried; a run of a study is not tried again.
    """
    seeds = {}
    for task in tasks:
        if task.folder.status in ('finished', 'diverged') or task.folder.has_checkpoints or task.folder.is_locked:
            continue
        seeds.setdefault(task.folder.recipe, (task.where, task.given, []))[-1].append(task.seed)
    if not seeds:
        return
    process = Process([*KDFAST, 'rehearse', json.dumps(list(seeds.values())), '--jobs', str(jobs), *common], threads)
    try:
        while not process.ended:
            time.sleep(LOOK_EVERY)
    finally:
        stop_processes([process])
    if process.failure:
        raise KdfastError(process.failure)


def default_jobs(
    threads: int,  # Of each run
) -> int:
    "Runs side by side: as many as the cores allow; one on a GPU, CUDA's or Apple's, whose memory they would share."
    import torch

    return 1 if torch.cuda.is_available() or torch.backends.mps.is_available() else max(1, os.cpu_count() // threads)


def run_tasks(
    tasks: list[Task],  # From `plan`
    common: list[str],  # Options of every run: where its data are, and where it is kept
    jobs: int,  # How many train side by side
    threads: int,  # Of each; they decide the last bits of its weights, so that the number of jobs does not
    console: Console,  # Where the board goes
    start: Callable | None = None,  # What starts a command with so many threads: Process, here; or a task of a cluster
) -> list[Task]:  # Those without a result, each with its reason
    "Train every task that is not finished. One that fails holds up only those that need it; an interruption leaves no process behind."
    waiting, running = [], {}
    stands_on_it = Counter(below for task in tasks for below in foundations(task))
    for task in tasks:
        if task.folder.status == 'diverged':
            task.failure = f'diverged before ({task.folder.run.get("reason")}); remove {task.folder} to try again'
        elif not task.folder.finished:
            waiting.append(task)  # one that failed goes on, too
    with Board(tasks, running, console) as board:
        try:
            while waiting or running:
                for task in [t for t in waiting if any(need.failure for need in t.needs)]:
                    waiting.remove(task)
                    task.failure = (
                        f'it needs {next(need.name for need in task.needs if need.failure)}, which has no result'
                    )
                    board.ended(task)
                ready = [t for t in waiting if all(need.folder.finished for need in t.needs) and not t.folder.is_locked]
                for task in sorted(ready, key=lambda t: -stands_on_it[t])[
                    : jobs - len(running)
                ]:  # what most wait for goes first: no job idles in the end
                    waiting.remove(task)
                    if not task.folder.finished:
                        running[task] = (start or Process)(
                            task.command(common), threads
                        )  # else another process has just trained it
                for task in [t for t, process in running.items() if process.ended]:
                    task.failure = running.pop(task).failure
                    board.ended(task)
                board.show()
                time.sleep(LOOK_EVERY)
        finally:
            stop_processes(running.values())
    return [task for task in tasks if task.failure]


class Process:
    "One training process; what it says is kept until it ends."

    def __init__(self, command, threads):
        self.said = tempfile.TemporaryFile('w+')
        more = dict(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), **{signals.STUDY_CHILD: '1'})
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.said,
            env=os.environ | more,
            start_new_session=True,
        )  # a terminal's Ctrl-C reaches the study alone, which passes it on once

    @property
    def ended(self):
        return self.process.poll() is not None

    def ask_to_end(self):
        self.process.terminate()

    def wait(self):
        self.process.wait()

    def kill(self):
        self.process.kill()

    @property
    def failure(self):
        "What it said last, where it failed"
        if self.process.returncode == 0:
            return ''
        self.said.seek(0)
        last = ([line.strip() for line in self.said if line.strip()] or [''])[-1]
        return last.removeprefix('kdfast: error: ') or f'its process ended with status {self.process.returncode}'


def stop_processes(
    processes: list[Process],
):
    "Ask all of them to end, which they do when their step is kept; an impatient user kills them."
    try:
        for process in processes:
            process.ask_to_end()
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()


# How it stands


class Board:
    "Recipe × seed, live on a terminal; elsewhere a line whenever a run ends."

    def __init__(self, tasks, running, console):
        self.tasks, self.running, self.console = tasks, running, console
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self):
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_):
        self.show()
        if self.live:
            self.live.stop()

    def show(self):
        if self.live:
            self.live.update(self.table(), refresh=True)

    def ended(self, task):
        if self.live:
            return
        done = sum(bool(t.failure) or t.folder.finished for t in self.tasks)
        self.console.print(
            f'{done} of {len(self.tasks)}  {task.name}: {task.failure or outcome_text(task.folder)}',
            soft_wrap=True,
            markup=False,
        )

    def table(self):
        "A column a seed; where they do not fit side by side, how many seeds have come how far"
        by_recipe = {}
        for task in sorted(self.tasks, key=lambda task: study_order(task.folder.recipe)):
            by_recipe.setdefault(task.folder.recipe, {})[task.seed] = task
        whole = self.by_seed(by_recipe)
        return whole if fits_width(whole, self.console.width) else self.by_state(by_recipe)

    def by_seed(self, by_recipe):
        seeds = sorted({task.seed for task in self.tasks})
        table = Table(box=None, padding=(0, 1, 0, 0), header_style='bold')
        for name in ('', *(f'seed {seed}' for seed in seeds)):
            table.add_column(name, justify='right' if name else 'left')
        for recipe, tasks in by_recipe.items():
            table.add_row(recipe, *(self.cell(tasks.get(seed)) for seed in seeds))
        return table

    def by_state(self, by_recipe):
        table = Table(box=None, padding=(0, 1, 0, 0), header_style='bold')
        for name, justify in (
            ('', 'left'),
            ('done', 'right'),
            ('mean', 'right'),
            ('under way', 'left'),
            ('failed', 'right'),
        ):
            table.add_column(name, justify=justify, overflow='fold')
        for recipe, tasks in by_recipe.items():
            results = [task.folder.result for task in tasks.values() if task.folder.finished]
            accuracies = [r['valid_accuracy'] for r in results if r['valid_accuracy'] is not None]
            running, failed = (
                [task for task in tasks.values() if task in self.running],
                [str(seed) for seed, task in tasks.items() if task.failure],
            )
            table.add_row(
                recipe,
                f'{len(results)}/{len(tasks)}',
                percent(mean(accuracies)) if accuracies else '',
                '\n'.join(f'{task.seed}: {progress_text(task)}' for task in running),
                Text(' '.join(failed), style='red'),
            )
        return table

    def cell(self, task):
        if task is None:
            return ''
        if task.failure:
            return Text('failed', style='red')
        if task in self.running:
            return progress_text(task)
        if task.folder.finished:
            return Text(short_name(task.folder), style='green')
        if task.folder.is_locked:
            return Text('elsewhere', style='dim')
        return Text('waiting', style='dim')


def progress_text(task):
    "3/32 71.40 %: the epochs that are done, and the last one's accuracy"
    rows = task.folder.metrics()
    of = f'/{task.recipe.resolve(task.given)["epochs"]}' if 'epochs' in task.recipe.resolve(task.given) else ''
    accuracy = rows[-1]['valid_accuracy'] if rows else ''
    return f'{len(rows)}{of}' + (f' {percent(float(accuracy))}' if accuracy else '')


def outcome_text(folder):
    return f'{short_name(folder)} in {duration(folder.result["seconds"])}'
