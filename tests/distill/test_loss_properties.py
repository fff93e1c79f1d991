"What the papers promise of their losses: what costs nothing, what does not matter, half precision."

import pytest
import torch
from fastai.optimizer import SGD
from loss_tensors import ALL, GUIDED, HINT, OF_EQUAL_SHAPES, OF_LOGITS, OF_MAPS, H, S, Y, value_and_gradient
from taught_learners import Look, learner, net
from torch import nn, tensor

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.features import at_loss, feature_loss, hcl_loss, hint_loss, pkt_loss, rkd_loss, sp_loss
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss, standardize
from kdfast.distill.losses.regressed import Regressed
from kdfast.distill.losses.vid import VID
from kdfast.distill.match import Match
from kdfast.distill.tasks import NUMBERS, Task, label_kd_loss

# What the methods promise


@pytest.mark.parametrize(
    'loss,x', [(loss, S) for loss in OF_LOGITS] + [(loss, GUIDED) for loss in OF_MAPS + OF_EQUAL_SHAPES]
)
def test_equals_cost_nothing(loss, x):
    assert loss(x, x.clone()).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('loss,student,teacher', ALL)
def test_a_step_down_the_gradient_costs_less(loss, student, teacher):
    value, gradient = value_and_gradient(lambda s: loss(s, teacher), student)
    assert value > 0 and loss(student - 0.01 * gradient / gradient.norm(), teacher) < value


@pytest.mark.parametrize('loss,student,teacher', ALL)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss, student, teacher, dtype):
    student, teacher = student.to(dtype), teacher.to(dtype)
    value = loss(student, teacher)
    assert value.dtype == torch.float32 and torch.isfinite(value) and value == loss(student.float(), teacher.float())


@pytest.mark.parametrize('loss,student,teacher', ALL)
def test_autocast_changes_nothing(loss, student, teacher):
    with torch.autocast('cpu', torch.bfloat16):
        value = loss(student, teacher)
    assert value == loss(student, teacher)


@pytest.mark.parametrize('loss', OF_MAPS)
def test_a_student_that_sees_nothing_has_a_finite_loss_and_gradient(loss):
    guided = GUIDED.clone()
    guided[:3] = 0  # as behind a ReLU that is shut
    for some in (guided, torch.zeros_like(guided)):
        value, gradient = value_and_gradient(lambda s: loss(s, HINT), some)
        assert torch.isfinite(value) and gradient.isfinite().all() and gradient.norm() < 1e3


def scale(x):
    return x * torch.linspace(0.5, 2, len(x))[:, None, None, None]


def turn(x):
    return torch.cat([0.6 * x[:, :1] + 0.8 * x[:, 1:2], 0.8 * x[:, :1] - 0.6 * x[:, 1:2], x[:, 2:]], 1)


@pytest.mark.parametrize(
    'loss,change',
    [
        (at_loss, lambda x: x[:, [2, 0, 1]]),
        (at_loss, scale),
        (at_loss, turn),
        (sp_loss, lambda x: 3 * x),
        (sp_loss, turn),
        (rkd_loss, lambda x: 3 * x),
        (rkd_loss, lambda x: x + 5),
        (rkd_loss, turn),
        (pkt_loss, scale),
        (pkt_loss, turn),
    ],
    ids=[
        'attention-order-of-channels',
        'attention-scale-of-an-image',
        'attention-rotation',
        'similarity-scale',
        'similarity-rotation',
        'relations-scale',
        'relations-shift',
        'relations-rotation',
        'neighbors-scale-of-an-image',
        'neighbors-rotation',
    ],
)
def test_what_the_method_does_not_see_costs_nothing(loss, change):
    assert loss(change(GUIDED), GUIDED).item() == pytest.approx(0, abs=1e-5)
    assert loss(change(GUIDED), HINT).item() == pytest.approx(loss(GUIDED, HINT).item(), rel=1e-4)


@pytest.mark.parametrize('a', [0.9, 0.1])
def test_probabilities_that_are_linear_in_the_teachers_cost_nothing(a):
    "Pearson's correlation asks no more than a·p + b, a > 0; KL would"
    p = H.softmax(1)
    assert dist_loss((a * p + (1 - a) / 10).log(), p.log()).item() == pytest.approx(0, abs=1e-5)
    assert kd_loss((a * p + (1 - a) / 10).log(), p.log(), 1.0) > 1e-4


def test_beta_compares_the_classes_of_an_image_and_gamma_the_images_of_a_class():
    "A slope for each image is free to the one, a shift for each class to the other"
    p = torch.rand(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / 10 + 1 / 6
    p = p / p.sum(1, keepdim=True)
    flat = torch.linspace(0.2, 0.9, 4)[:, None] * (p - 1 / 3) + 1 / 3  # each image its own slope
    assert (
        dist_loss(flat.log(), p.log(), gamma=0.0) == pytest.approx(0, abs=1e-9)
        and dist_loss(flat.log(), p.log(), beta=0.0) > 1e-3
    )
    moved = p + tensor([0.05, -0.05, 0.0])  # each class its own shift
    assert (
        dist_loss(moved.log(), p.log(), beta=0.0) == pytest.approx(0, abs=1e-9)
        and dist_loss(moved.log(), p.log(), gamma=0.0) > 1e-3
    )


def test_the_target_does_not_matter_among_the_others():
    student = S.clone()
    student[range(6), Y] += 100
    assert dkd_loss(student, H, Y, alpha=0.0).item() == pytest.approx(dkd_loss(S, H, Y, alpha=0.0).item(), rel=1e-6)
    assert dkd_loss(student, H, Y, beta=0.0) > dkd_loss(S, H, Y, beta=0.0) + 1


def test_standardized_logits_have_mean_0_and_deviation_1_whatever_their_shift_and_scale():
    z = standardize(S)
    torch.testing.assert_close(z.mean(1), torch.zeros(6), rtol=0, atol=1e-6)
    torch.testing.assert_close(z.std(1), torch.ones(6))
    torch.testing.assert_close(standardize(7 * S + torch.arange(6.0)[:, None]), z, rtol=1e-4, atol=1e-5)
    assert ls_kd_loss(7 * S - 3, S).item() == pytest.approx(0, abs=1e-6)


def test_equal_logits_of_all_classes_standardize_to_0_and_so_does_their_gradient():
    value, gradient = value_and_gradient(lambda s: ls_kd_loss(s, H), torch.ones(6, 10))
    assert torch.isfinite(value) and gradient.isfinite().all() and (standardize(torch.ones(6, 10)) == 0).all()


@pytest.mark.parametrize('loss', [kd_loss, dist_loss, ls_kd_loss, lambda s, t, T: dkd_loss(s, t, Y, T)])
@pytest.mark.parametrize('T', [0.5, 1.0, 4.0, 100.0, 1e4])
@pytest.mark.parametrize('shift', [0.0, 3.3])
@pytest.mark.parametrize('deviation', [0.0, 1e-38, 1e-12, 1e-7, 1e-5, 1e-3, 1e-2])
def test_logits_that_are_nearly_equal_have_a_gradient_of_sane_size(loss, T, shift, deviation):
    "A classifier that begins at zero: rounding errors, divided by themselves, had a gradient of 1e7"
    value, gradient = value_and_gradient(lambda s: loss(s, H, T), shift + deviation * S)
    assert value.isfinite() and gradient.isfinite().all() and gradient.norm() < 100 * max(T, 1)


def test_what_is_constant_does_not_correlate():
    for constant in (torch.zeros(6, 10), torch.full((6, 10), 0.7), torch.arange(6.0)[:, None].expand(6, 10)):
        assert dist_loss(constant, H, gamma=0.0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize('loss', [dist_loss, ls_kd_loss])
@pytest.mark.parametrize('classes', [3, 10])
def test_a_classifier_that_begins_at_zero_is_trained(loss, classes):
    torch.manual_seed(1)
    teacher, student, losses = net(8, classes), net(4, classes), []
    teacher[-1].weight.data *= 20
    nn.init.zeros_(student[-1].weight)
    nn.init.zeros_(student[-1].bias)
    look = Look(lambda learn: losses.append(learn.match.parts['fit'].item()))
    learner(student, opt_func=SGD).fit(8, 0.01, cbs=[Match(teacher, loss, 2.0), look])
    assert losses[-1] < losses[0] / 2
    assert all(p.isfinite().all() and p.abs().max() < 5 for p in student.parameters())


def test_attention_without_positions_is_refused():
    with pytest.raises(KdfastError, match=r'\(6, 10\) of the student and \(6, 4, 5, 5\) of the teacher'):
        at_loss(S, HINT)


@pytest.mark.parametrize('ignored', [-100, -1, 10, 255])
def test_images_whose_label_is_no_class_are_left_out_of_the_decoupled_loss(ignored):
    student, teacher, y = S.clone(), H.clone(), Y.clone()
    student[1], teacher[1] = S[1], -torch.inf  # whatever the networks say of such images
    y[[1, 4]] = ignored
    rest = [0, 2, 3, 5]
    value, gradient = value_and_gradient(lambda s: dkd_loss(s, teacher, y), student)
    expected, slope = value_and_gradient(lambda s: dkd_loss(s, H[rest], Y[rest]), S[rest])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[rest], slope)
    assert (gradient[[1, 4]] == 0).all()
    value, gradient = value_and_gradient(lambda s: dkd_loss(s, H, torch.full_like(Y, ignored)), S)
    assert value == 0 and (gradient == 0).all()


# Masked classes

MASKS = dict(infinity=-torch.inf, lowest=torch.finfo(torch.float32).min)


def masked(x, mask, columns):
    return torch.cat([x, torch.full((len(x), columns), mask)], 1)[
        :, [*range(5), *range(10, 10 + columns), *range(5, 10)]
    ]


@pytest.mark.parametrize('loss', [kd_loss, lambda s, t, T: dkd_loss(s, t, Y % 5, T), ls_kd_loss])
@pytest.mark.parametrize('mask', MASKS.values(), ids=MASKS)
@pytest.mark.parametrize('columns', [1, 3])
@pytest.mark.parametrize('T', [0.5, 4.0, 100.0])
def test_classes_that_both_networks_mask_do_not_count(loss, mask, columns, T):
    value, gradient = value_and_gradient(lambda s: loss(s, masked(H, mask, columns), T), masked(S, mask, columns))
    expected, slope = value_and_gradient(lambda s: loss(s, H, T), S)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, masked(slope, 0.0, columns))


@pytest.mark.parametrize('mask', MASKS.values(), ids=MASKS)
@pytest.mark.parametrize('T', [0.5, 4.0, 100.0])
def test_labels_that_both_networks_mask_are_agreed_upon(mask, T):
    value, gradient = value_and_gradient(lambda s: label_kd_loss(s, masked(H, mask, 2), T), masked(S, mask, 2))
    expected, slope = value_and_gradient(lambda s: label_kd_loss(s, H, T) * 10 / 12, S)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, masked(slope, 0.0, 2))


@pytest.mark.parametrize('loss', [kd_loss, lambda s, t: dkd_loss(s, t, Y), ls_kd_loss, label_kd_loss])
def test_a_class_that_the_teacher_masks_has_probability_0_and_one_that_the_student_masks_costs_infinity(loss):
    teacher, student = H.clone(), S.clone()
    teacher[:, 7] = student[:, 7] = -torch.inf
    value, gradient = value_and_gradient(lambda s: loss(s, teacher), S)
    assert value.isfinite() and gradient.isfinite().all() and (gradient[:, 7] > 0).all()
    assert not loss(student, H).isfinite()


# Shapes


def smaller(x, dim):
    return x.narrow(dim, 0, 1)


@pytest.mark.parametrize(
    'loss,teacher',
    [(loss, H) for loss in (*OF_LOGITS[:1], *OF_LOGITS[2:], lambda s, t: dkd_loss(s, t, Y[: len(s)]), label_kd_loss)]
    + [(loss, HINT) for loss in (hint_loss, hcl_loss, feature_loss, Regressed(nn.Identity()))]
    + [(Task(NUMBERS).soft_loss, H)],
)
@pytest.mark.parametrize('who', ['student', 'teacher'])
def test_unequal_shapes_are_refused_not_broadcast(loss, teacher, who):
    "PyTorch would repeat one channel, one position or one image"
    args = (1.0,) if getattr(loss, '__name__', '') == 'soft_loss' else ()
    for dim in range(teacher.dim()):
        other = smaller(teacher, dim)
        pair = (other, teacher) if who == 'student' else (teacher, other)
        shapes = ['×'.join(map(str, x.shape)) for x in pair]
        with pytest.raises(KdfastError, match=f'found {shapes[0]} of the student and {shapes[1]} of the teacher'):
            loss(*pair, *args)


@pytest.mark.parametrize('loss', [*OF_MAPS, VID(3, 4)])
@pytest.mark.parametrize('guided,hint', [(1, 6), (6, 1)])
def test_features_of_other_images_are_refused_not_broadcast(loss, guided, hint):
    with pytest.raises(KdfastError, match='of the same images, found [16]×3×5×5 of the student and [16]×4×5×5 of the'):
        loss(GUIDED[:guided], HINT[:hint])
