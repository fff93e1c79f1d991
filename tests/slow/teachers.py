"""Use every network of networks.txt as a teacher: `python tests/slow/zoo.py teachers [WORD …]`.

Its batch norms have statistics as after training. In each batch `Distill` must use the outputs of the network in
evaluation mode, and leave the network as it was.
"""

from copy import deepcopy

import torch
from conftest import equal
from fastai.vision.all import Callback, CrossEntropyLossFlat, DataLoaders, Learner, ProgressCallback, noop
from networks import build, networks, randomized
from torch import nn
from trial import run

from kdfast.distill.distill import Distill

CLOSE = 1e-4  # of the largest output, in float32
CLASSES, IMAGES = 10, 4


class Student(nn.Module):
    "Sees nothing but the mean color: what is tried is the teacher"

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.head(x.mean((2, 3)))


class Compare(Callback):
    order = 50

    def __init__(self, network):
        self.network, self.off, self.batches = network, 0.0, 0

    def after_loss(self):
        with torch.no_grad():
            expected = self.network(*self.xb)
        self.off = max(self.off, float((self.learn.distill.target - expected).abs().max() / expected.abs().max()))
        self.batches += 1


def is_used_as_given(name, side):
    torch.manual_seed(0)
    teacher = randomized(build(name, side, CLASSES)).train()
    reference, before = deepcopy(teacher).eval(), deepcopy(teacher.state_dict())
    x, y = torch.randn(2 * IMAGES, 3, side, side), torch.arange(2 * IMAGES)
    items = list(zip(x, y))
    learn = Learner(
        DataLoaders.from_dsets(items, items, bs=IMAGES, num_workers=0, device='cpu'), Student(), CrossEntropyLossFlat()
    )
    learn.remove_cbs(ProgressCallback)
    learn.logger, compare = noop, Compare(reference)
    learn.fit(1, 1e-3, cbs=[Distill(teacher), compare])
    assert compare.batches == 4 and compare.off <= CLOSE, f'off by {compare.off:.2g}'
    assert equal(teacher.state_dict(), before) and all(m.training for m in teacher.modules()), 'changed'


def cases():
    for name, side in networks():
        yield name, lambda name=name, side=side: is_used_as_given(name, side)


if __name__ == '__main__':
    run('teachers', cases())
