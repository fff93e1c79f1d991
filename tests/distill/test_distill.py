from functools import partial

import numpy as np
import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    SGD,
    Callback,
    CrossEntropyLossFlat,
    GradientAccumulation,
    Learner,
    MixUp,
    ProgressCallback,
    accuracy,
    noop,
)
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.distill.losses.crd import CRD
from kdfast.distill.losses.features import rkd_loss
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss
from kdfast.distill.match import Match
from kdfast.distill.tasks import label_kd_loss
from kdfast.models.study_networks import thin, wide


def student(data, **kwargs):
    torch.manual_seed(0)
    learn = Learner(
        loaders(data), thin(3), CrossEntropyLossFlat(), opt_func=partial(SGD, mom=0.9), metrics=accuracy, **kwargs
    )
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def teacher():
    torch.manual_seed(1)
    return wide(3)


def copy(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


def test_alpha_0_is_plain_training_to_the_bit(data):
    plain, distilled = student(data), student(data)
    plain.fit_one_cycle(2, 0.1)
    distilled.fit_one_cycle(2, 0.1, cbs=Distill(teacher(), alpha=0.0))
    assert equal(copy(plain.model), copy(distilled.model))


def test_alpha_1_forgets_the_labels(data):
    a, b = student(data), student(data)
    b.dls.train_ds.labels = 2 - b.dls.train_ds.labels
    for learn in (a, b):
        learn.fit_one_cycle(1, 0.1, cbs=Distill(teacher(), alpha=1.0))
    assert equal(copy(a.model), copy(b.model))


def test_alpha_1_forgets_batches_of_ignored_labels(data):
    a, b = student(data), student(data)
    b.dls.train_ds.labels = torch.full_like(torch.as_tensor(b.dls.train_ds.labels), -100)
    for learn in (a, b):
        learn.fit_one_cycle(1, 0.1, cbs=Distill(teacher(), alpha=1.0))
    assert equal(copy(a.model), copy(b.model))


def test_alpha_0_forgets_a_teacher_that_returns_nothing_finite(data):
    plain, distilled = student(data), student(data)
    plain.fit_one_cycle(1, 0.1)
    broken = teacher()
    nn.init.constant_([*broken.parameters()][-1], torch.nan)
    distilled.fit_one_cycle(1, 0.1, cbs=Distill(broken, alpha=0.0))
    assert equal(copy(plain.model), copy(distilled.model))


def test_the_teacher_stays_as_it_was(data):
    net, learn = teacher(), student(data)
    before = copy(net)
    learn.fit_one_cycle(1, 0.1, cbs=Distill(net))
    assert equal(before, copy(net))
    assert all(p.grad is None for p in net.parameters())
    held = {id(p) for p in learn.opt.all_params().itemgot(0)}
    assert not held & {id(p) for p in net.parameters()}


def test_training_minimizes_the_blend_and_validation_loss_is_plain_cross_entropy(data):
    net, learn, kd = teacher(), student(data), Distill(teacher(), T=3.0, alpha=0.7)
    seen = []

    class Look(Callback):
        order = 3

        def after_loss(self):
            seen.append(
                (self.training, self.loss_grad.detach().clone(), self.pred.detach().clone(), self.xb[0], self.yb[0])
            )

    learn.fit(1, 0.0, cbs=[kd, Look()])
    net.eval()
    for training, loss, pred, x, y in seen:
        hard = torch.nn.functional.cross_entropy(pred, y)
        with torch.no_grad():
            blend = 0.3 * hard + 0.7 * kd_loss(pred, net(x), 3.0)
        torch.testing.assert_close(loss, blend if training else hard, rtol=1e-5, atol=1e-6)
    assert {training for training, *_ in seen} == {True, False}
    recorded = learn.recorder.values[-1][1]
    assert recorded == pytest.approx(learn.validate()[0], rel=1e-6)


def test_nothing_is_left_on_the_learner(data):
    learn = student(data)
    before = [type(cb) for cb in learn.cbs]
    learn.fit_one_cycle(1, 0.1, cbs=Distill(teacher()))
    assert [type(cb) for cb in learn.cbs] == before and not hasattr(learn, 'distill')


def test_a_learner_is_taken_for_its_network(data):
    learn = student(data)
    assert Distill(learn).teacher is learn.model


def test_gradient_accumulation_scales_the_whole_blend(data):
    net, learn, n_acc = teacher(), student(data), 16

    class Look(Callback):
        order = 7  # after GradientAccumulation

        def after_loss(self):
            if not self.training:
                return
            hard = torch.nn.functional.cross_entropy(self.pred, self.yb[0])
            with torch.no_grad():
                blend = 0.1 * hard + 0.9 * kd_loss(self.pred, net(self.xb[0]), 4.0)
            torch.testing.assert_close(
                self.loss_grad.detach(), blend.detach() * len(self.yb[0]) / n_acc, rtol=1e-5, atol=1e-6
            )
            self.learn.looked = True

    learn.fit(1, 0.01, cbs=[Distill(net), GradientAccumulation(n_acc), Look()])
    assert learn.looked


@pytest.mark.parametrize('wrong,said', [(wide, 'the function wide; call it first'), ('wide', 'found str')])
def test_what_is_no_network_is_refused(wrong, said):
    with pytest.raises(TypeError, match=said):
        Distill(wrong)


NO_NUMBERS = [float('nan'), float('inf'), float('-inf'), 1e300, 10**400, None, '4', True, 2j, [1.0]]
NO_NUMBERS += [torch.ones(2), torch.tensor(float('nan'))]


@pytest.mark.parametrize('name,wrong', [('T', [0.0, -1.0, 1e30, 1e-30]), ('alpha', [1.1, -0.1])])
def test_options_out_of_range(name, wrong):
    for value in [*wrong, *NO_NUMBERS]:
        with pytest.raises(ValueError, match='must be a number from'):
            Distill(teacher(), **{name: value})


def test_weights_out_of_range():
    for value in [-0.1, *NO_NUMBERS]:
        with pytest.raises(ValueError, match='the weight of the loss must be a number from'):
            Match(teacher(), kd_loss, value)


@pytest.mark.parametrize('T', [1e-6, 1e6, 3, np.float32(2), torch.tensor(2.0)])
@pytest.mark.parametrize('alpha', [0, 1, 0.5, np.float64(0.5)])
def test_options_in_range(data, T, alpha):
    learn = student(data)
    learn.fit(1, 0.01, cbs=Distill(teacher(), T, alpha))
    assert all(p.isfinite().all() for p in learn.model.parameters())


X, Y = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5
ARGUMENTS = [
    (kd_loss, ['T']),
    (ls_kd_loss, ['T']),
    (label_kd_loss, ['T']),
    (dist_loss, ['T', 'beta', 'gamma']),
    (partial(dkd_loss, y=Y), ['T', 'alpha', 'beta']),
    (rkd_loss, ['distance', 'angle']),
    (lambda x, y, **given: CRD(5, 5, 8, **given), ['T', 'negatives']),
]


@pytest.mark.parametrize('loss,name', [(loss, name) for loss, names in ARGUMENTS for name in names])
def test_numbers_of_losses_out_of_range(loss, name):
    for value in [v for v in NO_NUMBERS if not isinstance(v, torch.Tensor)]:
        with pytest.raises(ValueError, match='must be a number from'):
            loss(X, X.flip(0), **{name: value})


@pytest.mark.parametrize('loss', [kd_loss, ls_kd_loss, label_kd_loss, dist_loss, partial(dkd_loss, y=Y)])
def test_losses_are_finite_at_every_temperature_that_is_allowed(loss):
    "A temperature may also be a tensor that is learned"
    for T in (1e-6, 1e-3, 1, 1e3, 1e6, torch.tensor(4.0, requires_grad=True)):
        x = X.clone().requires_grad_()
        found = loss(x, X.flip(0), T=T)
        found.backward()
        assert found.isfinite() and x.grad.isfinite().all()


@pytest.mark.parametrize(
    'other,said',
    [
        (wide(1), '×1, the student'),
        (nn.Sequential(wide(3), nn.Unflatten(1, (3, 1))), '×3×1, the student'),
        (nn.Sequential(nn.Flatten(), nn.LSTM(192, 3)), 'tuple, the student'),
    ],
)
@pytest.mark.parametrize('kind', [Distill, lambda teacher: Match(teacher, kd_loss)])
def test_a_teacher_of_other_classes_is_refused_and_both_sides_are_named(data, kind, other, said):
    "One column would be broadcast to all classes without a word"
    with pytest.raises(KdfastError, match=said):
        student(data).fit(1, cbs=kind(other))


@pytest.mark.parametrize('kind', [Distill, lambda teacher: Match(teacher, kd_loss)])
def test_probabilities_are_refused_as_logits(data, kind):
    "A softmax of probabilities is nearly uniform, so that the student would learn nothing from the teacher"
    for options in (dict(), dict(start_epoch=1)):
        with pytest.raises(KdfastError, match='the teacher returns probabilities'):
            student(data).fit(2, cbs=kind(nn.Sequential(teacher(), nn.Softmax(1))), **options)
    learn = student(data)
    learn.model = nn.Sequential(learn.model, nn.Softmax(1))
    with pytest.raises(KdfastError, match='the student returns probabilities'):
        learn.fit(1, cbs=kind(teacher()))
    student(data).fit(1, cbs=kind(nn.Sequential(teacher(), nn.LogSoftmax(1))))


def test_probabilities_of_a_layer_are_refused_as_logits(data):
    learn = student(data)
    learn.model = nn.Sequential(nn.Sequential(learn.model), nn.Softmax(1), nn.Identity())
    softmax = nn.Sequential(nn.Sequential(teacher()), nn.Softmax(1))
    for layers, who in (('1:0', 'teacher'), ('0:1', 'student')):
        with pytest.raises(KdfastError, match=f'the {who} returns probabilities'):
            learn.fit(1, cbs=Match(softmax, kd_loss, layers=layers))
    learn.fit(1, cbs=Match(softmax, kd_loss, layers='0:0'))


class Masked(nn.Module):
    "A network whose last class does not exist"

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        logits = self.net(x)
        return torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], 1)


@pytest.mark.parametrize(
    'kind',
    [Distill, *(partial(Match, loss=loss) for loss in (kd_loss, dkd_loss, ls_kd_loss))],
    ids=['Distill', 'kd', 'dkd', 'ls'],
)
def test_a_class_that_both_networks_mask_leaves_the_training_as_it_is(data, kind):
    plain, masked = student(data), student(data)
    masked.model = Masked(masked.model)
    plain.fit_one_cycle(1, 0.01, cbs=kind(teacher()))
    masked.fit_one_cycle(1, 0.01, cbs=kind(Masked(teacher())))
    torch.testing.assert_close(copy(plain.model), copy(masked.model.net))


@pytest.mark.parametrize(
    'options', [dict(weight=-1.0), dict(weight=float('nan')), dict(layers='stage2'), dict(layers='a:b:c')]
)
def test_options_of_match_out_of_range(options):
    "Without a colon no pair was found, and logits were matched"
    with pytest.raises(ValueError):
        Match(teacher(), kd_loss, **options)


def test_pairs_may_have_spaces():
    assert Match(teacher(), kd_loss, 1.0, 'a : b, c:d').pairs == [('a', 'b'), ('c', 'd')]


def test_the_teacher_sees_the_mixed_image(data):
    inputs = []

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = teacher()

        def forward(self, x):
            inputs.append(x)
            return self.net(x)

    learn = student(data)

    class Look(Callback):
        order = 3

        def after_loss(self):
            assert torch.equal(inputs[-1], self.xb[0])

    learn.fit(1, 0.01, cbs=[MixUp(), Distill(Watched()), Look()])
    assert inputs
