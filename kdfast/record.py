"What happened while training: every component of the loss, by step and by epoch, on training and validation images."
from collections import defaultdict
from math import isfinite
from time import perf_counter

from fastai.basics import Callback
from torch.nn.utils import get_total_norm

from kdfast import processes
from kdfast.errors import Diverged
from kdfast.runs import Folder, write_csv

MEASURES = ('total', 'soft', 'hard', 'fit', 'accuracy')
STEP = ('stage', 'epoch', 'step', 'lr', *MEASURES)
EPOCH = ('stage', 'epoch', 'lr', *(f'train_{m}' for m in MEASURES), *(f'valid_{m}' for m in MEASURES), 'seconds')


class Record(Callback):
    """Keeps metrics.csv (a row an epoch) and steps.csv (a row a training step) of a run.

    `total` is what training minimises, `hard` the cross-entropy on labels (on validation images: the plain
    validation loss), `soft` and `fit` what Distill and Hint add. Training rows are measured as the steps are taken,
    on augmented images and with the weights of that moment. `stage` counts the fits of the run, from 1.
    Raises Diverged, before the step is taken, when a loss or a gradient is infinite or not a number.
    """
    order,remove_on_fetch = 70,True # after the schedule (60) has set this step's learning rate

    def __init__(self,
        folder:Folder, # The run's folder
    ):
        self.folder,self.stage,self.steps,self.epochs,self.fitting,self.skipping = folder,0,[],[],False,False
        self.begin_epoch()

    def begin_epoch(self): self.sums,self.counts,self.now,self.started = defaultdict(float),defaultdict(int),None,perf_counter()

    def before_train(self):
        if self.epoch == 0 and not self.skipping: self.stage += 1
        self.fitting = not self.skipping # an epoch that a resumed run has behind it
        self.begin_epoch()

    def after_loss(self):
        if not self.fitting: return
        self.now = self.measure()
        for name,value in self.now.items():
            if not isfinite(value):
                where = f'step {self.iter + 1}' if self.training else 'on validation images'
                raise Diverged(f'the {name} loss became {value} in epoch {self.epoch + 1}, {where}: a lower --lr is the usual cure')
            self.sums[self.split, name] += value * self.size
            self.counts[self.split, name] += self.size

    def before_step(self):
        gradients = [p.grad for p,*_ in self.opt.all_params() if p.grad is not None]
        if self.fitting and not isfinite(get_total_norm(gradients)):
            raise Diverged(f'a gradient became infinite or not a number in epoch {self.epoch + 1}, step {self.iter + 1}: a lower --lr is the usual cure')

    def measure(self):
        "The last batch's losses, and its accuracy where it has labels; of all processes that share it"
        parts = merged(getattr(cb, 'parts', None) for cb in self.learn.cbs.sorted('order')) or dict.fromkeys(('total', 'hard'), self.loss.detach())
        now = {name: float(value) for name,value in parts.items()}
        if 'hard' in parts: now['accuracy'] = int((self.pred.argmax(-1) == self.y).sum()) / self.size
        return dict(zip(now, processes.mean(list(now.values()))))

    @property
    def split(self): return 'train' if self.training else 'valid'

    @property
    def size(self): return len(self.xb[0])

    def after_batch(self):
        if not (self.fitting and self.training) or self.now is None: return # a batch that a resumed run skips has no losses
        self.steps.append((self.stage, self.epoch + 1, len(self.steps) + 1, self.lr_now, *(self.now.get(m) for m in MEASURES)))
        self.now = None

    def state(self):
        "Everything but the last batch, as plain values"
        return dict(stage=self.stage, steps=self.steps, epochs=self.epochs, seconds=perf_counter() - self.started,
                    sums=[[*key, value, self.counts[key]] for key,value in self.sums.items()])

    def restore(self, state):
        self.stage,self.steps,self.epochs,self.started = state['stage'],state['steps'],state['epochs'],perf_counter() - state['seconds']
        for split,name,total,count in state['sums']: self.sums[split, name],self.counts[split, name] = total,count

    @property
    def lr_now(self): return float(self.opt.hypers[-1]['lr'])

    def after_epoch(self):
        if not self.fitting: return
        means = {f'{split}_{name}': total/self.counts[split, name] for (split,name),total in self.sums.items()}
        row = dict(stage=self.stage, epoch=self.epoch + 1, lr=self.lr_now, **means, seconds=round(perf_counter() - self.started, 2))
        self.epochs.append({name: row.get(name) for name in EPOCH})
        write_csv(self.folder/'metrics.csv', EPOCH, ([r[name] for name in EPOCH] for r in self.epochs))
        write_csv(self.folder/'steps.csv', STEP, self.steps)
        self.fitting = False


def merged(parts):
    "The components of one loss, of callbacks that each add to it: the last total is the whole, the first hard loss the labels' alone"
    whole = {}
    for own in parts:
        if own: whole = own | {name: value for name,value in whole.items() if name != 'total'}
    return whole
