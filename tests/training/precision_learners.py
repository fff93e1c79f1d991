"Learners in bfloat16 on a CPU."

import torch
from fastai.vision.all import CrossEntropyLossFlat, Learner, ProgressCallback, noop

from kdfast.data.dataloaders import loaders
from kdfast.training.precision import Bfloat16

CPU = 'cpu'


def learner(data, model, loss=None, cbs=()):
    learn = Learner(loaders(data), model, loss or CrossEntropyLossFlat(), cbs=[Bfloat16(), *cbs])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def watched(network, seen):
    "Notes in which precision the network's first convolution computes, and whether the network is training at that"
    convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    convs[0].register_forward_hook(lambda conv, _, out: seen.add((conv.training, out.dtype)))
    return network
