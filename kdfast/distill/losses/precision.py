"""Losses are computed in float32, whatever autocast is on."""

from functools import wraps

import torch
from torch import Tensor

EPS = 1e-7  # keeps logarithms and divisions from 0


def in_float32(loss):
    "The same loss outside of autocast, whose matrix products would be in bfloat16; half precision comes in as float32"

    @wraps(loss)
    def computed(*args, **kwargs):
        with (
            torch.autocast('cpu', enabled=False),
            torch.autocast('cuda', enabled=False),
            torch.autocast('mps', enabled=False),
        ):
            return loss(*to_float32(args), **{name: to_float32(x) for name, x in kwargs.items()})

    return computed


def to_float32(x):
    "Tensors of half precision, alone or in a list, as float32; anything else as it is"
    if isinstance(x, list | tuple):
        return [to_float32(o) for o in x]
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x
