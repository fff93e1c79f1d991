"What a network holds, found once: to see in every step, for little, whether it still holds the same."

from operator import is_

from torch import nn

from kdfast.models.inference import tensors


class Held:
    "The modules, weights and buffers that a network holds now; `tensors` are the latter two."

    def __init__(
        self,
        network: nn.Module,  # Any network
    ):
        self.modules, self.tensors = list(network.modules()), tensors(network)
        self.parts = [
            (held, list(held), list(held.values()))
            for m in self.modules
            for held in (m._parameters, m._buffers, m._modules)
        ]

    @property
    def same(self) -> bool:
        "Whether they still are these objects, in the same places; what they hold may have changed."
        return all(
            list(held) == names and all(map(is_, held.values(), values))
            for held, names, values in self.parts
            if held or names
        )
