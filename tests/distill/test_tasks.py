"What the loss tells about outputs, and the soft loss of each kind against values computed with numpy."

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.losses import (
    BCELossFlat,
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    DiceLoss,
    FocalLoss,
    FocalLossFlat,
    L1LossFlat,
    LabelSmoothingCrossEntropy,
    LabelSmoothingCrossEntropyFlat,
    MSELossFlat,
)
from fastai.vision.all import Callback, CutMix, MixUp
from taught_learners import Look, learner, net
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss
from kdfast.distill.match import Match
from kdfast.distill.tasks import CLASS, LABELS, NUMBERS, Task, task_of

T = 3.0


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def of_class(student, teacher, axis):
    q, p = (softmax(np.moveaxis(x, axis, -1) / T) for x in (student, teacher))
    return T**2 * (p * np.log(p / q)).sum(-1).mean()


def of_labels(student, teacher):
    q, p = sigmoid(student / T), sigmoid(teacher / T)
    return T**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()


def of_numbers(student, teacher):
    return ((student - teacher) ** 2).mean()


SHAPES = [(5, 4), (5, 3, 2, 6), (2, 7, 3)]


@pytest.mark.parametrize(
    'task,by_hand,shape',
    [
        *[(Task(CLASS, axis), partial(of_class, axis=axis), shape) for shape in SHAPES for axis in (1, -1)],
        *[(Task(LABELS), of_labels, shape) for shape in [*SHAPES, (5, 1), (5,)]],
        *[(Task(NUMBERS), of_numbers, shape) for shape in [*SHAPES, (5, 1), (5,)]],
    ],
)
def test_soft_losses_are_what_numpy_computes(task, by_hand, shape):
    random = np.random.default_rng(0)
    student, teacher = random.normal(size=shape) * 4, random.normal(size=shape) * 4
    found = task.soft_loss(torch.tensor(student), torch.tensor(teacher), T)
    assert float(found) == pytest.approx(by_hand(student, teacher), rel=1e-5)
    assert float(task.soft_loss(torch.tensor(teacher), torch.tensor(teacher), T)) == pytest.approx(0, abs=1e-6)


def test_labels_far_from_zero_stay_finite():
    x = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = Task(LABELS).soft_loss(x, -x.detach(), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(200) and x.grad.isfinite().all()


class OwnCrossEntropy(nn.CrossEntropyLoss):
    pass


class Weighted(nn.Module):
    "Somebody's own loss: what it takes cannot be known"

    def forward(self, pred, y):
        return F.cross_entropy(pred, y) + pred.square().mean()


@pytest.mark.parametrize(
    'loss,task',
    [
        *[
            (loss, Task(CLASS, 1))
            for loss in (
                nn.CrossEntropyLoss(),
                nn.NLLLoss(),
                F.cross_entropy,
                F.nll_loss,
                LabelSmoothingCrossEntropy(),
                FocalLoss(),
                DiceLoss(),
                partial(F.cross_entropy, label_smoothing=0.1),
                CrossEntropyLossFlat(axis=1),
                FocalLossFlat(axis=1),
                OwnCrossEntropy(),
                partial(CrossEntropyLossFlat(axis=1)),
            )
        ],
        *[
            (loss, Task(CLASS, -1))
            for loss in (CrossEntropyLossFlat(), FocalLossFlat(), LabelSmoothingCrossEntropyFlat())
        ],
        *[
            (loss, Task(LABELS, axis))
            for loss, axis in (
                (nn.BCEWithLogitsLoss(), 1),
                (BCEWithLogitsLossFlat(), -1),
                (F.binary_cross_entropy_with_logits, 1),
                (nn.MultiLabelSoftMarginLoss(), 1),
                (sigmoid_focal_loss, 1),
            )
        ],
        *[
            (loss, Task(NUMBERS, axis))
            for loss, axis in (
                (nn.MSELoss(), 1),
                (MSELossFlat(), -1),
                (L1LossFlat(), -1),
                (nn.SmoothL1Loss(), 1),
                (nn.HuberLoss(), 1),
                (F.mse_loss, 1),
            )
        ],
    ],
)
def test_the_loss_tells_what_outputs_are(loss, task):
    assert task_of(loss) == task


@pytest.mark.parametrize(
    'loss,name',
    [
        (lambda pred, y: pred.mean(), '<lambda>'),
        (Weighted(), 'Weighted'),
        (BCELossFlat(), 'BCELoss'),
        (nn.TripletMarginLoss(), 'TripletMarginLoss'),
        (partial(Weighted()), 'Weighted'),
        (nn.GaussianNLLLoss(), 'GaussianNLLLoss'),
    ],
)
def test_a_loss_that_is_not_known_is_refused_before_the_first_step_unless_another_is_named(loss, name):
    with pytest.raises(KdfastError, match=f'the loss {name} expects is unknown: .*task=CrossEntropyLossFlat'):
        task_of(loss)
    learn = learner(loss=loss)
    with pytest.raises(KdfastError, match='is unknown'):
        learn.fit(1, cbs=Distill(net()))
    if name in ('<lambda>', 'Weighted'):
        learn.fit(1, cbs=Distill(net(), task=CrossEntropyLossFlat()))


def test_timms_losses():
    timm = pytest.importorskip('timm.loss')
    assert [
        task_of(loss()).kind
        for loss in (timm.LabelSmoothingCrossEntropy, timm.SoftTargetCrossEntropy, timm.BinaryCrossEntropy)
    ] == [CLASS, CLASS, LABELS]


@pytest.mark.parametrize('mix', [MixUp, CutMix])
def test_what_stands_in_for_the_loss_while_images_are_mixed_is_seen_through(mix):
    learn, seen = learner(), []
    learn.fit(
        1, cbs=[mix(), Distill(net()), Look(lambda learn: seen.append((learn.distill.task, task_of(learn.loss_func))))]
    )
    assert set(seen) == {(Task(CLASS, -1), Task(CLASS, -1))}


def test_one_output_of_classes_is_refused():
    with pytest.raises(KdfastError, match='8×1 have a single class, .*BCEWithLogitsLossFlat'):
        learner(net(classes=1), loss=lambda pred, y: pred.mean()).fit(
            1, cbs=Distill(net(classes=1), task=nn.CrossEntropyLoss())
        )


# Where logits are


class Gives(nn.Module):
    "A network whose output is made of its logits by a function"

    def __init__(self, make):
        super().__init__()
        self.net, self.make = net(), make

    def forward(self, x):
        return self.make(self.net(x))


class Output:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    'make,which',
    [
        (lambda x: (x * 0, x), 1),
        (lambda x: dict(aux=x * 0, out=x), 'out'),
        (Output, 'logits'),
        (lambda x: [x, x * 0], 0),
        (lambda x: (x, (x * 0, x)), lambda output: output[1][1]),
    ],
)
@pytest.mark.parametrize('odd', ['teacher', 'both'])
@pytest.mark.parametrize('kind', [Distill, lambda teacher, logits=None: Match(teacher, kd_loss, logits=logits)])
def test_logits_inside_an_output_are_found_or_asked_for(make, which, odd, kind):
    def loss(pred, y):
        return F.cross_entropy(
            pred
            if isinstance(pred, torch.Tensor)
            else which(pred)
            if callable(which)
            else pred.logits
            if isinstance(pred, Output)
            else pred[which],
            y,
        )

    torch.manual_seed(0)
    if odd == 'teacher' and callable(which):
        return  # a function sees the outputs of both
    teacher, student = Gives(make), net() if odd == 'teacher' else Gives(make)
    options = dict(task=CrossEntropyLossFlat()) if kind is Distill else {}
    cb = kind(teacher, logits=which, **options)
    learn = learner(student, loss=loss)

    def compare(learn):
        with torch.no_grad():
            torch.testing.assert_close(cb.target, teacher.net.eval()(learn.xb[0]), rtol=1e-4, atol=1e-5)

    learn.fit(1, 1e-2, cbs=[cb, Look(compare)])
    with pytest.raises(KdfastError, match='the teacher returns .*; select them with logits='):
        learn.fit(1, cbs=kind(teacher, **options))


@pytest.mark.parametrize('which', ['no', 7])
def test_a_part_that_is_not_there_is_named(which):
    with pytest.raises(KdfastError, match=f'does not contain {which!r}'):
        learner().fit(1, cbs=Distill(Gives(lambda x: (x,)), logits=which))


# Match


@pytest.mark.parametrize('loss', [kd_loss, dkd_loss, dist_loss, ls_kd_loss, partial(dkd_loss, beta=2.0)])
def test_losses_of_class_logits_are_refused_for_other_outputs(loss):
    name = getattr(loss, 'func', loss).__name__

    class Pixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.net(x)

    steps = []

    class Count(Callback):
        def before_step(self):
            steps.append(1)

    for task_loss in (BCEWithLogitsLossFlat(), MSELossFlat()):
        with pytest.raises(KdfastError, match=f'{name} compares logits of classes'):
            learner(loss=task_loss).fit(1, cbs=[Match(net(), loss), Count()])
    own = learner(Pixels(), loss=lambda pred, y: F.cross_entropy(pred.mean((2, 3)), y))
    with pytest.raises(KdfastError, match=f'{name} compares logits .images, classes., found 8×3×8×8'):
        own.fit(1, cbs=[Match(Pixels(), loss), Count()])
    assert not steps
    learner(loss=lambda pred, y: F.cross_entropy(pred, y)).fit(1, cbs=Match(net(), loss))
