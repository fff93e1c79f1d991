"In a run the teacher computes before the student, whose activations take no memory then; nothing else changes."

import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    Callback,
    CancelBatchException,
    CrossEntropyLossFlat,
    CutMix,
    DataLoaders,
    Learner,
    MixUp,
    ProgressCallback,
    noop,
)
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.losses.features import at_loss
from kdfast.distill.losses.logits import dist_loss
from kdfast.distill.match import Match
from kdfast.distill.teacher import Teacher
from kdfast.training.learner import RunLearner

WAYS = dict(
    logits=Distill,
    layers=lambda teacher: Match(teacher, at_loss, 1.0, '0:0'),
    compared=lambda teacher: Match(teacher, dist_loss, 1.0),
)


def net(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)
    )


class Notes(nn.Sequential):
    "A network that notes when it computes"

    def __init__(self, width, name, log):
        super().__init__(*net(width))
        self.name, self.log = name, log

    def forward(self, x):
        self.log.append(self.name)
        return super().forward(x)


class Counts(nn.Module):
    "A recurrent network: its output depends on how often it was called"

    def __init__(self):
        super().__init__()
        self.net, self.times = net(8), 0

    def reset(self):
        self.times = 0

    def forward(self, x):
        self.times += 1
        return self.net(x) * self.times


class Halves(Callback):
    "Replaces the batch after the student has computed"

    def after_pred(self):
        self.learn.xb = (self.xb[0] * 0.5,)


class Moves(Callback):
    "Changes the teacher after the student has computed"

    def after_pred(self):
        with torch.no_grad():
            for p in self.teacher.parameters():
                p.mul_(1.1)


class Skips(Callback):
    "Skips every third batch, when the teacher may have computed it"

    def after_pred(self):
        if self.training and self.iter == 1:
            raise CancelBatchException


class Predicts(Callback):
    "Predicts while a batch is computed"

    def after_pred(self):
        if self.training:
            self.learn.get_preds(dl=self.dls.valid)


def fit(kind, way, teacher, *cbs, model=None):
    "Fit two epochs; return the weights"
    torch.manual_seed(0)
    items = list(zip(torch.rand(24, 3, 8, 8), torch.arange(24) % 3))
    dls = DataLoaders.from_dsets(items, items, bs=8, num_workers=0, device='cpu', shuffle=False)
    learn = kind(dls, model or net(4), CrossEntropyLossFlat(), cbs=[*cbs])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    for cb in cbs:
        cb.teacher = teacher
    learn.fit(2, 1e-2, cbs=[way(teacher)])
    return {name: t.clone() for name, t in learn.model.state_dict().items()}


def made(network):
    "The same network each time"
    torch.manual_seed(1)
    return network()


@pytest.mark.parametrize('way', WAYS.values(), ids=WAYS)
def test_the_teacher_computes_first_and_once_per_batch(way):
    log = []
    teacher, student = Notes(8, 'teacher', log), Notes(4, 'student', log)
    fit(RunLearner, way, teacher, model=student)
    assert log[-16:] == ['teacher', 'student'] * 8  # in the first batch its faster copy is compared with it


@pytest.mark.parametrize('change', [None, Halves, Moves, Skips, Predicts, MixUp, CutMix])
@pytest.mark.parametrize('network', [lambda: net(8), Counts], ids=['plain', 'recurrent'])
@pytest.mark.parametrize('way', [WAYS['logits'], WAYS['compared']], ids=['logits', 'compared'])
def test_weights_are_those_of_a_fit_in_which_the_teacher_computes_last(way, network, change):
    last, first = (fit(kind, way, made(network), *([change()] if change else [])) for kind in (Learner, RunLearner))
    assert equal(last, first)


@pytest.mark.parametrize('change', [None, Halves, Moves, Skips, MixUp])
def test_so_are_those_of_losses_between_layers(change):
    last, first = (
        fit(kind, WAYS['layers'], made(lambda: net(8)), *([change()] if change else []))
        for kind in (Learner, RunLearner)
    )
    assert equal(last, first)


def test_a_change_within_a_dictionary_is_seen():
    class OfDictionaries(nn.Sequential):
        def forward(self, batch):
            return super().forward(batch['x'])

    network, xb = OfDictionaries(*net(8)).eval(), ({'x': torch.rand(2, 3, 8, 8)},)
    teacher = Teacher(network, net(4))
    for _ in range(2):
        teacher.prepare(xb)
        xb[0]['x'].mul_(0.5)
        torch.testing.assert_close(teacher(xb)[0], network(*xb).detach())
    teacher.leave()


@torch.inference_mode()
def test_another_batch_is_seen_also_if_tensors_count_no_versions():
    network = net(8).eval()
    teacher, one, other = Teacher(network, net(4)), (torch.rand(2, 3, 8, 8),), (torch.rand(2, 3, 8, 8),)
    for xb in (one, other):
        teacher.prepare(one)
        torch.testing.assert_close(teacher(xb)[0], network(*xb))
    teacher.leave()


@pytest.mark.parametrize('kind', [Learner, RunLearner])
@pytest.mark.parametrize('way', WAYS.values(), ids=WAYS)
def test_a_student_that_writes_into_its_input_is_refused(kind, way):
    class Writes(nn.Sequential):
        def forward(self, x):
            return super().forward(x.mul_(0.5))

    with pytest.raises(KdfastError, match='writes into its input'):
        fit(kind, way, net(8), model=Writes(*net(4)))
