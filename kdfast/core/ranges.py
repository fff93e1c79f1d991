"The numbers that functions take: a default, and checks that they are finite and of a sane size. Imports no torch."

from numbers import Real
from typing import Any

SMALLEST_T, LARGEST_T = 1e-6, 1e6  # beyond, even float64 cannot tell softened probabilities from 0, 1 or equal ones
MARGIN_POINTS = 0.8  # default of the smallest difference that matters, in percentage points
LARGEST_WEIGHT = 1e30  # float32 has room for losses that it multiplies


def check_number(
    what: str,  # Name of the number, for the error
    value: Any,  # Number, or a tensor of one number
    low: float,  # Smallest number that is allowed
    high: float,  # Largest number that is allowed
):
    "Raise ValueError for what is no number, and for a number out of range."
    number: Any = value.item() if getattr(value, 'numel', int)() == 1 else value
    is_number = isinstance(number, Real) and not isinstance(number, bool)
    if not (is_number and low <= number <= high):
        raise ValueError(f'{what} must be a number from {low:g} to {high:g}, found {value!r}')


def check_loss_numbers(
    T: object = 1.0,  # Temperature
    **weights: object,  # Weights of the parts of the loss, by name
):
    "Raise ValueError for arguments of a loss that are out of range; a tensor may be one that is learned."
    for what, value, low, high in (
        ('the temperature T', T, SMALLEST_T, LARGEST_T),
        *((name, weight, -LARGEST_WEIGHT, LARGEST_WEIGHT) for name, weight in weights.items()),
    ):
        if not hasattr(value, 'numel'):  # to read a tensor would wait for a GPU
            check_number(what, value, low, high)
