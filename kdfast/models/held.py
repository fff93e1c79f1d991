"What a network holds, found once: to see in every step, for little, whether it still holds the same."

from dataclasses import is_dataclass
from operator import is_
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from kdfast.models.inference import is_script, tensors, versions

OF_TORCH = set(vars(nn.Module()))  # attributes of any module
STATE = {'_parameters', '_buffers', '_modules'}
CONTAINERS = nn.Module, dict, list, tuple, set, SimpleNamespace  # and instances of dataclasses


class Watch:
    "What the outputs of a network depend on now; `tensors` are weights, buffers and those in attributes."

    def __init__(
        self,
        network: nn.Module,  # Any network
        attributes: bool = True,  # Whether attributes count; the state of a recurrent network may be one
    ):
        self.held, self.attributes = Held(network), Attributes(network) if attributes else None
        self.sample = Sample(self.held.tensors)
        self.tensors = [*self.held.tensors, *(self.attributes.tensors if self.attributes else ())]
        self.versions = versions(self.tensors)

    @property
    def same(self) -> bool:
        "Whether the network is what it was, and nothing was written to it."
        return (
            self.held.same
            and versions(self.tensors) == self.versions
            and (self.attributes is None or self.attributes.same)
            and self.sample.same
        )


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
            if not is_script(m)  # which lists none, and holds the same
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


class Attributes:
    """All other attributes of a network's modules now, but for modes.

    What the containers among them hold belongs to them. `tensors` are those that are neither weights nor buffers.
    """

    def __init__(
        self,
        network: nn.Module,  # Any network
    ):
        self.parts, self.tensors = [], []
        self.seen = {id(m) for m in network.modules()}
        for m in network.modules():
            self.add(m, OF_TORCH)

    def add(
        self,
        owner: object,  # A module or a container
        left_out: set[str] = OF_TORCH - STATE,  # Attributes of a module that are not searched
    ):
        "Note what an object holds, and what containers and modules in it hold."
        values = contents(owner)
        if not isinstance(owner, tuple):  # which holds the same forever
            self.parts.append((owner, values))
        if isinstance(owner, nn.Module):
            values = [value for name, value in vars(owner).items() if name not in left_out]
        for value in values:
            if isinstance(value, Tensor):
                self.tensors.append(value)
            elif is_container(value) and id(value) not in self.seen:
                self.seen.add(id(value))
                self.add(value)

    @property
    def same(self) -> bool:
        "Whether they still are these objects; what was written to tensors is not seen."
        return all(len(now := contents(owner)) == len(was) and all(map(is_, now, was)) for owner, was in self.parts)


def is_container(
    value: object,  # Any value
) -> bool:
    "Return whether what a value holds is compared."
    return isinstance(value, CONTAINERS) or is_dataclass(type(value)) and hasattr(value, '__dict__')


def contents(
    owner: object,  # A module or a container
) -> list:
    "Return names and values of what an object holds now."
    if isinstance(owner, nn.Module):
        attributes = dict(vars(owner))
        attributes.pop('training', None)
        return [*attributes, *attributes.values(), *owner._forward_hooks.values(), *owner._forward_pre_hooks.values()]
    if isinstance(owner, dict):
        return [*owner, *owner.values()]
    if isinstance(owner, list | tuple | set):
        return list(owner)
    return [*vars(owner), *vars(owner).values()]


class Sample:
    """The addresses of tensors and up to three values of each: they also tell of writes through `.data`.

    Empty unless all tensors are in the memory of the CPU: to read others takes the time of a step.
    """

    def __init__(
        self,
        tensors: list[Tensor],  # Of a network
    ):
        on_cpu = all(t.device.type == 'cpu' for t in tensors)
        self.tensors = [t for t in tensors if on_cpu and t.layout is torch.strided and t.numel()]
        self.views = {
            dtype: [ends(t) for t in self.tensors if t.dtype is dtype] for dtype in {t.dtype for t in self.tensors}
        }
        self.was = self.read()

    def read(self) -> tuple[list[int], list[Tensor]]:
        "Return the addresses and the values now."
        return [t.data_ptr() for t in self.tensors], [torch.cat(views) for views in self.views.values()]

    @property
    def same(self) -> bool:
        "Whether addresses and values are as they were."
        (places, values), (places_before, before) = self.read(), self.was
        return places == places_before and all(map(torch.equal, values, before))


def ends(
    tensor: Tensor,  # Dense, with values
) -> Tensor:
    "Return the first, the middle and the last value in a tensor's memory, as a view."
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride()))
    return tensor.detach().as_strided((min(3, last + 1),), (max(1, last // 2),), tensor.storage_offset())
