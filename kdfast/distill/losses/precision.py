"""Compute losses in float32, also under autocast."""

from functools import wraps

import torch
from torch import Tensor

__all__ = []

EPS = 1e-7  # keeps logarithms and divisions finite


def in_float32(
    loss,  # Function, or method, of tensors and lists of tensors
):  # A function with the same arguments
    """Return `loss` with autocast disabled and half-precision arguments converted to float32.

    Without it, matrix products inside the loss would run in bfloat16 under autocast.
    """

    @wraps(loss)
    def computed(*args, **kwargs):
        with (
            torch.autocast('cpu', enabled=False),
            torch.autocast('cuda', enabled=False),
            torch.autocast('mps', enabled=False),
        ):
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
