"""Compute losses in float32, also under autocast."""

from functools import wraps

import torch
from torch import Tensor

from kdfast.core.errors import KdfastError
from kdfast.models.autocast import without_autocast

__all__ = []

EPS = 1e-7  # keeps logarithms and divisions finite
LARGE_T = 32.0  # T² times the rounding errors of float32 stays below 1e-3 of a loss about as large as the logits


def in_float32(
    loss,  # Function, or method, of tensors and lists of tensors
):  # A function with the same arguments
    """Return `loss` with autocast disabled and half-precision arguments converted to float32.

    Without it, matrix products inside the loss would run in bfloat16 under autocast.
    """

    @wraps(loss)
    def computed(*args, **kwargs):
        with without_autocast():
            return loss(*to_float32(args), **{name: to_float32(x) for name, x in kwargs.items()})

    return computed


def to_float32(
    x,  # Any value
):
    "Convert half-precision tensors, alone or in a list, to float32; return any other value unchanged."
    if isinstance(x, list | tuple):
        return [to_float32(item) for item in x]
    is_half = isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if is_half else x


MASKED = -1e30  # stands for a logit of minus infinity: its probability is 0, also after a division by T


def with_masks(
    student: Tensor,  # Logits
    teacher: Tensor,  # Logits of the same shape
) -> tuple[Tensor, Tensor]:  # Both
    """Return logits in which masked classes, those of minus infinity, add 0 to a divergence.

    Their terms would be 0 · ∞. Minus infinity stays where it is the student's alone: the divergence is infinite.
    """
    teacher = teacher.clamp(min=MASKED)
    return student.masked_fill((student < MASKED) & (teacher == MASKED), MASKED), teacher


def precise(
    logits: Tensor,  # Of a network
    T: float | Tensor,  # Temperature by which they will be divided
) -> Tensor:  # The same shape
    """Return logits in float64 if the temperature is large, otherwise unchanged.

    Softened probabilities are then nearly equal, and T² would turn the rounding errors of float32 into the loss. The
    value of a learned temperature is not read, for which a GPU would have to be waited for.
    """
    is_learned = isinstance(T, Tensor)
    if not is_learned and T <= LARGE_T:
        return logits
    if logits.device.type != 'mps':
        return logits.double()
    if is_learned:
        return logits
    raise KdfastError(f'the temperature T is {T:g}, but devices without float64 (mps) allow {LARGE_T:g} at most')
