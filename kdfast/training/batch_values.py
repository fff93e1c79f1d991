"What is measured in one batch."

from dataclasses import dataclass
from math import isfinite

from kdfast.core.errors import Diverged

GRADIENT = 'gradient'  # key of the gradient norm in the values of a batch


@dataclass
class Batch:
    "Measurements of one batch."

    split: str  # train or valid
    epoch: int  # From 1
    step: int  # In the epoch, from 1
    size: int  # Images
    values: dict  # Losses, number of correct predictions, gradient norm; on the device until they are read
    lr: float | None = None  # Of a training step


def check(
    batch,  # Of the value
    name,  # Of the loss, or GRADIENT
    value,  # A number
):
    "Raise Diverged if a value is not finite."
    if isfinite(value):
        return
    what = 'a gradient became infinite or NaN' if name == GRADIENT else f'the {name} loss became {value}'
    where = f'step {batch.step}' if batch.split == 'train' else 'on validation images'
    raise Diverged(f'{what} in epoch {batch.epoch}, {where}: try a lower --lr')
