"""The base class of kdfast's callbacks: events of fits only, isolated predictions during a fit.

fastai calls the same events for `validate`, `get_preds` and `tta`, alone or during a fit. Such a prediction changes the
Learner: the model is in evaluation mode afterwards, the Recorder is empty, the progress of the schedule is 0. While a
FitCallback is on a Learner, a prediction during a fit is isolated: the fit continues as if it had not happened.

The methods that do so are those of the Learner's class, which do nothing more for a Learner without a FitCallback:
methods stored on a Learner would act on it when its copies are called.
"""

import inspect
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from itertools import takewhile

import torch
from fastai.basics import Callback, Learner, Recorder, one_param
from fastcore.xtras import ContextManagers

from kdfast.core.errors import KdfastError
from kdfast.distill.call_stack import calling_learner, event_of_fit, in_removed_cbs, innermost_method, running_methods
from kdfast.distill.learner_state import LearnerState
from kdfast.distill.parts import parts_of

OF_BATCHES = 'before_batch', 'after_pred', 'after_loss', 'after_batch'  # events that a prediction calls, too
OUTER = 'before_fit', 'before_epoch', 'after_epoch', 'after_fit'  # events of a prediction outside of its batches


class FitCallback(Callback):
    """Base class of kdfast's callbacks: receives the events of fits, but not those of predictions.

    A subclass with `in_predictions = True` also receives the events of predictions outside of a fit; during a fit it
    receives the events of their batches only, and its attributes are restored afterwards.

    `leave` is called when the callback is removed from the Learner, and when a fit ends with an exception, which
    skips `after_fit`. It is not called when `Learner.removed_cbs` removes the callback temporarily.

    Several Learners may hold a callback, for one fit after the other: `learn` is the one that calls. Raises
    KdfastError for two fits at the same time.
    """

    in_predictions = False
    _learn = None
    fitting = False  # Whether a fit is running
    isolated = False  # Whether a prediction during a fit is running

    @property
    def learn(self):
        "The Learner of this callback, or None"
        return self._learn

    @learn.setter
    def learn(
        self,
        learn,  # The new Learner; None if the callback is removed
    ):
        if self._learn is not None and not in_removed_cbs():
            self.end()
        vars(self)['_learn'] = learn
        if learn is not None:
            isolate(type(learn))

    def __setstate__(self, state):
        super().__setstate__(state)
        if self._learn is not None:  # loaded from a file
            isolate(type(self._learn))

    def end(self):
        "Mark the fit as over, regardless of how it ended."
        vars(self)['fitting'] = False
        self.leave()

    def leave(self):
        "Undo what the callback did to model, optimizer and process."

    def before_pred(self):
        "Use the batch when all callbacks have changed it; only the Learners of runs call this."

    @property
    def device(self):
        "The device of the model; not all DataLoaders have a device"
        return one_param(self.model).device

    @property
    def loss_so_far(self):
        """The loss of the batch, including what callbacks before this one add to it.

        In validation the Learner keeps its own loss, so the total is read from the `parts` of these callbacks.
        """
        ahead = [] if self.training else takewhile(lambda cb: cb is not self, self.learn.cbs.sorted('order'))
        totals = [parts['total'] for parts in map(parts_of, ahead) if 'total' in parts]
        return totals[-1] if totals else self.loss_grad

    def moves_to(
        self,
        caller: Learner,  # Another one than `learn`, which was given this callback later
        event_name: str,  # That it calls
    ) -> bool:
        "Make the caller the Learner of this callback if it receives the event; return whether it does."
        method = innermost_method(caller)
        if method != 'fit' and not self.in_predictions or self not in caller.cbs:
            return False
        if self.fitting or method == 'fit' and event_name != 'before_fit':
            raise KdfastError(
                f'{type(self).__name__} is used by two Learners at the same time: give each of them its own'
            )
        self.learn = caller
        return True

    def __call__(self, event_name):
        caller = calling_learner(self)
        if caller is not None and caller is not self.learn and not self.moves_to(caller, event_name):
            return None
        if self.isolated and (event_name in OUTER or not self.in_predictions):
            return None
        if event_name == 'before_fit':
            vars(self)['fitting'] = innermost_method(self.learn) == 'fit'
        if not (self.fitting or self.in_predictions):
            return None
        if not (event_name == 'after_fit' or hasattr(type(self), event_name) or event_name in vars(self)):
            return None  # fastai would look for it everywhere
        result = super().__call__(event_name)
        if event_name == 'after_fit':
            vars(self)['fitting'] = False
        return result


# Predictions during a fit


def isolate(
    cls: type,  # Of a Learner with a FitCallback, or of what stands in for one
):
    "Let the methods of a class that fit and predict call the functions below."
    for method in (fit, validation_context, tta) if issubclass(cls, Learner) else ():
        if not hasattr(getattr(cls, method.__name__), 'isolated'):
            setattr(cls, method.__name__, isolated(method, inspect.getattr_static(cls, method.__name__)))


def isolated(
    method: Callable,  # One of the functions below
    original,  # What it calls: a method of a class of Learners
) -> Callable:
    "Return a method that calls the function if the Learner has a FitCallback, else the original."

    @wraps(original)
    def call(learn, *args, **kwargs):
        own = original.__get__(learn, type(learn))
        overridden = inspect.getattr_static(type(learn), method.__name__) is not call  # by what calls this one
        if overridden or not any(isinstance(cb, FitCallback) for cb in learn.cbs):
            return own(*args, **kwargs)
        return method(learn, own, *args, **kwargs)

    call.isolated = True
    return call


def fit(
    learn,  # With a FitCallback
    own,  # Its method, bound
    *args,  # Of Learner.fit
    **kwargs,  # Of Learner.fit
):
    "Run `Learner.fit`; afterwards end FitCallbacks that are still fitting, even after an exception."
    try:
        with adopted(learn):
            return own(*args, **kwargs)
    finally:
        for cb in learn.cbs:
            if isinstance(cb, FitCallback) and cb.fitting and cb.learn is learn:
                cb.end()


def validation_context(
    learn,  # With a FitCallback
    own,  # Its method, bound
    *args,  # Of Learner.validation_context
    **kwargs,  # Of Learner.validation_context
):
    "Return the context that fastai enters to predict; during a fit, an isolated one."
    context = own(*args, **kwargs)
    first = unchanged(learn) if 'fit' in running_methods(learn) else adopted(learn)
    return ContextManagers([first, *context.default])


def tta(
    learn,  # With a FitCallback
    own,  # Its method, bound
    *args,  # Of Learner.tta
    **kwargs,  # Of Learner.tta
):
    "Run `Learner.tta`, which calls the events of a fit itself; isolated during a fit."
    with unchanged(learn) if 'fit' in running_methods(learn) else adopted(learn):
        return own(*args, **kwargs)


@contextmanager
def adopted(
    learn: Learner,  # Perhaps a shallow copy, whose callbacks are those of the original
):
    "Let the callbacks act on this Learner in the body of the `with`, and on their own afterwards."
    others = [(cb, cb.learn) for cb in learn.cbs if not isinstance(cb, FitCallback) and cb.learn is not learn]
    for cb, _ in others:
        cb.learn = learn
    try:
        yield
    finally:
        for cb, owner in others:
            if cb.learn is learn:  # not removed
                cb.learn = owner


@contextmanager
def unchanged(
    learn: Learner,  # During a fit
):
    """Isolate the body of the `with`: without autocast, and with the state of the fit restored afterwards.

    The events in OUTER are called on the Recorder, on the callbacks of the prediction itself, and on those whose part
    in the fit has not begun or is over: the others are prepared for batches already.
    """
    callbacks, idle = [cb for cb in learn.cbs if isinstance(cb, FitCallback)], idle_callbacks(learn)
    state = LearnerState(learn, callbacks + idle)
    fitting = [cb for cb in learn.cbs if not isinstance(cb, Recorder) and cb not in idle]
    for cb in callbacks:
        vars(cb)['isolated'] = True
    for device in state.autocast:
        torch.set_autocast_enabled(device, False)

    def call_one(event_name):
        if event_name not in OUTER:
            return type(learn)._call_one(learn, event_name)
        for cb in learn.cbs.sorted('order'):
            if cb not in fitting:
                cb(event_name)

    outside = vars(learn).get('_call_one')  # of a prediction around this one
    vars(learn)['_call_one'] = call_one
    try:
        yield
    finally:
        vars(learn).pop('_call_one')
        if outside:
            vars(learn)['_call_one'] = outside
        state.restore()


def idle_callbacks(
    learn: Learner,  # During a fit
) -> list[Callback]:
    "Return callbacks of batches whose `before_fit` is still to come, or whose `after_fit` is over."
    event, running = event_of_fit(learn)
    if event not in ('before_fit', 'after_fit'):
        return []
    ordered = list(learn.cbs.sorted('order'))
    position = ordered.index(running)
    idle = ordered[position + 1 :] if event == 'before_fit' else ordered[:position]
    return [cb for cb in idle if not isinstance(cb, FitCallback | Recorder) and any(hasattr(cb, e) for e in OF_BATCHES)]
