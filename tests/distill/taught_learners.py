"Small students that a teacher teaches, and callbacks that look at them."

from contextlib import nullcontext

import torch
from fastai.vision.all import (
    Callback,
    CrossEntropyLossFlat,
    DataLoaders,
    Learner,
    ProgressCallback,
    noop,
)
from torch import nn

from kdfast.distill.distill import Distill

AT = dict(rtol=1e-4, atol=1e-5)


def net(width=4, classes=3):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Identity(),
        nn.Conv2d(width, 8, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


class Items(list):
    "A data set that `tta` takes"

    def set_split_idx(self, i):
        return nullcontext()


def learner(model=None, n=24, loss=None, **kwargs):
    torch.manual_seed(0)
    x, y = torch.rand(n, 3, 8, 8), torch.arange(n) % 3
    dls = DataLoaders.from_dsets(Items(zip(x, y)), Items(zip(x, y)), bs=8, num_workers=0, device='cpu', shuffle=False)
    learn = Learner(dls, net() if model is None else model, loss or CrossEntropyLossFlat(), **kwargs)
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


class Look(Callback):
    "Calls `look` with the Learner after each loss"

    order = 50

    def __init__(self, look):
        self.look = look

    def after_loss(self):
        self.look(self.learn)


def targets(learn, teacher, *cbs, epochs=2):
    "Of each batch, the images and what Distill has from the teacher for them"
    seen = []
    learn.fit(
        epochs,
        1e-2,
        cbs=[
            Distill(teacher),
            *cbs,
            Look(lambda learn: seen.append((learn.xb[0].clone(), learn.distill.target.clone()))),
        ],
    )
    return seen
