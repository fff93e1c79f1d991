"A teacher that counts its forward passes."

from collections import Counter

import torch
from fastai.vision.all import Callback, CrossEntropyLossFlat, ProgressCallback, noop

from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.models.study_networks import thin, wide
from kdfast.training.learner import RunLearner
from kdfast.training.teacher_cache import read_outputs

CHECKED = 3  # passes in a fit that asks, before its first batch: of a copy, without values, and with folded batch norms


class Counting(torch.nn.Module):
    "A teacher that counts how often it, or a copy of it, is asked"

    times = Counter()

    def __init__(self, seed=1):
        super().__init__()
        torch.manual_seed(seed)
        self.net, self.id = wide(3), id(self)

    def forward(self, x):
        self.times[self.id] += 1
        return self.net(x)

    @property
    def asked(self):
        return self.times[self.id]


def fit(data, teacher, *cbs, epochs=2, taught=None):
    torch.manual_seed(0)
    learn = RunLearner(loaders(data), thin(3), CrossEntropyLossFlat(), cbs=[*cbs])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop

    class Epoch(Callback):
        def before_epoch(self):
            self.dls.train.epoch = self.epoch

    learn.fit(epochs, 0.01, cbs=[taught() if taught else Distill(teacher), Epoch()])
    return {name: t.clone() for name, t in learn.model.state_dict().items()}


def asks(teacher, *arguments, **named):
    "How often a fit asks the teacher"
    before = teacher.asked
    fit(*arguments, **named)
    return teacher.asked - before


def kept(folder):
    return {batch: logits for file in folder.glob('*.safetensors') for batch, logits in read_outputs(file).items()}
