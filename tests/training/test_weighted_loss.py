"Class weights multiply the training loss of each image, and nothing else."

import pytest
import torch
from fastai.basics import Callback, CrossEntropyLossFlat, Learner, noop
from fastai.callback.mixup import CutMix
from fastai.callback.progress import ProgressCallback
from fastai.losses import BCEWithLogitsLossFlat, FocalLossFlat, LabelSmoothingCrossEntropyFlat
from torch import nn
from torch.nn import functional as F

from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.distill.losses.logits import kd_loss
from kdfast.distill.match import Match
from kdfast.distill.mixup import MixUp
from kdfast.models.study_networks import network
from kdfast.training.weighted_loss import ClassWeights

WEIGHTS = [0.5, 1.0, 3.0]
W = torch.tensor(WEIGHTS)


class Look(Callback):
    "What each batch was given, and its loss"

    order = 50

    def __init__(self, nested=False):
        self.nested = nested
        self.seen, self.valid = [], []

    def after_loss(self):
        values = self.pred.detach(), self.y, self.learn.loss.detach()
        (self.seen if self.training else self.valid).append(values)

    def after_batch(self):
        if self.nested and self.training and self.iter == 1:
            self.learn.validate()


def learner(data, loss=None, seed=0):
    torch.manual_seed(seed)
    learn = Learner(loaders(data), network((4, 8, 12), 3), loss or CrossEntropyLossFlat(), cbs=[ClassWeights(WEIGHTS)])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def fitted(data, *cbs, loss=None):
    learn, look = learner(data, loss), Look()
    own = learn.loss_func
    learn.fit(1, 1e-3, cbs=[*cbs, look])
    assert learn.loss_func is own
    return learn, look


def weighted(per_image, y):
    "By hand: the mean over the images of weight · loss"
    return sum(WEIGHTS[int(c)] * float(value) for value, c in zip(per_image, y)) / len(y)


def test_by_hand(data):
    learn, look = fitted(data)
    pred, y, loss = look.seen[0]
    by_hand = [float(logits.exp().sum().log() - logits[c]) for logits, c in zip(pred, y)]
    assert float(loss) == pytest.approx(weighted(by_hand, y), rel=1e-5)
    assert float(loss) != pytest.approx(sum(by_hand) / len(y), rel=1e-3)
    for pred, y, loss in look.valid:
        assert torch.equal(loss, F.cross_entropy(pred, y))


def test_it_is_the_loss_that_is_minimized(data):
    "One step of plain gradient descent along the weighted loss"
    learn, look = learner(data), Look()
    gradients = {}

    class Keep(Callback):
        def before_step(self):
            if not gradients:
                gradients.update({name: p.grad.clone() for name, p in self.model.named_parameters()})
                self.learn.x0, self.learn.y0 = self.x, self.y

    copy = network((4, 8, 12), 3)
    copy.load_state_dict(learn.model.state_dict())
    learn.fit(1, 1e-3, cbs=[Keep(), look])
    copy.train()
    per_image = F.cross_entropy(copy(learn.x0), learn.y0, reduction='none')
    (W[learn.y0] * per_image).mean().backward()
    for name, p in copy.named_parameters():
        assert torch.allclose(p.grad, gradients[name], atol=1e-6), name


def test_the_hard_part_of_distill(data):
    teacher = network((4, 8, 12), 3)
    learn, look = learner(data), Look()
    distill = Distill(teacher, T=2.0, alpha=0.4)

    class Parts(Callback):
        order = 51
        parts_seen, targets = [], []

        def after_loss(self):
            self.parts_seen.append(dict(distill.parts))
            self.targets.append(distill.target)

    parts = Parts()
    learn.fit(1, 1e-3, cbs=[distill, look, parts])
    pred, y, loss = look.seen[0]
    hard = weighted(F.cross_entropy(pred, y, reduction='none'), y)
    soft = kd_loss(pred, parts.targets[0], 2.0)
    assert float(parts.parts_seen[0]['hard']) == pytest.approx(hard, rel=1e-5)
    assert float(parts.parts_seen[0]['soft']) == pytest.approx(float(soft), rel=1e-5)
    assert float(loss) == pytest.approx(0.6 * hard + 0.4 * float(soft), rel=1e-5)
    pred, y, loss = look.valid[0]
    assert float(parts.parts_seen[len(look.seen)]['hard']) == pytest.approx(float(F.cross_entropy(pred, y)), rel=1e-6)


def test_the_labels_of_match(data):
    learn, look = learner(data), Look()
    match = Match(network((4, 8, 12), 3), lambda student, teacher: student.sum() * 0 + 2.0, weight=3.0)
    learn.fit(1, 1e-3, cbs=[match, look])
    pred, y, loss = look.seen[0]
    assert float(loss) == pytest.approx(weighted(F.cross_entropy(pred, y, reduction='none'), y) + 6.0, rel=1e-5)


@pytest.mark.parametrize(
    'make,per_image',
    [
        (
            lambda: LabelSmoothingCrossEntropyFlat(eps=0.1),
            lambda pred, y: F.cross_entropy(pred, y, reduction='none', label_smoothing=0.1),
        ),
        (
            lambda: nn.CrossEntropyLoss(label_smoothing=0.2),
            lambda pred, y: F.cross_entropy(pred, y, reduction='none', label_smoothing=0.2),
        ),
        (
            lambda: FocalLossFlat(gamma=2.0),
            lambda pred, y: (
                (1 - F.softmax(pred, 1).gather(1, y[:, None])[:, 0]) ** 2 * F.cross_entropy(pred, y, reduction='none')
            ),
        ),
        (lambda: F.cross_entropy, lambda pred, y: F.cross_entropy(pred, y, reduction='none')),
    ],
    ids=['smoothing', 'torch', 'focal', 'function'],
)
def test_other_losses_of_one_class(data, make, per_image):
    _, look = fitted(data, loss=make())
    pred, y, loss = look.seen[0]
    y = y.as_subclass(torch.Tensor)
    assert float(loss) == pytest.approx(weighted(per_image(pred, y), y), rel=1e-5)


@pytest.mark.parametrize('mix', [MixUp, CutMix])
def test_mixed_images_have_the_weighted_losses_of_both(data, mix):
    learn, look, mixed = learner(data), Look(), mix(1.0)

    class Keep(Callback):
        order = 51
        kept = []

        def after_loss(self):
            if self.training:
                self.kept.append((mixed.yb1[0], mixed.lam))

    keep = Keep()
    own = learn.loss_func
    learn.fit(1, 1e-3, cbs=[mixed, look, keep])
    (pred, y, loss), (y1, lam) = look.seen[0], keep.kept[0]
    y, y1 = (labels.as_subclass(torch.Tensor) for labels in (y, y1))
    one, other = (W[labels] * F.cross_entropy(pred, labels, reduction='none') for labels in (y, y1))
    assert float(loss) == pytest.approx(float((lam * one + (1 - lam) * other).mean()), rel=1e-5)
    assert learn.loss_func is own


def test_predictions_in_the_middle_of_an_epoch_are_not_weighted(data):
    learn, look = learner(data), Look(nested=True)
    learn.fit(1, 1e-3, cbs=look)
    assert len(look.valid) == 2 * len(learn.dls.valid)
    pred, y, loss = look.seen[5]  # after the prediction, training is weighted
    assert float(loss) == pytest.approx(weighted(F.cross_entropy(pred, y, reduction='none'), y), rel=1e-5)
    assert all(float(loss) == pytest.approx(float(F.cross_entropy(p, y)), rel=1e-5) for p, y, loss in look.valid)


@pytest.mark.parametrize(
    'loss,said',
    [
        (BCEWithLogitsLossFlat(), 'BCEWithLogitsLoss is not known as one of a single class per image'),
        (CrossEntropyLossFlat(weight=torch.ones(3)), 'has class weights already'),
        (nn.CrossEntropyLoss(weight=torch.ones(3)), 'has class weights already'),
        (lambda pred, y: F.cross_entropy(pred, y), 'is not known as one of a single class'),
    ],
)
def test_other_losses_are_refused_before_the_first_step(data, loss, said):
    learn = learner(data, loss)
    with pytest.raises(KdfastError, match=said):
        learn.fit(1, 1e-3)
    assert learn.loss_func is loss


def test_the_plain_loss_returns_after_an_interruption(data):
    class Stop(Callback):
        def after_batch(self):
            raise KeyboardInterrupt

    learn = learner(data)
    own = learn.loss_func
    with pytest.raises(KeyboardInterrupt):
        learn.fit(1, 1e-3, cbs=[MixUp(), Stop()])
    assert learn.loss_func is own
