"A Learner, a teacher and a trained loss for tests of Match."

from functools import partial

import torch
from fastai.vision.all import (
    SGD,
    Callback,
    CrossEntropyLossFlat,
    Learner,
    ProgressCallback,
    noop,
)
from torch import nn

from kdfast.data.dataloaders import loaders
from kdfast.distill.losses.features import hint_loss
from kdfast.models.study_networks import matched, wide


def learner(data, net=None):
    torch.manual_seed(0)
    learn = Learner(loaders(data), net or matched(3), CrossEntropyLossFlat(), opt_func=partial(SGD, mom=0.9))
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def teacher():
    torch.manual_seed(1)
    return wide(3).eval()


def copy(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


def hooks(net):
    return sum(len(m._forward_hooks) for m in net.modules())


class Regressed(nn.Module):
    "A loss that is trained: FitNets' hint, joint"

    def __init__(self):
        super().__init__()
        self.matrix = nn.Conv2d(40, 84, 1)

    def forward(self, guided, hint):
        return hint_loss(self.matrix(guided), hint)


class At(Callback):
    "Calls `look` with the Learner before each step"

    order = 50

    def __init__(self, look):
        self.look = look

    def before_step(self):
        self.look(self.learn)
