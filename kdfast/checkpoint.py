"Exact resumption: a run that was killed goes on from its last checkpoint, and ends with the same bits."
import hashlib
import inspect
import json
import random
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import safetensors.torch
import torch
from fastai.basics import Learner, OptimWrapper
from fastai.callback.progress import ProgressCallback
from fastai.data.transforms import Normalize
from fastai.learner import CancelEpochException, CancelFitException
from fastai.vision.core import IntToFloatTensor
from safetensors import SafetensorError, safe_open

from kdfast import processes, signals
from kdfast.appended import Appended
from kdfast.errors import KdfastError
from kdfast.kinds import type_text
from kdfast.loader import ImageBatches, as_bytes
from kdfast.restore import NOTHING, Put
from kdfast.runs import Folder
from kdfast.writing import write
from kdfast.snapshot import Take, Unkept

FORMAT = '2' # of checkpoints; those of another are passed over
EVERY = 60  # seconds between checkpoints, at most; and one at the start of every epoch
KEPT = 2    # checkpoints of the fit under way: should the last one be damaged, the one before serves
END = 'end' # in place of epoch and step: the state in which a fit ended, before its after_fit


@dataclass
class Place:
    "A checkpoint, and where in its fit it was taken."
    file: Path
    epoch: int|None = None # None where the fit had ended
    step: int = 0


class Checkpoints:
    """The checkpoints of a run's fits.

    A checkpoint holds everything that changes the rest of the training: what the Learner, its model, loss, optimizer and callbacks
    hold (kdfast.snapshot), every random generator, and how much of the files that only grow was written. It is taken between two
    steps, or when the last epoch ended. A file bears its SHA-256 in its name; one that does not match, or has another format,
    is passed over.

    Where the state of something cannot be kept, the user is told before the first step, and a run that is interrupted in that
    fit starts it again from its beginning.
    """
    def __init__(self,
        folder:Folder, # The run's folder
        say:Callable, # Tells the user
    ):
        self.folder,self.path,self.say,self.fit,self.saved = folder,folder/'resume',say,0,perf_counter()

    # The course of a fit

    def begin(self, learn) -> Place|None:
        "A fit begins, its before_fit is over: where it goes on, if it was under way"
        self.fit += 1
        self.callbacks,self.kept,self.places,self.series = unwatching(learn),True,{},Series(self.path/f'{self.fit:02}.series')
        self.pending = self.newest(END) or self.newest()
        self.cut_steps(learn, self.fit)
        self.look_at(learn, 'fit')
        return self.pending

    def cut_steps(self, learn, first):
        "Leave no rows that a start before this one wrote beyond where this one is; but for those of fits that are not reached yet"
        fits = [file.name.partition('-')[0] for file in self.path.glob('*-*.safetensors')]
        if not any(fit.isdigit() and int(fit) >= first for fit in fits): learn.metrics_log.file.cut()

    def between_steps(self, learn, step, last=False):
        "Go on from here, or keep how all stands if it is time; and here is where a signal may end the run"
        if last: learn.metrics_log.look() # by all processes
        if 'train' not in self.places: self.look_at(learn, 'train')
        if self.pending:
            print(f'kdfast: {self.folder} goes on from epoch {learn.epoch + 1}, step {step + 1}', file=sys.stderr)
            self.put(learn)
        elif processes.size > 1 and learn.metrics_log.unread: return # only where all of them have looked
        elif step == 0 or (last or repeatable(learn.dl)) and (signals.asked or perf_counter() - self.saved > EVERY): self.save(learn, f'{learn.epoch:04}-{step:06}')
        signals.leave()

    def end(self, learn, cancelled):
        "The last epoch is over, or a callback has cancelled the fit"
        learn.metrics_log.look()
        self.save(learn, END, cancelled)
        signals.leave()

    # Taking

    def roots(self, learn):
        "What holds everything that training changes"
        loaders = [generator for dl in getattr(learn.dls, 'loaders', []) for generator in (getattr(dl, 'rng', None), getattr(dl, 'generator', None))]
        return dict(model=learn.model, opt=learn.opt, loss=learn.loss_func, callbacks=self.callbacks, cbs=unwatching(learn), learner=learn, loaders=loaders)

    def look_at(self, learn, place):
        "What there is at the beginning, and cannot be made from a checkpoint; once for each place at which one is taken"
        if processes.rank: return
        take = Take()
        try: take(self.roots(learn))
        except Unkept as e: self.give_up(learn, e)
        else: self.places[place] = take.fixed

    def give_up(self, learn, problem, sooner=True):
        "No checkpoint of this fit any more"
        if not self.kept: return
        self.kept = False
        where = f'again from the beginning of fit {self.fit}' if sooner else 'from its last checkpoint'
        self.say(f'{problem}, whose state cannot be kept: if this run is interrupted, it goes on {where}')
        if not sooner: return
        self.path.mkdir(exist_ok=True)
        name,marks = f'{self.fit:02}.begun-{digest(learn.model)}',list(self.path.glob(f'{self.fit:02}.begun-*'))
        if marks and marks[0].name != name:
            raise KdfastError(f'{self.folder} was interrupted in fit {self.fit}, which does not begin with the same weights again: remove it to start over')
        if marks: print(f'kdfast: {self.folder} starts fit {self.fit} again from its beginning', file=sys.stderr)
        write(self.path/name, b'')

    def save(self, learn, where, cancelled=False):
        if processes.rank or not self.kept: return # the first keeps what all of them have
        learn.metrics_log.look()
        self.path.mkdir(exist_ok=True)
        take = Take(self.series)
        try:
            state = take(dict(cancelled=cancelled, random=random_states()) | self.roots(learn))
            self.compare(take.fixed, self.places['fit' if where == END else 'train'])
        except Unkept as e: return None if where == END else self.give_up(learn, e, sooner=False)
        about = json.dumps(dict(state=state, series=self.series.state())).encode()
        tensors = {name: t.detach().clone() for name,t in take.tensors.items()} | dict(about=torch.frombuffer(bytearray(about), dtype=torch.uint8))
        self.store(where, safetensors.torch.save(tensors, dict(format=FORMAT)))
        self.saved = perf_counter()
        for old in [place for place in self.under_way() if format_of(place.file) == FORMAT][KEPT if where != END else 0:]: old.file.unlink()

    def store(self, where, content):
        self.path.mkdir(exist_ok=True)
        write(self.path/f'{self.fit:02}-{where}-{hashlib.sha256(content).hexdigest()}.safetensors', content)

    def compare(self, fixed, before):
        "Raise Unkept where there is an object that was not there at the beginning"
        for where,what in fixed.items():
            if before.get(where) != what: raise Unkept(where, f'a {what} since training began')

    # Going on

    def put(self, learn):
        "Give everything the state of the pending checkpoint; whether the fit was cancelled then"
        place,self.pending = self.pending,None
        tensors = safetensors.torch.load(place.file.read_bytes())
        about = json.loads(tensors.pop('about').numpy().tobytes())
        self.series.restore(about['series'])
        found = Put(tensors, self.series)(about['state'], dict(cancelled=NOTHING, random=NOTHING) | self.roots(learn))
        learn.remove_cbs([cb for cb in unwatching(learn) if cb not in found['cbs']])
        learn.cbs[:] = [*found['cbs'], *learn.watchers]
        set_random_states(found['random'])
        self.cut_steps(learn, self.fit + 1)
        return found['cancelled']

    def newest(self, where='[0-9]*-[0-9]*') -> Place|None:
        "The last checkpoint of this fit that is as it was written; None where there is none."
        for place in self.under_way(where):
            problem = ('is damaged' if hashlib.sha256(place.file.read_bytes()).hexdigest() != place.file.stem.split('-')[-1] else
                       '' if format_of(place.file) == FORMAT else f'has format {format_of(place.file)}, where this kdfast has {FORMAT}')
            if not problem: return place
            print(f'kdfast: {place.file} {problem}; it is passed over', file=sys.stderr)
        return None

    def under_way(self, where='[0-9]*-[0-9]*'):
        "Checkpoints of this fit, the last one first"
        files = [file for file in self.path.glob(f'{self.fit:02}-{where}-*.safetensors')]
        places = [Place(file, *map(int, file.stem.split('-')[1:-1])) if where != END else Place(file) for file in files]
        return sorted(places, key=lambda place: (place.epoch or 0, place.step), reverse=True)


class Series:
    "Lists of numbers that grow with every step: in a file of their own, so that checkpoints do not grow with them."
    RECORD = np.dtype([('list', '<u4'), ('value', '<f8')])

    def __init__(self,
        file:Path,
    ):
        self.file,self.known,self.read = Appended(file),{},{}

    def keep(self, numbers) -> dict|None: # None for what is no list of numbers
        "What a checkpoint holds of the list; what is new of it is written by the time of `state`"
        n,written,_ = self.known.get(id(numbers), (len(self.known), 0, None))
        new = list(numbers)[written:] if len(numbers) >= written else None
        if new is None or not all(isinstance(x, float | int | np.number) or isinstance(x, torch.Tensor) and x.dim() == 0 for x in new): return None
        self.known[id(numbers)] = n,len(numbers),numbers # held, so that no other list gets its id
        records = np.array([(n, float(x)) for x in new], self.RECORD)
        self.file.add(records.tobytes())
        return dict(n=n, length=len(numbers), dtype=str(numbers[0].dtype) if len(numbers) and isinstance(numbers[0], torch.Tensor) else None)

    def state(self): return self.file.state()

    def restore(self, state):
        records = np.frombuffer(self.file.restore(state), self.RECORD)
        self.read = {int(n): records['value'][records['list'] == n] for n in np.unique(records['list'])}

    def values(self, kept, numbers):
        "What the list `numbers`, which goes on from here, held"
        values = self.read.get(kept['n'], np.array([]))[:kept['length']].tolist()
        self.known[id(numbers)] = kept['n'],kept['length'],numbers
        return [torch.tensor(x, dtype=getattr(torch, kept['dtype'].removeprefix('torch.'))) for x in values] if kept['dtype'] else values


class RunLearner(Learner):
    "A Learner whose fits go on from their checkpoints; without `checkpoints`, it is a plain one."
    checkpoints,watchers = None,() # callbacks that only look on: another start of the run may have others

    def fit(self, *args, **kwargs):
        for cb in self.cbs:
            if cb.learn is not self: cb.learn = self # one that Learners of a run share follows the one that fits
        signals.training = self.checkpoints is not None
        try: super().fit(*args, **kwargs)
        finally: signals.training = False

    def create_opt(self):
        super().create_opt()
        if isinstance(self.opt, OptimWrapper) and inspect.signature(self.opt.opt.step).parameters.get('closure', inspect.Parameter).default is inspect.Parameter.empty:
            raise KdfastError(f'{type_text(self.opt.opt)} computes the loss several times a step, which fastai has no way to do: choose another optimizer')

    def _do_fit(self):
        if self.checkpoints is None: return super()._do_fit()
        place = self.checkpoints.begin(self)
        if place and place.epoch is None: # it had ended
            if self.checkpoints.put(self): raise CancelFitException()
            return None
        for cb in self.cbs:
            if place and isinstance(cb, ProgressCallback) and hasattr(cb, 'mbar'): cb.mbar.update(0) # its bar can begin nowhere else
        try:
            for self.epoch in range(place.epoch if place else 0, self.n_epoch): self._with_events(self._do_epoch, 'epoch', CancelEpochException)
        except CancelFitException:
            self.checkpoints.end(self, cancelled=True)
            raise
        self.checkpoints.end(self, cancelled=False)

    def all_batches(self):
        "From the checkpoint's step on; batches before it are passed over"
        if self.checkpoints is None or not self.training: return self.watched_batches()
        pending = self.checkpoints.pending
        first,done = pending.step if pending else 0,0
        self.n_iter = len(self.dl)
        if first == 0: self.checkpoints.between_steps(self, 0)
        for i,batch in enumerate(self.dl):
            if i >= first:
                if i: self.checkpoints.between_steps(self, i)
                self.one_batch(i, batch)
            done = i + 1
        self.checkpoints.between_steps(self, done, last=True)

    def watched_batches(self):
        self.n_iter = len(self.dl)
        for i,batch in enumerate(self.dl):
            if self.checkpoints: signals.leave()
            self.one_batch(i, batch)

    def load(self, file, device=None, **kwargs):
        "fastai's, without ever obeying the file"
        return super().load(file, device, **kwargs | dict(weights_only=True))


def unwatching(learn): return [cb for cb in learn.cbs if cb not in learn.watchers]


def repeatable(dl):
    "Whether any of its batches follows from seed and epoch alone, so that a fit can go on in the middle of an epoch"
    return type(dl) is ImageBatches and all(type(transform) in (IntToFloatTensor, Normalize) for transform in dl.after_batch.fs)


def random_states():
    "Of every generator that is not an object of the run's"
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state(), cuda=cuda, mps=mps)


def set_random_states(states):
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    torch.set_rng_state(states['torch'])
    if states['cuda']: torch.cuda.set_rng_state_all(states['cuda'])
    if states['mps'] is not None: torch.mps.set_rng_state(states['mps'])


@contextmanager
def random_states_kept():
    "Random numbers afterwards are those that there would have been without it."
    states = random_states()
    try: yield
    finally: set_random_states(states)


def format_of(file):
    "None for what is no checkpoint"
    try:
        with safe_open(file, 'pt') as f: return (f.metadata() or {}).get('format', '1')
    except SafetensorError: return None


def digest(model):
    "SHA-256 of a model's weights"
    sha256 = hashlib.sha256()
    for tensor in model.state_dict().values(): sha256.update(as_bytes(tensor.detach().cpu()).numpy())
    return sha256.hexdigest()
