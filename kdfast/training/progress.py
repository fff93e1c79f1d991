"How training shows itself: one live line a fit on a terminal, one plain line an epoch elsewhere; always on stderr."

from contextlib import nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kdfast.distill.fit import FitCallback
from kdfast.runs.run_dir import RunDir

LOSSES = dict(train_total='loss', train_soft='soft', train_hard='hard', train_fit='fit')


def live_bars(
    console: Console,  # Where the lines go
) -> Progress | nullcontext:
    "The lines of a terminal, to be used in a `with`; of anything else, none."
    if not console.is_terminal:
        return nullcontext()
    return Progress(
        TextColumn('{task.description:<8}'),
        BarColumn(bar_width=None),
        TextColumn('{task.fields[epoch]}'),
        TextColumn('{task.fields[said]}'),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        expand=True,
    )


class Show(FitCallback):
    "Shows the rows that MetricsLog keeps, as they come."

    order = 80  # after MetricsLog (70)

    def __init__(
        self,
        folder: RunDir,  # Of the run that is being trained
        console: Console,  # Where plain lines go
        bars: Progress | None = None,  # Where live lines go, on a terminal
    ):
        self.label, self.console, self.bars, self.task = folder.recipe, console, bars, None

    def before_fit(self):
        self.task = None

    def before_train(self):
        if not (self.bars and self.learn.metrics_log.active):
            return
        done, steps = self.epoch * len(self.dls.train), self.n_epoch * len(self.dls.train)
        if self.task is None:
            self.task = self.bars.add_task(self.label, total=steps, said='', epoch=f'{self.epoch}/{self.n_epoch}')
        self.bars.update(self.task, completed=done)

    def after_batch(self):
        if self.task is not None and self.training:
            self.bars.update(self.task, completed=self.epoch * len(self.dls.train) + self.iter + 1)

    def after_epoch(self):
        row = next(iter(self.learn.metrics_log.epochs[-1:]), None)
        if not row or (row['stage'], row['epoch']) != (self.learn.metrics_log.stage, self.epoch + 1):
            return  # nothing was measured
        epoch = f'{self.epoch + 1}/{self.n_epoch}'
        if self.task is not None:
            self.bars.update(self.task, said=said(row), epoch=epoch)
        else:
            self.console.print(
                f'{self.label}  epoch {epoch}  {said(row)}  {row["seconds"]:.1f} s', highlight=False, soft_wrap=True
            )


def said(row):
    "loss 0.71 soft 0.68 hard 0.95 acc 83.9 %; a part that is the whole is not said twice"
    parts = {name: row[name] for name in LOSSES if row[name] is not None}
    if len(parts) == 2:
        parts.pop('train_total')
    losses = [f'{LOSSES[name] if len(parts) > 1 else "loss"} {value:.3g}' for name, value in parts.items()]
    if 'train_fit' in parts:
        losses = [f'fit {row["train_fit"]:.3g}']
    accuracy = [] if row['valid_accuracy'] is None else [f'acc {row["valid_accuracy"]:.1%}'.replace('%', ' %')]
    return ' '.join(losses + accuracy)
