"What happened while training: every component of the loss, by step and by epoch, on training and validation images."

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from math import isfinite
from time import perf_counter

import torch
from fastai.learner import AvgSmoothLoss
from torch.nn.utils import get_total_norm

from kdfast.core import distributed
from kdfast.core.append import AppendOnlyFile
from kdfast.core.atomic import write_csv
from kdfast.core.errors import Diverged
from kdfast.distill.fit import FitCallback, parts_of
from kdfast.runs.run_dir import RunDir

MEASURES = ('total', 'soft', 'hard', 'fit', 'accuracy')
STEP = ('stage', 'epoch', 'step', 'lr', *MEASURES)
EPOCH = ('stage', 'epoch', 'lr', *(f'train_{m}' for m in MEASURES), *(f'valid_{m}' for m in MEASURES), 'seconds')
LOOK_EVERY = 50  # batches on a GPU, which would wait for the host each time
GRADIENT = 'gradient'  # its norm, among the values of a batch


@dataclass
class Batch:
    "What is measured of one batch."

    split: str  # train or valid
    epoch: int
    step: int
    size: int  # images
    values: (
        dict  # losses, the number of images that are right, the norm of the gradient; on the device until they are read
    )
    lr: float | None = None


class MetricsLog(FitCallback):
    """Keeps metrics.csv (a row an epoch) and steps.csv (a row a training step) of a run.

    `total` is what training minimizes, `hard` the loss on labels (on validation images: the plain validation loss), `soft` and
    `fit` what Distill and Hint add. Training rows are measured as the steps are taken, on augmented images and with the weights of
    that moment. `stage` counts the fits of the run, from 1, without those of `lr_find`.
    Raises Diverged when a loss or a gradient is infinite or not a number: on a CPU before the step is taken, elsewhere up to
    LOOK_EVERY batches later, and before a row or a checkpoint is written.
    """

    order = 70  # after the schedule (60) has set this step's learning rate

    def __init__(
        self,
        folder: RunDir,  # The run's folder
    ):
        self.folder, self.stage, self.epochs, self.steps = folder, 0, [], 0
        self.file, self.active, self.unread, self.last = AppendOnlyFile(folder / 'steps.csv'), False, [], None
        self.begin_epoch()

    def begin_epoch(self):
        self.sums, self.counts, self.started = defaultdict(float), defaultdict(int), perf_counter()

    def before_fit(self):
        self.active, self.at_once, self.unread = not hasattr(self.learn, 'lr_finder'), reads_at_once(self.device), []
        if self.active:
            self.stage += 1
        if not self.at_once:
            self.recorder.smooth_loss = SmoothLoss(self.recorder.smooth_loss.beta)
        self.begin_epoch()

    def before_epoch(self):
        self.begin_epoch()

    def before_batch(self):
        "What callbacks measured belongs to the batch before"
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
        "The batch's losses, and how many images it has right where that means something; the Learner's own loss unless callbacks have parts of it"
        losses = merged(parts_of(cb) for cb in self.learn.cbs.sorted('order')) or dict.fromkeys(
            ('total', 'hard'), self.loss.detach().mean()
        )
        y, pred = self.y, self.pred
        labelled = (
            isinstance(y, torch.Tensor)
            and isinstance(pred, torch.Tensor)
            and not y.is_floating_point()
            and y.shape == pred.shape[:-1]
        )
        return losses | (dict(accuracy=(pred.argmax(-1) == y).sum()) if 'hard' in losses and labelled else {})

    def before_step(self):
        gradients = [p.grad for p, *_ in self.opt.all_params() if p.grad is not None]
        if not self.active or self.last is None or not gradients:
            return
        self.last.values[GRADIENT] = get_total_norm(gradients)
        if self.at_once:
            check(self.last, GRADIENT, self.last.values.pop(GRADIENT).item())

    def after_batch(self):
        batch, self.last = self.last, None
        if batch is None:
            return  # it was skipped
        if self.training:
            batch.lr = self.lr_now
        if self.at_once:
            return self.add(batch)
        self.unread.append(batch)
        if len(self.unread) >= LOOK_EVERY:
            self.look()

    def look(self):
        "Read what is still on the device. Raises Diverged."
        batches, self.unread = self.unread, []
        if not batches:
            return
        self.read(batches)
        for batch in batches:
            self.add(batch)

    def read(self, batches):
        "From the device, once for all of them; of all processes that share a batch"
        smooth = [
            i
            for i, loss in enumerate(
                self.recorder.losses[-len(batches) :], -min(len(batches), len(self.recorder.losses))
            )
            if loss.device.type != 'cpu'
        ]
        values = [
            *(value for batch in batches for value in batch.values.values()),
            *(self.recorder.losses[i] for i in smooth),
        ]
        numbers = iter(distributed.mean(torch.stack([wide(value, self.device) for value in values]).tolist()))
        for batch in batches:
            batch.values = {name: next(numbers) for name in batch.values}
        for i, number in zip(smooth, numbers):
            self.recorder.losses[i] = torch.tensor(number, dtype=self.recorder.losses[i].dtype)
        for batch in batches:
            if 'accuracy' in batch.values:
                batch.values['accuracy'] /= batch.size
            for name, value in batch.values.items():
                check(batch, name, value)

    def add(self, batch):
        "To the means of its epoch, and to the steps"
        batch.values.pop(GRADIENT, None)
        for name, value in batch.values.items():
            self.sums[batch.split, name] += value * batch.size
            self.counts[batch.split, name] += batch.size
        if batch.lr is None:
            return
        if not self.steps:
            self.file.add(csv_row(STEP))
        self.steps += 1
        self.file.add(
            csv_row((self.stage, batch.epoch, self.steps, batch.lr, *(batch.values.get(m) for m in MEASURES)))
        )

    @property
    def lr_now(self):
        return float(self.opt.hypers[-1]['lr'])

    def after_epoch(self):
        self.end_epoch()

    def after_fit(self):
        self.end_epoch()  # where the fit was cancelled in the middle of an epoch

    def end_epoch(self):
        "Write the epoch's row, if anything was measured in it"
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
        self.epochs.append({name: row.get(name) for name in EPOCH})
        write_csv(self.folder / 'metrics.csv', EPOCH, ([r[name] for name in EPOCH] for r in self.epochs))
        self.file.write()
        self.begin_epoch()

    def state_dict(self):
        "All but the last batch, as plain values"
        return dict(
            stage=self.stage,
            steps=self.steps,
            file=self.file.state(),
            epochs=self.epochs,
            seconds=perf_counter() - self.started,
            sums=[[*key, value, self.counts[key]] for key, value in self.sums.items()],
        )

    def load_state_dict(self, state):
        self.stage, self.steps, self.epochs, self.started = (
            state['stage'],
            state['steps'],
            state['epochs'],
            perf_counter() - state['seconds'],
        )
        self.file.restore(state['file'])
        self.sums.clear(), self.counts.clear()
        for split, name, total, count in state['sums']:
            self.sums[split, name], self.counts[split, name] = total, count


class SmoothLoss(AvgSmoothLoss):
    "fastai's, without waiting for the device in every step."

    def accumulate(self, learn):
        self.count += 1
        loss = learn.loss.detach().mean()
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)


def reads_at_once(device):
    return device.type == 'cpu'


def wide(value, device):
    "On the device, as precise as it can"
    return torch.as_tensor(value, device=device).detach().to(torch.float32 if device.type == 'mps' else torch.float64)


def check(batch, name, value):
    if isfinite(value):
        return
    what = 'a gradient became infinite or not a number' if name == GRADIENT else f'the {name} loss became {value}'
    where = f'step {batch.step}' if batch.split == 'train' else 'on validation images'
    raise Diverged(f'{what} in epoch {batch.epoch}, {where}: a lower --lr is the usual cure')


def csv_row(values):
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerow(values)
    return text.getvalue().encode()


def merged(parts):
    "The components of one loss, of callbacks that each add to it: the last total is the whole, the first hard loss the labels' alone"
    whole = {}
    for own in parts:
        if own:
            whole = own | {name: value for name, value in whole.items() if name != 'total'}
    return whole
