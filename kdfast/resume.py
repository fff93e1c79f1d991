"Exact resumption: a run that was killed goes on from its last checkpoint, and ends with the same bits."
import hashlib
import json
import random
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import safetensors.torch
import torch
from fastai.basics import Callback
from fastai.learner import CancelBatchException, CancelFitException, CancelTrainException, CancelValidException
from torch import nn

from kdfast import processes, signals
from kdfast.runs import Folder, write

EVERY = 60  # seconds between checkpoints, at most; and one at the start of every epoch
KEPT = 2    # checkpoints of the fit under way: should the last one be damaged, the one before serves
END = 'end' # in place of epoch and step: what a fit that is over ended with


class Resume(Callback):
    """Keeps checkpoints of a run's fits, and on the run's next start skips what they hold.

    A checkpoint is the network, the optimizer's state and rates, the record so far and every random state, between two steps.
    Fits that are over are not fitted again; the one under way skips to its step, through the same batches, so that
    the schedule stands where it stood. Order and augmentation need nothing: they follow from seed and epoch. A file
    bears its SHA-256 in its name, and one that does not match is passed over.
    """
    order,remove_on_fetch = -5,True # before Hint, Distill and MixUp do anything with a batch that is skipped

    def __init__(self,
        folder:Folder, # The run's folder
    ):
        self.kept_in,self.stage,self.fitting,self.skipped = folder/'resume',0,False,None
        self.last,self.saved = checkpoint(self.kept_in),perf_counter()

    # Going on

    def before_train(self):
        if self.epoch == 0: self.stage += 1
        self.fitting,self.first,self.pending,self.skipped = True,0,None,None
        ended = checkpoint(self.kept_in, self.stage, END)
        if ended:
            self.load(ended)
            self.fitting,self.skipped = False,CancelFitException
        elif self.last and self.last[0] == self.stage:
            _,epoch,step,_ = self.last
            if self.epoch < epoch: self.skipped = CancelTrainException
            else: self.first,self.pending,self.last = step,self.last,None
        self.learn.record.skipping = self.skipped is not None
        signals.training = True

    def before_batch(self):
        if not self.fitting: return
        if not self.training: signals.leave()
        elif self.iter < self.first: raise CancelBatchException()
        else: self.between_steps(self.iter)

    def before_validate(self):
        if self.fitting and not self.skipped: self.between_steps(len(self.dls.train))

    def between_steps(self, step):
        "Go on from here, or keep how all stands if it is time; and here is where a signal may end the run"
        if self.pending:
            print(f'kdfast: {self.kept_in.parent} goes on from epoch {self.epoch + 1}, step {step + 1}', file=sys.stderr)
            self.load(self.pending)
            self.pending = None
        elif step == 0 or signals.asked or perf_counter() - self.saved > EVERY: self.save(f'{self.epoch:04}-{step:06}')
        signals.leave()

    def after_fit(self):
        if not self.fitting: return # prediction has fits too
        self.fitting = signals.training = False
        self.save(END)
        signals.leave()

    # Checkpoints

    def modules(self):
        "What training changes: the model, and what a callback trains beside it"
        return dict(model=self.model) | {cb.name: cb.trained for cb in self.learn.cbs if isinstance(getattr(cb, 'trained', None), nn.Module)}

    def save(self, where):
        if processes.rank: return # the first keeps what all of them have
        tensors = {f'{owner}.{name}': t for owner,module in self.modules().items() for name,t in module.state_dict().items()} | {'random.torch': torch.get_rng_state()}
        numbers = {}
        for i,(_,_,state,_) in enumerate(self.opt.all_params()):
            for name,value in state.items():
                if isinstance(value, torch.Tensor): tensors[f'opt.{i}.{name}'] = value
                else: numbers[f'opt.{i}.{name}'] = value
        kind,keys,*rest = np.random.get_state()
        hypers = [{name: float(value) for name,value in group.items()} for group in self.opt.hypers]
        state = dict(record=self.learn.record.state(), opt=numbers, hypers=hypers, python=random.getstate(), numpy=[kind, keys.tolist(), *rest])
        content = safetensors.torch.save({name: t.detach().clone().contiguous() for name,t in tensors.items()}, {'state': json.dumps(state)})
        self.kept_in.mkdir(exist_ok=True)
        write(self.kept_in/f'{self.stage:02}-{where}-{hashlib.sha256(content).hexdigest()}.safetensors', content)
        self.saved = perf_counter()
        under_way = sorted(self.kept_in.glob(f'{self.stage:02}-[0-9]*'))
        for old in under_way if where == END else under_way[:-KEPT]: old.unlink()

    def load(self, found):
        content = found[-1].read_bytes()
        tensors = safetensors.torch.load(content)
        with safetensors.safe_open(found[-1], 'pt') as f: state = json.loads(f.metadata()['state'])
        for owner,module in self.modules().items(): restore_network(module, under(f'{owner}.', tensors))
        restore_optimizer(self.opt, under('opt.', tensors) | under('opt.', state['opt']))
        restore_rates(self.opt, state['hypers'])
        self.learn.record.restore(state['record'])
        torch.set_rng_state(tensors['random.torch'])
        version,words,gauss = state['python']
        random.setstate((version, tuple(words), gauss))
        np.random.set_state(tuple(state['numpy']))


class Skip(Callback):
    "Leaves out the epochs and fits that Resume has behind it, once every callback has begun them: each will end them, too."
    order,remove_on_fetch = 100,True

    def before_train(self):
        if self.learn.resume.skipped: raise self.learn.resume.skipped()

    def before_validate(self):
        if self.learn.resume.fitting and self.learn.resume.skipped: raise CancelValidException()


def under(prefix, named): return {name.removeprefix(prefix): value for name,value in named.items() if name.startswith(prefix)}


def restore_network(model, tensors): model.load_state_dict(tensors)


def restore_optimizer(opt, named):
    "Each parameter's own: momentum and the like, and what fastai notes about it"
    for i,(p,_,state,_) in enumerate(opt.all_params()):
        state.update({name: value.to(p.device) if isinstance(value, torch.Tensor) else value for name,value in under(f'{i}.', named).items()})


def restore_rates(opt, hypers):
    "What the schedule set for each group of parameters"
    for group,was in zip(opt.hypers, hypers, strict=True): group.update(was)


def checkpoint(
    path:Path, # Where checkpoints are kept
    stage:int|None=None, # Of this fit alone
    where:str='*[0-9]-*[0-9]', # Epoch and step; END: of a fit that is over
) -> tuple|None: # (stage, epoch, step, file), or (stage, file) of a fit that is over
    "The last checkpoint that is as it was written; None where there is none."
    for file in sorted(path.glob(f'{"*" if stage is None else f"{stage:02}"}-{where}-*.safetensors'), reverse=True):
        *place,sha256 = file.stem.split('-')
        if hashlib.sha256(file.read_bytes()).hexdigest() == sha256: return *(int(n) for n in place if n != END),file
        print(f'kdfast: {file} is damaged; the checkpoint before it is taken', file=sys.stderr)
    return None
