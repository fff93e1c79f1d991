"""Find the running method of a Learner in the call stack; a flag would be wrong after an exception."""

import sys
from collections.abc import Iterator

from fastai.basics import Learner

METHODS = 'fit', 'validate', 'get_preds', 'tta'  # of Learner, or overridden by a subclass
REMOVED_CBS = Learner.removed_cbs.__wrapped__.__code__


def running_methods(
    learn: Learner,  # Any Learner
) -> Iterator[str]:  # fit, validate, get_preds or tta; innermost first
    "Yield the names of the methods of this Learner that are running."
    frame = sys._getframe(1)
    while frame:
        code = frame.f_code
        if code.co_name in METHODS and code.co_argcount and frame.f_locals.get(code.co_varnames[0]) is learn:
            yield code.co_name
        frame = frame.f_back


def innermost_method(
    learn: Learner,  # Any Learner
) -> str | None:
    "Return the innermost running method of this Learner, or None."
    return next(running_methods(learn), None)


def in_removed_cbs() -> bool:
    """Return whether `Learner.removed_cbs` is removing or restoring callbacks.

    Callbacks that it removes come back afterwards; FetchPredsCallback uses it during a fit.
    """
    frame = sys._getframe(1)
    while frame and frame.f_code is not REMOVED_CBS:
        frame = frame.f_back
    return frame is not None
