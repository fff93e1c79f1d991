"""Find the running method of a Learner in the call stack; a flag would be wrong after an exception."""

import sys
from collections.abc import Iterator
from types import FrameType

from fastai.basics import Callback, Learner

METHODS = 'fit', 'validate', 'get_preds', 'tta'  # of Learner, or overridden by a subclass
CALL_ONE = Learner._call_one.__code__
REMOVED_CBS = Learner.removed_cbs.__wrapped__.__code__


def running_methods(
    learn: Learner,  # Any Learner
) -> Iterator[str]:  # fit, validate, get_preds or tta; innermost first
    "Yield the names of the methods of this Learner that are running."
    frame = sys._getframe(1)
    while frame:
        if frame.f_code.co_name in METHODS and is_method_of(learn, frame):
            yield frame.f_code.co_name
        frame = frame.f_back


def is_method_of(
    learn: Learner,  # Any Learner
    frame: FrameType,  # Of a running function
) -> bool:
    "Return whether the first argument of the function is the Learner."
    code = frame.f_code
    return code.co_argcount > 0 and frame.f_locals.get(code.co_varnames[0]) is learn


def learners_in_fit() -> Iterator[Learner]:  # Innermost first
    "Yield the Learners whose `fit` is running."
    frame = sys._getframe(1)
    while frame:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_name == 'fit' and code.co_argcount else None
        if isinstance(first, Learner):
            yield first
        frame = frame.f_back


def innermost_method(
    learn: Learner,  # Any Learner
) -> str | None:
    "Return the innermost running method of this Learner, or None."
    return next(running_methods(learn), None)


def calling_learner(
    cb: Callback,  # Whose `__call__` is running
) -> Learner | None:  # None for a call by anything else
    "Return the Learner that is calling an event of a callback."
    frame = sys._getframe(1)
    while frame and frame.f_code is not CALL_ONE:
        frame = frame.f_back
    return frame.f_locals['self'] if frame and frame.f_locals['cb'] is cb else None


def event_of_fit(
    learn: Learner,  # During a fit
) -> tuple[str | None, Callback | None]:
    "Return the event and the callback that the fit is calling; (None, None) outside of events."
    frame, found = sys._getframe(1), (None, None)
    while frame and not (frame.f_code.co_name == 'fit' and is_method_of(learn, frame)):
        if frame.f_code is CALL_ONE and frame.f_locals['self'] is learn:
            found = frame.f_locals['event_name'], frame.f_locals['cb']
        frame = frame.f_back
    return found


def in_removed_cbs() -> bool:
    """Return whether `Learner.removed_cbs` is removing or restoring callbacks.

    Callbacks that it removes come back afterwards; FetchPredsCallback uses it during a fit.
    """
    frame = sys._getframe(1)
    while frame and frame.f_code is not REMOVED_CBS:
        frame = frame.f_back
    return frame is not None
