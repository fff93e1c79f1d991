"""What a fit is, for every callback of kdfast: the training of a Learner, from `before_fit` to `after_fit`.

fastai calls the same events for `validate`, `get_preds` and `tta`, alone or in the middle of a fit, and leaves traces behind: the
model in evaluation mode, the Recorder emptied, the progress of the schedule at 0. While a FitCallback is on a Learner, a prediction
in the middle of a fit is isolated: the fit goes on as if it had not been.
"""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import takewhile

import numpy as np
import torch
from fastai.basics import Callback, L, Learner, Recorder, one_param, risinstance
from fastcore.xtras import ContextManagers

OUTER = 'before_fit', 'before_epoch', 'after_epoch', 'after_fit'  # events of a prediction that are none of its batches'


OVERWRITTEN = (
    'epoch',
    'n_epoch',
    'train_iter',
    'pct_train',
    'smooth_loss',  # attributes of a Learner that a prediction sets,
    'xb',
    'yb',
    'pred',
    'loss',
    'loss_grad',
    'dl',
    'iter',
    'n_iter',
    'training',
)  # but for `final_record`, which is what `validate` returns


class FitCallback(Callback):
    """Base of kdfast's callbacks: called in fits, and not in predictions, whether alone or in the middle of a fit.

    A subclass with `in_predictions = True` is called in predictions alone, too; in one in the middle of a fit it gets the events of
    batches only, and what it holds is afterwards as it was before. `leave` is called when it is taken off a Learner, and when a fit
    ends with an exception, which skips `after_fit`; not where the callback is only put aside (`Learner.removed_cbs`).
    """

    in_predictions = False
    _learn, fitting, isolated = (
        None,
        False,
        False,
    )  # `fitting`: in a fit, `isolated`: in a prediction in the middle of it

    @property
    def learn(self):
        return self._learn

    @learn.setter
    def learn(self, learn):
        if self._learn is not None and not put_aside():
            self.end()
            if not any(isinstance(cb, FitCallback) and cb is not self for cb in self._learn.cbs):
                end_isolation(self._learn)
        vars(self)['_learn'] = learn
        if learn is not None:
            isolate(learn)

    def end(self):
        "The fit is over, however it ended."
        vars(self)['fitting'] = False
        self.leave()

    def leave(self):
        "Undo what the callback did to model, optimizer and process."

    @property
    def device(self):
        "Where the fit computes; the DataLoaders of some users do not say"
        return one_param(self.model).device

    @property
    def loss_so_far(self):
        "The batch's loss, and what callbacks before this one add to it: in validation, where the loss stays the task's own, in their `parts`"
        ahead = [] if self.training else takewhile(lambda cb: cb is not self, self.learn.cbs.sorted('order'))
        totals = [parts['total'] for parts in map(parts_of, ahead) if 'total' in parts]
        return totals[-1] if totals else self.loss_grad

    def __call__(self, event_name):
        if self.isolated and (event_name in OUTER or not self.in_predictions):
            return None
        if event_name == 'before_fit':
            vars(self)['fitting'] = caller(self.learn) == 'fit'
        if not (self.fitting or self.in_predictions):
            return None
        if not (event_name == 'after_fit' or hasattr(type(self), event_name) or event_name in vars(self)):
            return None  # fastai would look for it everywhere
        result = super().__call__(event_name)
        if event_name == 'after_fit':
            vars(self)['fitting'] = False
        return result


def parts_of(cb):
    "The components of the loss that a callback holds; fastai would look for them on the Learner, too"
    parts = vars(cb).get('parts')
    return parts if isinstance(parts, dict) else {}


# Where a Learner is, read from the call stack: a flag would be wrong after an exception

METHODS = 'fit', 'validate', 'get_preds', 'tta'  # of Learner, or of a subclass that has its own


PUT_ASIDE = Learner.removed_cbs.__wrapped__.__code__


def callers(
    learn: Learner,
) -> Iterator[str]:  # fit, validate, get_preds or tta; the innermost first
    "Which of the Learner's methods are running."
    frame = sys._getframe(1)
    while frame:
        code = frame.f_code
        if code.co_name in METHODS and code.co_argcount and frame.f_locals.get(code.co_varnames[0]) is learn:
            yield code.co_name
        frame = frame.f_back


def caller(learn):
    return next(callers(learn), None)


def put_aside():
    "Whether `Learner.removed_cbs` is taking callbacks off, to put them back afterwards; FetchPredsCallback does so in a fit"
    frame = sys._getframe(1)
    while frame and frame.f_code is not PUT_ASIDE:
        frame = frame.f_back
    return frame is not None


# Predictions in the middle of a fit


def isolate(learn):
    "From now on; while the methods below stand in for the Learner's own"
    for method in (fit, validation_context, tta):
        vars(learn)[method.__name__] = partial(method, learn)


def end_isolation(learn):
    for method in (fit, validation_context, tta):
        vars(learn).pop(method.__name__, None)


def fit(learn, *args, **kwargs):
    "A fit; whatever ends it, the FitCallbacks that stay on the Learner undo what they did"
    try:
        return type(learn).fit(learn, *args, **kwargs)
    finally:
        for cb in learn.cbs:
            if isinstance(cb, FitCallback) and cb.fitting:
                cb.end()


def validation_context(learn, cbs=None, inner=False):
    "What fastai enters to predict; in the middle of a fit, only the Recorder and what is new get the events of a fit and an epoch"
    context = type(learn).validation_context
    if 'fit' not in callers(learn):
        return context(learn, cbs, inner)
    whole = [] if inner else [outer_events(L(cbs) + learn.cbs.filter(risinstance(Recorder)))]
    return ContextManagers([unchanged(learn), *context(learn, cbs, inner=True).default, *whole])


def tta(learn, *args, **kwargs):
    "Test-time augmentation, which calls the events of a fit itself"
    if 'fit' not in callers(learn):
        return type(learn).tta(learn, *args, **kwargs)
    with unchanged(learn):
        return type(learn).tta(learn, *args, **kwargs)


@contextmanager
def outer_events(cbs):
    "The events of a fit and an epoch, for these callbacks alone"
    for event in OUTER[:2]:
        cbs.map(lambda cb: cb(event))
    try:
        yield
    finally:
        for event in OUTER[2:]:
            cbs.map(lambda cb: cb(event))


@contextmanager
def unchanged(
    learn: Learner,  # In the middle of a fit
):
    "Afterwards Learner, model, Recorder, FitCallbacks, loaders, autocast and random states are as they were."
    ours = [cb for cb in learn.cbs if isinstance(cb, FitCallback)]
    recorder = getattr(learn, 'recorder', None)
    metrics = [*learn.metrics, recorder.loss, recorder.smooth_loss] if recorder else [*learn.metrics]
    scales = [
        cb.autocast for cb in learn.cbs if isinstance(getattr(cb, 'autocast', None), torch.autocast)
    ]  # of MixedPrecision
    states = [state_of(o) for o in (*ours, *([recorder] if recorder else []), *metrics, *scales, *learn.dls.loaders)]
    memories = [memory_of(m) for m in learn.model.modules() if hasattr(m, 'reset')]
    attributes = {name: vars(learn)[name] for name in OVERWRITTEN if name in vars(learn)}
    order, modes, autocasts = list(learn.cbs), {m: m.training for m in learn.model.modules()}, autocast_states()
    randoms = torch.random.get_rng_state(), cuda_states(), np.random.get_state(), random.getstate()
    for cb in ours:
        vars(cb)['isolated'] = True
    for device in autocasts:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        for name in OVERWRITTEN:
            vars(learn).pop(name, None)
        vars(learn).update(attributes)
        learn.cbs[:] = order
        for o, state in states:
            vars(o).clear(), vars(o).update(state)
        for module, memory in memories:
            vars(module).update(memory)
        for m, training in modes.items():
            m.training = training
        for device, on in autocasts.items():
            torch.set_autocast_enabled(device, on)
        torch.random.set_rng_state(randoms[0]), np.random.set_state(randoms[2]), random.setstate(randoms[3])
        if randoms[1]:
            torch.cuda.set_rng_state_all(randoms[1])


def state_of(o):
    "The object, and its attributes as they are now; what it fills (lists, dictionaries) and draws from copied"
    return o, {name: as_now(value) for name, value in vars(o).items()}


def as_now(value):
    if isinstance(value, list | dict | set | L):
        return value.copy()
    if isinstance(value, random.Random | np.random.Generator | np.random.RandomState):
        return deepcopy(value)  # of a loader that shuffles
    return value.clone_state() if isinstance(value, torch.Generator) else value


def memory_of(module):
    "What a recurrent network keeps from batch to batch: attributes of its own that are neither weights nor layers"
    return module, {name: value for name, value in state_of(module)[1].items() if not name.startswith('_')}


def autocast_states():
    return {device: torch.is_autocast_enabled(device) for device in ('cpu', 'cuda')}


def cuda_states():
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
