"Exact resumption: a run that was killed goes on from its last checkpoint, and ends with the same bits."

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from kdfast.core import distributed, signals
from kdfast.core.append import AppendOnlyFile
from kdfast.core.atomic import write
from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import as_bytes
from kdfast.runs.run_dir import RunDir
from kdfast.training.learner import repeatable_order, without_watchers
from kdfast.training.random_states import random_states, set_random_states
from kdfast.training.restore import NOTHING, Put
from kdfast.training.snapshot import Take, Unkept

FORMAT = '2'  # of checkpoints; those of another are passed over
EVERY = 60  # seconds between checkpoints, at most; and one at the start of every epoch
KEPT = 2  # checkpoints of the fit under way: should the last one be damaged, the one before serves
END = 'end'  # in place of epoch and step: the state in which a fit ended, before its after_fit


@dataclass
class Place:
    "A checkpoint, and where in its fit it was taken."

    file: Path
    epoch: int | None = None  # None where the fit had ended
    step: int = 0


class Checkpoints:
    """The checkpoints of a run's fits.

    A checkpoint holds everything that changes the rest of the training: what the Learner, its model, loss, optimizer and callbacks
    hold (kdfast.training.snapshot), every random generator, and how much of the files that only grow was written. It is taken between two
    steps, or when the last epoch ended. A file bears its SHA-256 in its name; one that does not match, or has another format,
    is passed over.

    Where the state of something cannot be kept, the user is told before the first step, and a run that is interrupted in that
    fit starts it again from its beginning.
    """

    def __init__(
        self,
        folder: RunDir,  # The run's folder
        say: Callable,  # Tells the user
    ):
        self.folder, self.path, self.say, self.fit, self.saved = folder, folder / 'resume', say, 0, perf_counter()

    # The course of a fit

    def begin(self, learn) -> Place | None:
        "A fit begins, its before_fit is over: where it goes on, if it was under way"
        self.fit += 1
        self.callbacks, self.kept, self.places, self.series = (
            without_watchers(learn),
            True,
            {},
            Series(self.path / f'{self.fit:02}.series'),
        )
        self.pending = self.newest(END) or self.newest()
        self.cut_steps(learn, self.fit)
        self.look_at(learn, 'fit')
        return self.pending

    def cut_steps(self, learn, first):
        "Leave no rows that a start before this one wrote beyond where this one is; but for those of fits that are not reached yet"
        fits = [file.name.partition('-')[0] for file in self.path.glob('*-*.safetensors')]
        if not any(fit.isdigit() and int(fit) >= first for fit in fits):
            learn.metrics_log.file.truncate()

    def between_steps(self, learn, step, last=False):
        "Go on from here, or keep how all stands if it is time; and here is where a signal may end the run"
        if last:
            learn.metrics_log.look()  # by all processes
        if 'train' not in self.places:
            self.look_at(learn, 'train')
        if self.pending:
            print(f'kdfast: {self.folder} goes on from epoch {learn.epoch + 1}, step {step + 1}', file=sys.stderr)
            self.put(learn)
        elif distributed.size > 1 and learn.metrics_log.unread:
            return  # only where all of them have looked
        elif (
            step == 0
            or (last or repeatable_order(learn.dl))
            and (signals.received or perf_counter() - self.saved > EVERY)
        ):
            self.save(learn, f'{learn.epoch:04}-{step:06}')
        signals.raise_if_received()

    def end(self, learn, cancelled):
        "The last epoch is over, or a callback has cancelled the fit"
        learn.metrics_log.look()
        self.save(learn, END, cancelled)
        signals.raise_if_received()

    # Taking

    def roots(self, learn):
        "What holds everything that training changes"
        loaders = [
            generator
            for dl in getattr(learn.dls, 'loaders', [])
            for generator in (getattr(dl, 'rng', None), getattr(dl, 'generator', None))
        ]
        return dict(
            model=learn.model,
            opt=learn.opt,
            loss=learn.loss_func,
            callbacks=self.callbacks,
            cbs=without_watchers(learn),
            learner=learn,
            loaders=loaders,
        )

    def look_at(self, learn, place):
        "What there is at the beginning, and cannot be made from a checkpoint; once for each place at which one is taken"
        if distributed.rank:
            return
        take = Take()
        try:
            take(self.roots(learn))
        except Unkept as e:
            self.give_up(learn, e)
        else:
            self.places[place] = take.fixed

    def give_up(self, learn, problem, sooner=True):
        "No checkpoint of this fit any more"
        if not self.kept:
            return
        self.kept = False
        where = f'again from the beginning of fit {self.fit}' if sooner else 'from its last checkpoint'
        self.say(f'{problem}, whose state cannot be kept: if this run is interrupted, it goes on {where}')
        if not sooner:
            return
        self.path.mkdir(exist_ok=True)
        name, marks = f'{self.fit:02}.begun-{model_digest(learn.model)}', list(self.path.glob(f'{self.fit:02}.begun-*'))
        if marks and marks[0].name != name:
            raise KdfastError(
                f'{self.folder} was interrupted in fit {self.fit}, which does not begin with the same weights again: remove it to start over'
            )
        if marks:
            print(f'kdfast: {self.folder} starts fit {self.fit} again from its beginning', file=sys.stderr)
        write(self.path / name, b'')

    def save(self, learn, where, cancelled=False):
        if distributed.rank or not self.kept:
            return  # the first keeps what all of them have
        learn.metrics_log.look()
        self.path.mkdir(exist_ok=True)
        take = Take(self.series)
        try:
            state = take(dict(cancelled=cancelled, random=random_states()) | self.roots(learn))
            self.compare(take.fixed, self.places['fit' if where == END else 'train'])
        except Unkept as e:
            return None if where == END else self.give_up(learn, e, sooner=False)
        about = json.dumps(dict(state=state, series=self.series.state())).encode()
        tensors = {name: t.detach().clone() for name, t in take.tensors.items()} | dict(
            about=torch.frombuffer(bytearray(about), dtype=torch.uint8)
        )
        self.store(where, safetensors.torch.save(tensors, dict(format=FORMAT)))
        self.saved = perf_counter()
        for old in [place for place in self.under_way() if format_of(place.file) == FORMAT][
            KEPT if where != END else 0 :
        ]:
            old.file.unlink()

    def store(self, where, content):
        self.path.mkdir(exist_ok=True)
        write(self.path / f'{self.fit:02}-{where}-{hashlib.sha256(content).hexdigest()}.safetensors', content)

    def compare(self, fixed, before):
        "Raise Unkept where there is an object that was not there at the beginning"
        for where, what in fixed.items():
            if before.get(where) != what:
                raise Unkept(where, f'a {what} since training began')

    # Going on

    def put(self, learn):
        "Give everything the state of the pending checkpoint; whether the fit was cancelled then"
        place, self.pending = self.pending, None
        tensors = safetensors.torch.load(place.file.read_bytes())
        about = json.loads(tensors.pop('about').numpy().tobytes())
        self.series.restore(about['series'])
        found = Put(tensors, self.series)(about['state'], dict(cancelled=NOTHING, random=NOTHING) | self.roots(learn))
        learn.remove_cbs([cb for cb in without_watchers(learn) if cb not in found['cbs']])
        learn.cbs[:] = [*found['cbs'], *learn.watchers]
        set_random_states(found['random'])
        self.cut_steps(learn, self.fit + 1)
        return found['cancelled']

    def newest(self, where='[0-9]*-[0-9]*') -> Place | None:
        "The last checkpoint of this fit that is as it was written; None where there is none."
        for place in self.under_way(where):
            problem = (
                'is damaged'
                if hashlib.sha256(place.file.read_bytes()).hexdigest() != place.file.stem.split('-')[-1]
                else ''
                if format_of(place.file) == FORMAT
                else f'has format {format_of(place.file)}, where this kdfast has {FORMAT}'
            )
            if not problem:
                return place
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

    def __init__(
        self,
        file: Path,
    ):
        self.file, self.known, self.read = AppendOnlyFile(file), {}, {}

    def keep(self, numbers) -> dict | None:  # None for what is no list of numbers
        "What a checkpoint holds of the list; what is new of it is written by the time of `state`"
        n, written, _ = self.known.get(id(numbers), (len(self.known), 0, None))
        new = list(numbers)[written:] if len(numbers) >= written else None
        if new is None or not all(
            isinstance(x, float | int | np.number) or isinstance(x, torch.Tensor) and x.dim() == 0 for x in new
        ):
            return None
        self.known[id(numbers)] = n, len(numbers), numbers  # held, so that no other list gets its id
        records = np.array([(n, float(x)) for x in new], self.RECORD)
        self.file.add(records.tobytes())
        return dict(
            n=n,
            length=len(numbers),
            dtype=str(numbers[0].dtype) if len(numbers) and isinstance(numbers[0], torch.Tensor) else None,
        )

    def state(self):
        return self.file.state()

    def restore(self, state):
        records = np.frombuffer(self.file.restore(state), self.RECORD)
        self.read = {int(n): records['value'][records['list'] == n] for n in np.unique(records['list'])}

    def values(self, kept, numbers):
        "What the list `numbers`, which goes on from here, held"
        values = self.read.get(kept['n'], np.array([]))[: kept['length']].tolist()
        self.known[id(numbers)] = kept['n'], kept['length'], numbers
        return (
            [torch.tensor(x, dtype=getattr(torch, kept['dtype'].removeprefix('torch.'))) for x in values]
            if kept['dtype']
            else values
        )


def format_of(file):
    "None for what is no checkpoint"
    try:
        with safe_open(file, 'pt') as f:
            return (f.metadata() or {}).get('format', '1')
    except SafetensorError:
        return None


def model_digest(model):
    "SHA-256 of a model's weights"
    sha256 = hashlib.sha256()
    for tensor in model.state_dict().values():
        sha256.update(as_bytes(tensor.detach().cpu()).numpy())
    return sha256.hexdigest()
