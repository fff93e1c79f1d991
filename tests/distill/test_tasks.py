"The loss of a Learner tells what its outputs are, and which soft loss suits them."

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
from fastai.vision.all import CutMix, MixUp
from numpy_losses import SHAPES, T, of_class, of_labels, of_numbers
from taught_learners import Look, learner, net
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.tasks import CLASS, LABELS, NUMBERS, Task, check_mean, task_of
from kdfast.models.probabilities import are_probabilities


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


@pytest.mark.parametrize(
    'loss',
    [
        nn.CrossEntropyLoss(reduction='sum'),
        CrossEntropyLossFlat(reduction='sum'),
        FocalLossFlat(reduction='sum'),
        partial(F.cross_entropy, reduction='sum'),
        partial(CrossEntropyLossFlat(reduction='sum')),
        DiceLoss(),
    ],
)
@pytest.mark.parametrize('mix', [[], [MixUp()]])
def test_a_sum_over_the_batch_is_not_blended_with_a_mean(loss, mix):
    with pytest.raises(KdfastError, match='blends means over the batch, and the loss .* sums'):
        learner(loss=loss).fit(1, cbs=[Distill(net()), *mix])
    if not isinstance(loss, DiceLoss):  # which needs pixels
        for alpha in (0, 1):  # nothing is blended
            learner(loss=loss).fit(1, 1e-4, cbs=Distill(net(), alpha=alpha))


@pytest.mark.parametrize('loss', [DiceLoss(reduction='mean'), partial(F.cross_entropy, reduction='mean'), F.mse_loss])
def test_means_are_blended(loss):
    check_mean(loss)


@pytest.mark.parametrize(
    'outputs,expected',
    [
        ([[0.2, 0.8], [0.5, 0.5]], True),
        ([[0.2, 0.8], [0.5, 0.6]], False),
        ([[-0.2, 1.2], [0.5, 0.5]], False),
        ([[0.0, 1.0], [1.0, 0.0]], False),  # of a test, or labels
        ([[1.0], [1.0]], False),
    ],
)
def test_probabilities_are_told_from_logits(outputs, expected):
    assert are_probabilities(torch.tensor(outputs)) is expected
    pixels = torch.tensor(outputs)[:, :, None, None].expand(-1, -1, 2, 2)
    assert are_probabilities(pixels) is expected and are_probabilities(pixels.movedim(1, -1), -1) is expected


@pytest.mark.parametrize('labels', [(3,), (2, 4, 4), (1, 4, 4)])
@pytest.mark.parametrize('squash', [torch.sigmoid, lambda x: x.softmax(1), lambda x: x.sigmoid().half()])
def test_probabilities_of_several_labels_are_told_from_logits(labels, squash):
    logits = torch.randn(8, *labels, generator=torch.Generator().manual_seed(0))
    if (probabilities := squash(logits)).unique().numel() > 1:
        with pytest.raises(KdfastError, match='the teacher returns probabilities .* sigmoid'):
            Task(LABELS).check_logits(logits, probabilities)
    for right in (logits, logits.sigmoid().round(), logits.log_softmax(1), logits.sigmoid()[:, :1].flatten(1)[:, :1]):
        Task(LABELS).check_logits(logits.sigmoid(), right)


def test_a_teacher_of_labels_that_ends_in_a_sigmoid_is_refused():
    loss = BCEWithLogitsLossFlat()
    learn = learner(net(), loss=lambda pred, y: loss(pred, F.one_hot(y, 3).float()))
    with pytest.raises(KdfastError, match='the teacher returns probabilities .* sigmoid'):
        learn.fit(2, cbs=Distill(nn.Sequential(net(), nn.Sigmoid()), task=loss), start_epoch=1)
    learn.fit(1, cbs=Distill(net(), task=loss))
