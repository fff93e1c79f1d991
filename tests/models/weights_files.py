"Weights of a network, written to files in the forms of several programs."

import collections
import enum
from dataclasses import dataclass

import torch

from kdfast.models.build import build_network
from kdfast.models.study_networks import thin


def state():
    torch.manual_seed(1)
    network = thin(3)
    with torch.no_grad():
        for t in network.state_dict().values():
            t.add_(torch.rand(t.shape).to(t.dtype))
    return network.state_dict()


def filled(name, file, n_classes=3):
    said = []
    torch.manual_seed(0)
    return build_network(f'{name}@{file}', n_classes, said.append), '; '.join(filter(None, said))


def saved(file, content, **kwargs):
    torch.save(content, file, **kwargs)
    return file


def prefixed(state, prefix):
    return collections.OrderedDict((prefix + key, value) for key, value in state.items())


class Mode(enum.Enum):
    best = 1


class Hyper(dict):
    pass


@dataclass(slots=True)
class Slots:
    a: int = 1
