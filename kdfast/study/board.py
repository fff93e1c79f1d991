"""Show the progress of a study: a live table on a terminal, lines elsewhere. Imports no torch."""

import time
from collections.abc import Collection
from statistics import mean

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kdfast.analysis.results import main_score
from kdfast.core.format import duration, fits_width, loss_text, percent
from kdfast.core.tables import Table
from kdfast.runs.recipes import study_order
from kdfast.runs.run_dir import RunDir
from kdfast.study.tasks import Task
from kdfast.study.verdicts import verdicts_so_far


class Board:
    "Recipes × seeds as a live table on a terminal; elsewhere one line whenever a run ends."

    def __init__(
        self,
        tasks: Collection[Task],  # Of the study
        running: Collection[Task],  # Those that are being trained now; changes while the study goes on
        console: Console,  # Where to print
    ):
        self.tasks = tasks
        self.running = running
        self.console = console
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.started = time.monotonic()
        self.finished_epochs = {}  # of finished tasks, which are read once
        self.epochs_before = sum(self.epochs_done().values())  # of earlier commands
        self.verdicts: tuple[int, list[str]] = (-1, [])  # number of finished runs, and the verdicts that these have

    def __enter__(self):
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_):
        self.show()
        if self.live:
            self.live.stop()

    def show(self):
        "Update the live table, if there is one."
        if self.live:
            self.live.update(Group(self.headline(), self.table(), *self.verdict_lines()), refresh=True)

    def headline(self) -> Text:
        "Return runs and epochs done of all, and about how long the rest takes."
        epochs = self.epochs_done()
        runs, done = len(self.finished_epochs), sum(epochs.values())
        waiting = [task for task in self.tasks if not task.failure and task not in self.finished_epochs]
        left = sum(max(0, epochs_planned(task) - epochs[task]) for task in waiting)
        text = Text.assemble((f'{runs} of {len(self.tasks)} runs', 'bold'), f', {done} of {done + left} epochs')
        trained = done - self.epochs_before
        if trained > 0 and left:
            seconds = (time.monotonic() - self.started) / trained * left
            text.append(f', about {duration(seconds)} left')
        return text

    def epochs_done(self) -> dict[Task, int]:
        "Return how many epochs each task has trained, in this command and before."
        for task in self.tasks:
            if task not in self.finished_epochs and task.folder.finished:
                rows = [] if task.folder.problem('metrics.csv') else task.folder.metrics()
                self.finished_epochs[task] = len(rows)
        others = {task: len(task.folder.metrics()) for task in self.tasks if task not in self.finished_epochs}
        return self.finished_epochs | others

    def verdict_lines(self) -> list[Text]:
        "Return the verdicts that the finished runs have under the designs of the study."
        n_finished = len(self.finished_epochs)
        if self.verdicts[0] != n_finished:
            self.verdicts = n_finished, verdicts_so_far([task.folder for task in self.tasks])
        return [Text(line, style='dim') for line in self.verdicts[1]]

    def ended(
        self,
        task: Task,  # With a result or a failure
    ):
        "Print a line about the task, if there is no live table."
        if self.live:
            return
        n_done = sum(bool(t.failure) or t.folder.finished for t in self.tasks)
        outcome = task.failure or f'{result_text(task.folder)} in {duration(task.folder.result["seconds"])}'
        self.console.print(f'{n_done} of {len(self.tasks)}  {task.name}: {outcome}', soft_wrap=True, markup=False)

    def again(
        self,
        task: Task,  # For which memory ran out, or may have
        jobs: int,  # Runs at a time from now on
    ):
        "Print a line that a task waits, to go on with fewer beside it."
        at_a_time = 'one run at a time' if jobs == 1 else f'{jobs} runs at a time'
        line = f'{task.name}: killed or out of memory; it goes on later, with {at_a_time}'
        self.console.print(line, soft_wrap=True, markup=False)

    def table(self) -> Table:
        "Return a table with one column per seed or, if they do not fit side by side, with counts per recipe."
        by_recipe = {}
        for task in sorted(self.tasks, key=lambda task: study_order(task.folder.recipe)):
            by_recipe.setdefault(task.folder.recipe, {})[task.seed] = task
        by_seed = self.seed_table(by_recipe)
        return by_seed if fits_width(by_seed, self.console.width) else self.count_table(by_recipe)

    def seed_table(
        self,
        by_recipe,  # Tasks by recipe and seed
    ):
        "Return a table with one row per recipe and one column per seed."
        table = Table(box=None, padding=(0, 1, 0, 0), header_style='bold')
        table.add_column('')
        seeds = sorted({task.seed for task in self.tasks})
        for seed in seeds:
            table.add_column(f'seed {seed}', justify='right')
        for recipe, tasks in by_recipe.items():
            table.add_row(recipe, *(self.cell(tasks.get(seed)) for seed in seeds))
        return table

    def count_table(
        self,
        by_recipe,  # Tasks by recipe and seed
    ):
        "Return a table of finished seeds, mean accuracy, running and failed seeds per recipe."
        table = Table(box=None, padding=(0, 1, 0, 0), header_style='bold')
        for name in ('', 'done', 'mean', 'running', 'failed'):
            table.add_column(name, justify='left' if name in ('', 'running') else 'right', overflow='fold')
        for recipe, tasks in by_recipe.items():
            results = [task.folder.result for task in tasks.values() if task.folder.finished]
            scores = [main_score(r) for r in results if main_score(r) is not None]
            running = [task for task in tasks.values() if task in self.running]
            failed = [str(seed) for seed, task in tasks.items() if task.failure]
            table.add_row(
                recipe,
                f'{len(results)}/{len(tasks)}',
                percent(mean(scores)) if scores else '',
                '\n'.join(f'{task.seed}: {progress_text(task)}' for task in running),
                Text(' '.join(failed), style='red'),
            )
        return table

    def cell(
        self,
        task,  # None if the recipe has no such seed
    ):
        "Return the state of one run."
        if task is None:
            return ''
        if task.failure:
            return Text('failed', style='red')
        if task in self.running:
            return progress_text(task)
        if task.folder.finished:
            return Text(result_text(task.folder), style='green')
        if task.folder.is_locked:
            return Text('locked', style='dim')  # another process trains it
        return Text('waiting', style='dim')


def epochs_planned(
    task: Task,  # Of the study
) -> int:
    "Return how many epochs a task trains; 0 if its recipe has no such option."
    return task.recipe.resolve(task.given).get('epochs') or 0


def progress_text(
    task: Task,  # That is being trained
) -> str:
    "Return the epochs done and the accuracy (of several labels: mAP) since: 3/32 71.40 %."
    rows = task.folder.metrics()
    epochs = task.recipe.resolve(task.given).get('epochs')
    total = '' if epochs is None else f'/{epochs}'
    score = (rows[-1].get('valid_accuracy') or rows[-1].get('valid_map')) if rows else ''
    return f'{len(rows)}{total}' + (f' {percent(float(score))}' if score else '')


def result_text(
    folder: RunDir,  # A finished run
) -> str:
    "Return its validation accuracy (of several labels: mAP), or its fit loss without a classifier."
    result = folder.result
    score = main_score(result)
    if score is None:
        return '–' if result['fit_loss'] is None else f'loss {loss_text(result["fit_loss"])}'
    return percent(score)
