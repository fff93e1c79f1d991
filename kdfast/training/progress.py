"""Progress of training on stderr: a live bar per fit on a terminal, else one line per epoch."""

from contextlib import nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kdfast.core.format import percent
from kdfast.distill.fit import FitCallback
from kdfast.runs.run_dir import RunDir

LOSSES = dict(train_total='loss', train_soft='soft', train_hard='hard', train_fit='fit')  # labels of columns
SCORES = dict(valid_accuracy='acc', valid_map='mAP')


def live_bars(
    console: Console,  # Console for the bars
) -> Progress | nullcontext:
    "Return a context with progress bars on a terminal; elsewhere an empty one."
    if not console.is_terminal:
        return nullcontext()
    return Progress(
        TextColumn('{task.description:<8}'),
        BarColumn(bar_width=None),
        TextColumn('{task.fields[epoch]}'),
        TextColumn('{task.fields[metrics]}'),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        expand=True,
    )


class ConsoleProgress(FitCallback):
    "Print each row of MetricsLog."

    order = 80  # after MetricsLog (70)

    def __init__(
        self,
        folder: RunDir,  # Run directory
        console: Console,  # Console for plain lines
        bars: Progress | None = None,  # Progress bars, on a terminal
    ):
        self.label = folder.recipe
        self.console = console
        self.bars = bars
        self.task = None

    def before_fit(self):
        self.task = None

    def before_train(self):
        if not (self.bars and self.learn.metrics_log.active):
            return
        steps = len(self.dls.train)
        if self.task is None:
            self.task = self.bars.add_task(
                self.label, total=self.n_epoch * steps, metrics='', epoch=f'{self.epoch}/{self.n_epoch}'
            )
        self.bars.update(self.task, completed=self.epoch * steps)

    def after_batch(self):
        if self.task is not None and self.training:
            self.bars.update(self.task, completed=self.epoch * len(self.dls.train) + self.iter + 1)

    def after_epoch(self):
        row = next(iter(self.learn.metrics_log.epochs[-1:]), None)
        if not row or (row['stage'], row['epoch']) != (self.learn.metrics_log.stage, self.epoch + 1):
            return  # nothing was measured
        epoch = f'{self.epoch + 1}/{self.n_epoch}'
        metrics = metrics_text(row)
        if self.task is not None:
            self.bars.update(self.task, metrics=metrics, epoch=epoch)
        else:
            self.console.print(
                f'{self.label}  epoch {epoch}  {metrics}  {row["seconds"]:.1f} s', highlight=False, soft_wrap=True
            )


def metrics_text(
    row: dict,  # Of metrics.csv
) -> str:
    "Return text such as: loss 0.71 soft 0.68 hard 0.95 acc 83.9 %. A total of one part is omitted."
    parts = {name: row[name] for name in LOSSES if row[name] is not None}
    if len(parts) == 2:
        parts.pop('train_total')
    losses = [f'{LOSSES[name] if len(parts) > 1 else "loss"} {value:.3g}' for name, value in parts.items()]
    if 'train_fit' in parts:
        losses = [f'fit {row["train_fit"]:.3g}']
    scores = [f'{label} {percent(row[name], 1)}' for name, label in SCORES.items() if row.get(name) is not None]
    return ' '.join(losses + scores)
