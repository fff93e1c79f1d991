"""Copies of teachers: without autograd history, and of recurrent networks only."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdfast.core.errors import KdfastError
from kdfast.models.random_states import random_states_kept


def recurrent_copy(
    network: nn.Module,  # Any network; stays unchanged
) -> nn.Module | None:
    """Return a reset copy of a network that carries state between batches; None for any other.

    As in fastai, such a network has `reset`. Others have one, too, such as one that initializes their weights anew:
    it is tried on the copy, and must need no argument and leave parameters and buffers as they are.
    """
    if not callable(getattr(network, 'reset', None)):
        return None
    try:
        copy = detached_copy(network)
        before = bits(copy)
        with random_states_kept():
            copy.reset()
        after = bits(copy)
        same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in after)
    except Exception:  # any error of a user's network
        return None
    return copy if same else None


def bits(
    network: nn.Module,  # Any network
) -> dict[str, Tensor]:
    "Return the bytes of parameters and buffers, in which a NaN is equal to itself."
    state = network.state_dict()
    return {name: t.detach().flatten().clone().view(torch.uint8) for name, t in state.items() if isinstance(t, Tensor)}


def detached_copy(
    network: nn.Module,  # The teacher
) -> nn.Module:
    "Return a copy without autograd history. Raises KdfastError if the network cannot be copied."
    try:
        with Detached():
            return deepcopy(network)
    except Exception as e:  # any error of a user's network
        raise KdfastError(
            f'the teacher shares weights with the student, and cannot be copied ({type(e).__name__}: {e}): '
            'use a separate network as the teacher'
        ) from e


class Detached(TorchFunctionMode):
    "Let deepcopy copy tensors with autograd history that a network stores, which it otherwise refuses."

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            args = args[0].detach(), *args[1:]
        return func(*args, **(kwargs or {}))
