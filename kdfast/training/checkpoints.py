"""Exact resumption: an interrupted run continues from its last checkpoint and ends with the same bits."""

import hashlib
from collections.abc import Callable
from time import perf_counter

from kdfast.core import distributed, signals
from kdfast.core.atomic import write
from kdfast.core.errors import KdfastError
from kdfast.core.notes import say
from kdfast.models.random_states import random_states, set_random_states
from kdfast.runs.run_dir import RunDir
from kdfast.training.checkpoint_files import DURING, END, Place, content_of, model_digest, problem_of, read_content
from kdfast.training.learner import repeatable_order, without_watchers
from kdfast.training.restore import StateRestorer
from kdfast.training.restore_values import NOTHING, devices_moved
from kdfast.training.save_values import UnsupportedState
from kdfast.training.series import Series
from kdfast.training.snapshot import StateSaver, check_known

EVERY = 60  # seconds between checkpoints within an epoch; there is one at the start of every epoch
KEPT = 2  # checkpoints kept of a running fit: the older one is used if the last one is damaged


class Checkpoints:
    """Save and restore the checkpoints of a run's fits.

    A checkpoint holds everything that changes the rest of the training: the state of Learner, model, loss, optimizer
    and callbacks (kdfast.training.snapshot), all random generators, and the lengths of the files that are appended
    to. It is saved between two steps, or after the last epoch. The file name contains the SHA-256 of the file; a file
    that does not match, or has another format, is ignored.

    If the state of an object cannot be saved, a note is printed before the first step, and a run that is interrupted
    during that fit repeats the fit from its beginning.
    """

    def __init__(
        self,
        folder: RunDir,  # The run directory
        say: Callable,  # Prints and saves a note
    ):
        self.folder = folder
        self.path = folder / 'resume'
        self.say = say
        self.fit = 0  # number of the fit in the run, from 1
        self.saved = perf_counter()  # time of the last checkpoint

    # During a fit

    def begin(
        self,
        learn,  # RunLearner, after its before_fit
    ) -> Place | None:
        "Begin a fit; return the checkpoint to resume from, if there is one."
        self.fit += 1
        self.callbacks = without_watchers(learn)
        self.supported = True  # whether the state of all objects can be saved
        self.fixed = {}  # objects that a checkpoint cannot create, by the moment it is saved: fit, train
        self.series = Series(self.path / f'{self.fit:02}.series')
        self.pending = self.newest(END) or self.newest()
        self.cut_steps(learn, self.fit)
        self.check_supported(learn, 'fit')
        return self.pending

    def cut_steps(
        self,
        learn,  # At the start of a fit
        first,  # Number of a fit
    ):
        "Delete later rows of an earlier start, unless fits from number `first` on have checkpoints."
        fits = [file.name.partition('-')[0] for file in self.path.glob('*-*.safetensors')]
        if not any(fit.isdigit() and int(fit) >= first for fit in fits):
            learn.metrics_log.file.truncate()

    def between_steps(
        self,
        learn,  # RunLearner
        step: int,  # Steps of the epoch that are done
        last: bool = False,  # Whether the epoch is done
    ):
        "Resume if a checkpoint is pending, else save one if it is time; exit here if a signal was received."
        if last:
            learn.metrics_log.look()  # in all processes
        if 'train' not in self.fixed:
            self.check_supported(learn, 'train')
        if self.pending:
            say(f'{self.folder} resumes at epoch {learn.epoch + 1}, step {step + 1}')
            self.restore(learn)
        elif distributed.size > 1 and learn.metrics_log.unread:
            return  # wait until all processes have read their metrics
        elif step == 0 or (last or repeatable_order(learn.dl)) and self.is_time():
            self.save(learn, f'{learn.epoch:04}-{step:06}')
        signals.raise_if_received()

    def is_time(self):
        "Return whether a checkpoint is due: after a signal, or EVERY seconds after the last one."
        return signals.received or perf_counter() - self.saved > EVERY

    def end(
        self,
        learn,  # RunLearner
        cancelled: bool,  # Whether a callback cancelled the fit
    ):
        "End a fit, after its last epoch or a cancellation."
        learn.metrics_log.look()
        self.save(learn, END, cancelled)
        signals.raise_if_received()

    # Saving

    def roots(
        self,
        learn,  # During a fit
    ):
        "Return the objects that refer to everything that training changes."
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

    def check_supported(
        self,
        learn,  # During a fit
        moment,  # 'fit' at its start, 'train' at the start of an epoch
    ):
        "Record which objects a checkpoint cannot create; disable checkpoints if a state cannot be saved."
        if distributed.rank:
            return
        saver = StateSaver()
        try:
            saver(self.roots(learn))
        except UnsupportedState as e:
            self.disable_from_start(learn, e)
        else:
            self.fixed[moment] = saver.fixed

    def disable(
        self,
        problem,  # UnsupportedState
        resumes,  # Where an interrupted run resumes, for the note
    ):
        "Save no more checkpoints of this fit; return whether that is new."
        if not self.supported:
            return False
        self.supported = False
        self.say(f'{problem}, whose state cannot be saved: if this run is interrupted, it resumes {resumes}')
        return True

    def disable_from_start(
        self,
        learn,  # During a fit
        problem,  # UnsupportedState
    ):
        "Disable checkpoints, and mark the fit. Raises KdfastError if its first weights have changed."
        if not self.disable(problem, f'from the beginning of fit {self.fit}'):
            return
        self.path.mkdir(exist_ok=True)
        name = f'{self.fit:02}.begun-{model_digest(learn.model)}'
        marks = list(self.path.glob(f'{self.fit:02}.begun-*'))
        if marks and marks[0].name != name:
            raise KdfastError(
                f'{self.folder} was interrupted in fit {self.fit}, which now begins with other weights: '
                'delete the run directory to start over'
            )
        if marks:
            say(f'{self.folder} repeats fit {self.fit} from its beginning')
        write(self.path / name, b'')

    def save(
        self,
        learn,  # During a fit
        where,  # Place in the fit
        cancelled=False,  # Whether the fit was cancelled
    ):
        "Save a checkpoint named `where`, and delete those that are no longer needed."
        if distributed.rank or not self.supported:
            return  # the first process saves the state that all of them have
        learn.metrics_log.look()
        self.path.mkdir(exist_ok=True)
        saver = StateSaver(self.series)
        try:
            state = saver(dict(cancelled=cancelled, random=random_states()) | self.roots(learn))
            check_known(saver.fixed, self.fixed['fit' if where == END else 'train'])
        except UnsupportedState as e:
            if where != END:
                self.disable(e, 'from its last checkpoint')
            return
        device = next(learn.model.parameters()).device
        about = dict(state=state, series=self.series.state(), device=str(device))
        self.store(where, content_of(about, saver.tensors))
        self.saved = perf_counter()
        previous = [place for place in self.places() if place.has_format]
        for place in previous[KEPT if where != END else 0 :]:
            place.file.unlink()

    def store(
        self,
        where,  # Place in the fit
        content,  # Of the file, bytes
    ):
        "Write a checkpoint file."
        write(self.path / f'{self.fit:02}-{where}-{hashlib.sha256(content).hexdigest()}.safetensors', content)

    # Resuming

    def restore(
        self,
        learn,  # RunLearner
    ) -> bool:  # Whether the fit was cancelled
        "Restore the state of the pending checkpoint."
        place, self.pending = self.pending, None
        about, tensors = read_content(place.file)
        self.series.restore(about['series'])
        moved = devices_moved(about.get('device'), next(learn.model.parameters()).device)
        current = dict(cancelled=NOTHING, random=NOTHING) | self.roots(learn)
        found = StateRestorer(tensors, self.series, moved)(about['state'], current)
        learn.remove_cbs([cb for cb in without_watchers(learn) if cb not in found['cbs']])
        learn.cbs[:] = [*found['cbs'], *learn.watchers]
        set_random_states(found['random'], moved)
        self.cut_steps(learn, self.fit + 1)
        return found['cancelled']

    def newest(
        self,
        where: str = DURING,  # Pattern of epoch and step; or END
    ) -> Place | None:
        "Return the last intact checkpoint of this fit, or None; print why others are ignored."
        for place in self.places(where):
            problem = problem_of(place.file)
            if not problem:
                return place
            say(f'{place.file} {problem}; it is ignored')
        return None

    def places(
        self,
        where: str = DURING,  # Pattern of epoch and step; or END
    ) -> list[Place]:
        "Return the checkpoints of this fit, last one first."
        files = [file for file in self.path.glob(f'{self.fit:02}-{where}-*.safetensors')]
        places = [Place(file, *map(int, file.stem.split('-')[1:-1])) if where != END else Place(file) for file in files]
        return sorted(places, key=lambda place: (place.epoch or 0, place.step), reverse=True)
