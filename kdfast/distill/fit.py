"""The base class of kdfast's callbacks: events of fits only, isolated predictions during a fit.

fastai calls the same events for `validate`, `get_preds` and `tta`, alone or during a fit. Such a prediction changes the
Learner: the model is in evaluation mode afterwards, the Recorder is empty, the progress of the schedule is 0. While a
FitCallback is on a Learner, a prediction during a fit is isolated: the fit continues as if it had not happened.

Before a fit and before each step, frozen weights lose their gradients: an optimizer also decays and moves those.
"""

from itertools import takewhile

from fastai.basics import Learner, one_param

from kdfast.core.errors import KdfastError
from kdfast.distill.call_stack import calling_learner, in_removed_cbs, innermost_method
from kdfast.distill.parts import parts_of
from kdfast.distill.predictions import OUTER, Isolated, isolate


class FitCallback(Isolated):
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

    @property
    def is_first(self) -> bool:
        "Whether this is the first FitCallback of its Learner, which does what is done once for all"
        return self is next((cb for cb in self.learn.cbs if isinstance(cb, FitCallback)), self)

    def at_rest(self) -> dict:
        "Return the attributes that a fit sets, as they are outside of one."
        return {}

    def __getstate__(self):
        return vars(self) | dict(fitting=False, isolated=False) | self.at_rest()  # a copy is in no fit

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

    def check_labels(self):
        "Raise KdfastError for a training batch without labels: fastai computes no loss and no step for it."
        if self.training and not len(self.yb):
            raise KdfastError(
                'the training data have no labels, without which fastai trains nothing: let them give a label with '
                'each image, any one if no loss uses it (Distill with alpha=1)'
            )

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
        if self.fitting and event_name in ('before_fit', 'before_step') and self.is_first:
            forget_gradients(self.learn.opt)
        if not (self.fitting or self.in_predictions):
            return None
        if not (event_name == 'after_fit' or hasattr(type(self), event_name) or event_name in vars(self)):
            return None  # fastai would look for it everywhere
        result = super().__call__(event_name)
        if event_name == 'after_fit':
            vars(self)['fitting'] = False
        return result


def forget_gradients(
    opt,  # Optimizer of a Learner
):
    "Delete the gradients of frozen weights: an optimizer also updates a weight whose gradient is 0."
    for params in opt.param_lists:
        for p in params:
            if not p.requires_grad and p.grad is not None:
                p.grad = None
