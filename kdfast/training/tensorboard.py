"""Metrics of a run for TensorBoard: `tensorboard --logdir runs`."""

import csv

from torch.utils.tensorboard import SummaryWriter

from kdfast.distill.fit import FitCallback
from kdfast.runs.run_dir import RunDir


class TensorBoard(FitCallback):
    """Write new rows of steps.csv and metrics.csv as scalars, named by their columns, after each epoch.

    A resumed run writes all rows again: the events of the interrupted process may be incomplete.
    """

    order = 80  # after MetricsLog (70)

    def __init__(
        self,
        folder: RunDir,  # Run directory; the events go to its subdirectory tensorboard
    ):
        self.folder = folder
        self.written = {'steps.csv': 0, 'metrics.csv': 0}  # rows
        self.writer = None

    def before_fit(self):
        self.writer = SummaryWriter(self.folder / 'tensorboard')

    def after_epoch(self):
        for x, row in self.new_rows('steps.csv'):
            self.write({name: row[name] for name in row if name not in ('stage', 'epoch', 'step')}, x, 'step')
        for x, row in self.new_rows('metrics.csv'):
            self.write({name: row[name] for name in row if name not in ('stage', 'epoch')}, x, 'epoch')

    def new_rows(
        self,
        name,  # Of a CSV file of the run directory
    ):
        "Yield number and content of the rows that are not written yet."
        if not (self.folder / name).exists():
            return
        with (self.folder / name).open(encoding='utf-8') as f:
            for x, row in enumerate(csv.DictReader(f), 1):
                if x > self.written[name]:
                    yield x, row
                self.written[name] = max(x, self.written[name])

    def write(
        self,
        row,  # By column
        x,  # Step or epoch
        prefix,  # Group of the curves
    ):
        "Write the values of a row at position `x`."
        for name, value in row.items():
            if value:
                self.writer.add_scalar(f'{prefix}/{name}', float(value), x)

    def after_fit(self):
        self.writer.close()

    def leave(self):
        "Close the file of TensorBoard."
        if self.writer:
            self.writer.close()
