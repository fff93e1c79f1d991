"""Save the state of a Learner during a fit, and restore it."""

import torch
from fastai.basics import L, Learner

from kdfast.models.autocast import DEVICES
from kdfast.models.inference import is_training
from kdfast.models.random_states import GENERATORS, copy_of_generator, random_states, set_random_states
from kdfast.models.undone import CONTAINERS

OVERWRITTEN = (  # attributes of a Learner that a prediction sets, except `final_record`, the result of `validate`
    'epoch',
    'n_epoch',
    'train_iter',
    'pct_train',
    'smooth_loss',
    'xb',
    'yb',
    'pred',
    'loss',
    'loss_grad',
    'dl',
    'iter',
    'n_iter',
    'training',
    'scaler',
)


class LearnerState:
    """The state of a Learner at one moment, without weights.

    Contains what a prediction changes in Learner, model, Recorder, callbacks, loaders, autocast and random generators.
    """

    def __init__(
        self,
        learn: Learner,  # During a fit
        callbacks: list,  # Callbacks whose attributes are saved
    ):
        self.learn = learn
        recorder = getattr(learn, 'recorder', None)
        metrics = [*learn.metrics, recorder.loss, recorder.smooth_loss] if recorder else [*learn.metrics]
        # The context manager of MixedPrecision
        autocasts = [cb.autocast for cb in learn.cbs if isinstance(getattr(cb, 'autocast', None), torch.autocast)]
        objects = [*callbacks, *([recorder] if recorder else []), *metrics, *autocasts, *learn.dls.loaders]
        self.objects = [(o, attributes_now(o)) for o in objects]
        self.memories = [(m, memory_of(m)) for m in learn.model.modules() if hasattr(m, 'reset')]
        self.attributes = {name: vars(learn)[name] for name in OVERWRITTEN if name in vars(learn)}
        self.cbs = list(learn.cbs)
        self.modes = {m: is_training(m) for m in learn.model.modules()}
        self.autocast = {device: torch.is_autocast_enabled(device) for device in DEVICES}
        self.random = random_states()

    def restore(self):
        "Set everything to the saved state."
        learn = self.learn
        for name in OVERWRITTEN:
            vars(learn).pop(name, None)
        vars(learn).update(self.attributes)
        learn.cbs[:] = self.cbs
        for o, attributes in self.objects:
            vars(o).clear()
            vars(o).update(attributes)
        for module, memory in self.memories:
            vars(module).update(memory)
        for module, training in self.modes.items():
            if is_training(module) != training:
                module.training = training
        for device, enabled in self.autocast.items():
            torch.set_autocast_enabled(device, enabled)
        set_random_states(self.random)


def attributes_now(
    o,  # Any object with a __dict__
) -> dict:
    "Return the attributes of an object; containers and random generators are copied."
    return {name: copy_if_mutable(value) for name, value in vars(o).items()}


def copy_if_mutable(
    value,  # Any value
):
    "Copy containers (shallow) and random generators; return any other value itself."
    if isinstance(value, (*CONTAINERS, L)):
        return value.copy()
    return copy_of_generator(value) if isinstance(value, GENERATORS) else value  # of a loader that shuffles


def memory_of(
    module,  # A recurrent network
) -> dict:
    "Return the state that a recurrent network carries between batches: its public attributes."
    return {name: value for name, value in attributes_now(module).items() if not name.startswith('_')}
