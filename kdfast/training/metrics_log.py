"""Log metrics: every component of the loss, per step and per epoch."""

from collections import defaultdict
from time import perf_counter

import torch
from torch.nn.utils import get_total_norm

from kdfast.core import distributed
from kdfast.core.append import AppendOnlyFile, csv_row
from kdfast.core.atomic import write_csv
from kdfast.distill.fit import FitCallback
from kdfast.distill.parts import merged, parts_of
from kdfast.runs.run_dir import RunDir
from kdfast.training.batch_values import GRADIENT, Batch, check
from kdfast.training.device_values import SmoothLoss, plain, read_together, reads_at_once
from kdfast.training.label_scores import LabelScores

LOSSES = ('total', 'soft', 'hard', 'fit')
LOOK_EVERY = 50  # batches between reads from a GPU; each read synchronizes


class MetricsLog(FitCallback):
    """Write metrics.csv (one row per epoch) and steps.csv (one row per training step) of a run.

    `total` is the training loss, `hard` the loss on labels (on validation images: the validation loss), `soft` and
    `fit` the losses that Distill, Match and Hint add.

    Images with several labels have `valid_map`, the mean average precision of the epoch, instead of accuracies.

    Training rows are measured during the steps: on augmented images, with the weights of that step.

    `stage` is the number of the fit in the run, from 1; `lr_find` does not count.

    Raises Diverged if a loss or a gradient is not finite: on a CPU before the step, elsewhere up to LOOK_EVERY
    batches later, but before a row or a checkpoint is written.
    """

    order = 70  # after the schedule (60), which sets the learning rate of the step

    def __init__(
        self,
        folder: RunDir,  # Run directory
        several: bool = False,  # Whether images have several labels: mean average precision instead of accuracy
    ):
        self.folder = folder
        of_step, of_valid = (*LOSSES, *([] if several else ['accuracy'])), (*LOSSES, 'map' if several else 'accuracy')
        self.of_step = of_step  # measures of a training step
        self.columns = (
            'stage',
            'epoch',
            'lr',
            *(f'train_{m}' for m in of_step),
            *(f'valid_{m}' for m in of_valid),
            'seconds',
        )
        self.scores = LabelScores() if several else None
        self.stage = 0
        self.epochs = []  # rows of metrics.csv
        self.steps = 0  # rows of steps.csv
        self.file = AppendOnlyFile(folder / 'steps.csv')
        self.active = False  # whether this fit is logged
        self.unread = []  # batches whose values are on the device
        self.last = None  # the current batch
        self.begin_epoch()

    def begin_epoch(self):
        "Reset the sums of the epoch."
        if self.scores:
            self.scores = LabelScores()
        self.sums = defaultdict(float)
        self.counts = defaultdict(int)
        self.started = perf_counter()

    def before_fit(self):
        self.active = not hasattr(self.learn, 'lr_finder')
        self.at_once = reads_at_once(self.device)
        self.unread = []
        if self.active:
            self.stage += 1
        self.recorder.smooth_loss = SmoothLoss(self.recorder.smooth_loss.beta)
        self.begin_epoch()

    def before_epoch(self):
        self.begin_epoch()

    def before_batch(self):
        "Clear the `parts` of callbacks, which belong to the previous batch."
        self.last = None
        for cb in self.learn.cbs:
            if parts_of(cb):
                vars(cb)['parts'] = {}

    def after_loss(self):
        if not self.active:
            return
        self.last = Batch(
            'train' if self.training else 'valid', self.epoch + 1, self.iter + 1, len(self.xb[0]), self.measure()
        )
        if self.at_once:
            self.read([self.last])

    def measure(self):
        "Return the losses of the batch (`parts` of callbacks, or the Learner's), and correct predictions."
        losses = merged(parts_of(cb) for cb in self.learn.cbs.sorted('order'))
        losses = losses or dict.fromkeys(('total', 'hard'), plain(self.loss).mean())
        y, pred = (plain(t) if isinstance(t, torch.Tensor) else t for t in (self.y, self.pred))
        if self.scores and not self.training and 'hard' in losses:
            self.scores.add(pred, y)
        labelled = (
            isinstance(y, torch.Tensor)
            and isinstance(pred, torch.Tensor)
            and not y.is_floating_point()
            and y.shape == pred.shape[:-1]
        )
        return losses | (dict(accuracy=(pred.argmax(-1) == y).sum()) if 'hard' in losses and labelled else {})

    def before_step(self):
        gradients = [p.grad for params in self.opt.param_lists for p in params if p.grad is not None]
        if not self.active or self.last is None or not gradients:
            return
        self.last.values[GRADIENT] = get_total_norm(gradients)
        if self.at_once:
            check(self.last, GRADIENT, self.last.values.pop(GRADIENT).item())

    def after_batch(self):
        batch, self.last = self.last, None
        if batch is None:
            return  # the batch was skipped
        if self.training:
            batch.lr = self.lr_now
        if self.at_once:
            return self.add(batch)
        self.unread.append(batch)
        if len(self.unread) >= LOOK_EVERY:
            self.look()

    def look(self):
        "Read the values that are still on the device. Raises Diverged."
        batches, self.unread = self.unread, []
        if not batches:
            return
        self.read(batches)
        for batch in batches:
            self.add(batch)

    def read(
        self,
        batches,  # Not read before
    ):
        "Read the values of batches from the device in one transfer; average them over the processes."
        recent = self.recorder.losses[-len(batches) :]
        smooth = [i for i, loss in enumerate(recent, -len(recent)) if loss.device.type != 'cpu']
        values = [
            *(value for batch in batches for value in batch.values.values()),
            *(self.recorder.losses[i] for i in smooth),
        ]
        read = list(map(float, values)) if self.at_once else read_together(values, self.device)
        numbers = iter(distributed.mean(read))
        for batch in batches:
            batch.values = {name: next(numbers) for name in batch.values}
        for i, number in zip(smooth, numbers):
            self.recorder.losses[i] = torch.tensor(number, dtype=self.recorder.losses[i].dtype)
        for batch in batches:
            if 'accuracy' in batch.values:
                batch.values['accuracy'] /= batch.size
            for name, value in batch.values.items():
                check(batch, name, value)

    def add(
        self,
        batch,  # With its values read
    ):
        "Add a batch to the sums of its epoch, and a training step to steps.csv."
        batch.values.pop(GRADIENT, None)
        for name, value in batch.values.items():
            self.sums[batch.split, name] += value * batch.size
            self.counts[batch.split, name] += batch.size
        if batch.lr is None:
            return
        if not self.steps:
            self.file.add(csv_row(('stage', 'epoch', 'step', 'lr', *self.of_step)))
        self.steps += 1
        self.file.add(
            csv_row((self.stage, batch.epoch, self.steps, batch.lr, *(batch.values.get(m) for m in self.of_step)))
        )

    @property
    def lr_now(self):
        "Learning rate of the last parameter group"
        return float(self.opt.hypers[-1]['lr'])

    def after_epoch(self):
        self.end_epoch()

    def after_fit(self):
        self.end_epoch()  # if the fit was cancelled within an epoch

    def end_epoch(self):
        "Write the row of the epoch, if anything was measured in it."
        self.look()
        if not self.sums:
            return
        means = {f'{split}_{name}': total / self.counts[split, name] for (split, name), total in self.sums.items()}
        row = dict(
            stage=self.stage,
            epoch=self.epoch + 1,
            lr=self.lr_now,
            **means,
            seconds=round(perf_counter() - self.started, 2),
        )
        if self.scores:
            row['valid_map'] = self.scores.mean()
        self.epochs.append({name: row.get(name) for name in self.columns})
        write_csv(self.folder / 'metrics.csv', self.columns, (r.values() for r in self.epochs))
        self.file.write()
        self.begin_epoch()

    def state_dict(self):
        "Return the state without the current batch, as plain values."
        return dict(
            stage=self.stage,
            steps=self.steps,
            file=self.file.state(),
            epochs=self.epochs,
            seconds=perf_counter() - self.started,
            sums=[[*key, value, self.counts[key]] for key, value in self.sums.items()],
        )

    def load_state_dict(
        self,
        state,  # Of another start of the run
    ):
        "Restore the state from `state_dict`."
        self.stage = state['stage']
        self.steps = state['steps']
        self.epochs = state['epochs']
        self.started = perf_counter() - state['seconds']
        self.file.restore(state['file'])
        self.sums.clear()
        self.counts.clear()
        for split, name, total, count in state['sums']:
            self.sums[split, name] = total
            self.counts[split, name] = count


def find_best_epoch(
    epochs: list[dict],  # Rows of metrics.csv
    measure: str,  # Name of a column
) -> tuple[int | None, float | None]:  # None where nothing was measured
    "Return the epoch with the highest value, counted over all fits of the run, and the value."
    measured = {n: row[measure] for n, row in enumerate(epochs, 1) if row[measure] is not None}
    best = max(measured, key=lambda n: measured[n], default=None)
    return best, measured.get(best)
