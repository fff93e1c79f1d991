"""Predictions during a fit: the fit continues as if they had not happened.

The methods of a Learner that predict are those of its class, which do nothing more for a Learner without a FitCallback:
methods stored on a Learner would act on it when its copies are called.
"""

import inspect
import sys
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import wraps

import torch
from fastai.basics import Callback, DataLoaders, Learner, Recorder
from fastcore.xtras import ContextManagers

from kdfast.distill.call_stack import event_of_fit, learners_in_fit, running_methods
from kdfast.distill.learner_state import LearnerState
from kdfast.models.random_states import random_states_kept

OF_BATCHES = 'before_batch', 'after_pred', 'after_loss', 'after_batch'  # events that a prediction calls, too
OUTER = 'before_fit', 'before_epoch', 'after_epoch', 'after_fit'  # events of a prediction outside of its batches


class Isolated(Callback):
    "Base class of the callbacks on whose Learner predictions are isolated; see FitCallback."

    fitting = False  # Whether a fit is running
    isolated = False  # Whether a prediction during a fit is running


def isolate(
    cls: type,  # Of a Learner with a FitCallback, or of what stands in for one
):
    "Let the methods of a class that fit and predict call the functions below."
    for name, method in METHODS.items() if issubclass(cls, Learner) else ():
        if not hasattr(getattr(cls, name), 'isolated'):
            setattr(cls, name, isolated(name, method, inspect.getattr_static(cls, name)))
    interpret = sys.modules.get('fastai.interpret')  # slow to import, and without it nobody interprets
    for owner, name in ((DataLoaders, 'test_dl'), *([(interpret.Interpretation, 'from_learner')] if interpret else [])):
        if not hasattr(getattr(owner, name), 'isolated'):
            setattr(owner, name, without_draws(inspect.getattr_static(owner, name)))


def without_draws(
    original,  # A method, or a class method, that makes a DataLoader to predict
):
    "Return a method that leaves the random states of a fit with a FitCallback as they are."
    function = getattr(original, '__func__', original)

    @wraps(function)
    def call(*args, **kwargs):
        fitting = any(isinstance(cb, Isolated) for learn in learners_in_fit() for cb in learn.cbs)
        with random_states_kept() if fitting else nullcontext():
            return function(*args, **kwargs)

    call.isolated = True
    return classmethod(call) if isinstance(original, classmethod) else call


def isolated(
    name: str,  # Of the method
    method: Callable,  # One of the functions below
    original,  # What it calls: a method of a class of Learners
) -> Callable:
    "Return a method that calls the function if the Learner has a FitCallback, else the original."

    @wraps(original)
    def call(learn, *args, **kwargs):
        own = original.__get__(learn, type(learn))
        overridden = inspect.getattr_static(type(learn), name) is not call  # by what calls this one
        if overridden or not any(isinstance(cb, Isolated) for cb in learn.cbs):
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
            if isinstance(cb, Isolated) and cb.fitting and cb.learn is learn:
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


def predict(
    learn,  # With a FitCallback
    own,  # Its method, bound
    *args,  # Of the method
    **kwargs,  # Of the method
):
    "Run a method that predicts; during a fit, with the DataLoader that it makes, isolated."
    with unchanged(learn) if 'fit' in running_methods(learn) else adopted(learn):
        return own(*args, **kwargs)


def export(
    learn,  # With a FitCallback
    own,  # Its method, bound
    *args,  # Of Learner.export
    **kwargs,  # Of Learner.export
):
    "Run `Learner.export`; during a fit, the batch that it forgets and the optimizer come back."
    if 'fit' not in running_methods(learn):
        return own(*args, **kwargs)
    state, opt = LearnerState(learn, []), learn.opt
    learn.opt = None  # a loss that is trained has weights in it, which another one has not
    try:
        return own(*args, **kwargs)
    finally:
        learn.opt = opt
        state.restore()


METHODS = dict(fit=fit, validation_context=validation_context, export=export) | dict.fromkeys(
    ('get_preds', 'predict', 'show_results', 'tta'), predict
)


@contextmanager
def adopted(
    learn: Learner,  # Perhaps a shallow copy, whose callbacks are those of the original
):
    "Let the callbacks act on this Learner in the body of the `with`, and on their own afterwards."
    others = [(cb, cb.learn) for cb in learn.cbs if not isinstance(cb, Isolated) and cb.learn is not learn]
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
    callbacks, idle = [cb for cb in learn.cbs if isinstance(cb, Isolated)], idle_callbacks(learn)
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
    return [cb for cb in idle if not isinstance(cb, Isolated | Recorder) and any(hasattr(cb, e) for e in OF_BATCHES)]
