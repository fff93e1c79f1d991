"The rows of a run's metrics for TensorBoard: `tensorboard --logdir runs`."

import csv

from torch.utils.tensorboard import SummaryWriter

from kdfast.distill.fit import FitCallback
from kdfast.runs.run_dir import RunDir
from kdfast.training.metrics_log import MEASURES


class TensorBoard(FitCallback):
    """Writes each new row of steps.csv and metrics.csv as scalars, under the names of its columns, at the end of every epoch.

    After an interruption it begins with the first row: what the killed process wrote may be incomplete.
    """

    order = 80  # after MetricsLog (70)

    def __init__(
        self,
        folder: RunDir,  # The run's folder; the events go into its folder tensorboard
    ):
        self.folder, self.written, self.writer = folder, dict.fromkeys(('steps.csv', 'metrics.csv'), 0), None

    def before_fit(self):
        self.writer = SummaryWriter(self.folder / 'tensorboard')

    def after_epoch(self):
        for x, row in self.new('steps.csv'):
            self.write({name: row[name] for name in ('lr', *MEASURES)}, x, 'step')
        for x, row in self.new('metrics.csv'):
            self.write({name: row[name] for name in row if name not in ('stage', 'epoch')}, x, 'epoch')

    def new(self, name):
        "Rows that are not written yet, with their numbers"
        if not (self.folder / name).exists():
            return
        with (self.folder / name).open() as f:
            for x, row in enumerate(csv.DictReader(f), 1):
                if x > self.written[name]:
                    yield x, row
                self.written[name] = max(x, self.written[name])

    def write(self, row, x, by):
        for name, value in row.items():
            if value:
                self.writer.add_scalar(f'{by}/{name}', float(value), x)

    def after_fit(self):
        self.writer.close()

    def leave(self):
        if self.writer:
            self.writer.close()
