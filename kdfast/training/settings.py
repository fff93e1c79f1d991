"""Apply the settings of a training to the Learners and fits of its recipe."""

from collections.abc import Iterable
from functools import partial

import numpy as np
from fastai.basics import L, Learner
from fastai.callback.schedule import LRFinder

from kdfast.core.errors import KdfastError
from kdfast.runs.options import option_flag
from kdfast.training.losses import default_loss
from kdfast.training.optimizers import optimizer_named

WD = 5e-3  # for all optimizers, which multiply it by the learning rate
CHOSEN = 'lr', 'wd'  # settings that hold for every fit of a Learner
CLOSE = 0.01  # relative: a schedule is looked at in hundredths of the fit, which may miss its peak


def learner_arguments(
    settings: dict,  # Of the run
    optimizer: str | None,  # As the recipe names it, if it does
    given: dict,  # Arguments of fastai's Learner that the recipe gives
    several: bool = False,  # Whether images have several labels
) -> dict:  # Arguments of fastai's Learner
    "Return the arguments of a Learner. Raises KdfastError if recipe and settings give the same one."
    own = dict(optimizer=optimizer or given.get('opt_func')) | {name: given.get(name) for name in CHOSEN}
    for name, value in own.items():
        if value is not None and name in settings:
            raise own_value_error(name, value, settings[name])
    opt_func = partial(optimizer_named(optimizer or settings.get('optimizer', 'sgd')), mom=0.9)
    defaults = dict(wd=WD, opt_func=opt_func, **default_loss(several))
    return defaults | given | chosen_in(settings)


def chosen_in(
    settings: dict,  # Of a run
) -> dict:
    "Return learning rate and weight decay, if the user set them."
    return {name: settings[name] for name in CHOSEN if name in settings}


def check_fit(
    learn: Learner,  # About to fit
    chosen: dict,  # From `chosen_in`
    lr: float | slice | Iterable | None,  # As the recipe gives it to the fit: one rate, or those of groups of layers
    wd: float | Iterable | None,  # Weight decay as the recipe gives it to the fit
    cbs,  # Callbacks of the fit, schedules among them
):
    "Raise KdfastError for a fit whose rate or decay is another than the user set."
    if not chosen or any(isinstance(cb, LRFinder) for cb in L(cbs)):
        return
    lr = highest(lr)
    for schedule in (cb.scheds['lr'] for cb in L(cbs) if 'lr' in getattr(cb, 'scheds', ())):
        lr = max(float(np.max(schedule(step / 100))) for step in range(101))
    for name, own in dict(lr=lr, wd=wd).items():
        if own is not None and name in chosen and not np.allclose(own, chosen[name], rtol=CLOSE, atol=0):
            raise own_value_error(name, own, chosen[name])


def highest(
    lr: float | slice | Iterable | None,  # As of `check_fit`
) -> float | None:
    "Return the highest of the rates that fastai makes of a rate; those of a slice lie between its ends."
    if isinstance(lr, slice):
        lr = [rate for rate in (lr.start, lr.stop) if rate is not None]
    return max(lr, default=None) if isinstance(lr, Iterable) else lr


def own_value_error(
    name: str,  # Of a setting
    own: object,  # Value of the recipe
    chosen: object,  # Value that the user set
) -> KdfastError:
    "Return the error for a recipe that fixes what a setting sets."
    flag, value = option_flag(name), getattr(own, '__name__', own)
    return KdfastError(
        f'{flag} {chosen}: the recipe sets {name} itself, to {value}. Make it a parameter of main, remove it from the '
        f'recipe, or omit {flag}'
    )
