"""What a recording depends on: it is used while all of that is unchanged."""

import torch
from torch import Tensor, nn

from kdfast.models.float32_precision import float32_precisions
from kdfast.models.held import Held


class State:
    "Everything that a call depends on, except the values of tensors. It keeps its objects alive."

    def __init__(
        self,
        network: nn.Module,  # Without `problem`
        x: Tensor,  # What it is called with
    ):
        self.network, self.conditions, self.held = network, conditions(x), Held(network)
        self.modules = [(m, type(m), type(m).forward, vars(m), module_attributes(m)) for m in self.held.modules]
        self.weights = [(t, memory_layout(t)) for t in self.held.tensors]

    def holds(
        self,
        network: nn.Module,  # The network that is called
        x: Tensor,  # Its input
    ) -> bool:
        "Return whether another call depends on the same."
        if network is not self.network or conditions(x) != self.conditions:
            return False
        try:
            return (
                all(
                    type(m) is kind and kind.forward is forward and own == was
                    for m, kind, forward, own, was in self.modules
                )
                and self.held.same
                and all(memory_layout(t) == was for t, was in self.weights)
            )
        except Exception:
            return False  # values that cannot be compared


def conditions(
    x: Tensor,  # Input of a network
):
    "Return all facts about an input but its values, and the settings that affect computations."
    kind = x.device.type
    return (
        type(x),
        x.shape,
        x.stride(),
        x.dtype,
        x.device,
        torch.is_grad_enabled(),
        torch.is_autocast_enabled(kind),
        torch.get_autocast_dtype(kind),
        torch.are_deterministic_algorithms_enabled(),
        float32_precisions(),
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )


def module_attributes(
    m: nn.Module,  # Any module
):
    """Return modes, numbers and hooks of a module as they are now.

    `Held` compares parameters, buffers and modules, because tensors have no plain ==.
    """
    return {
        name: dict(value) if isinstance(value, dict) and name not in ('_parameters', '_buffers', '_modules') else value
        for name, value in vars(m).items()
    }


def memory_layout(
    t: Tensor,  # Any tensor
):
    "Return address and layout of a tensor."
    return t.data_ptr(), t.shape, t.stride(), t.requires_grad
