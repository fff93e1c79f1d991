from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import tensor
from torchdistill.losses.mid_level import (
    ATLoss,
    DISTLoss,
    HierarchicalContextLoss,
    KDLoss,
    LogitStdKDLoss,
    PKTLoss,
    RKDLoss,
    SimpleLossWrapper,
)

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.features import at_loss, hcl_loss, hint_loss, pkt_loss, rkd_loss, sp_loss
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss, standardize

S, H = (
    torch.randn(6, 10, generator=torch.Generator().manual_seed(0)),
    torch.randn(6, 10, generator=torch.Generator().manual_seed(1)),
)
Y = tensor([0, 3, 9, 3, 5, 1])
GUIDED, HINT = (
    torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(2)),
    torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(3)),
)
OF_LOGITS = kd_loss, lambda s, t: dkd_loss(s, t, Y), dist_loss, ls_kd_loss
OF_MAPS = at_loss, sp_loss, rkd_loss, pkt_loss
OF_EQUAL_SHAPES = hint_loss, hcl_loss
ALL = (
    [(loss, S, H) for loss in OF_LOGITS]
    + [(loss, GUIDED, HINT) for loss in OF_MAPS]
    + [(loss, HINT, HINT.flip(0)) for loss in OF_EQUAL_SHAPES]
)
PEERS = np.load(Path(__file__).with_name('peers.npz'))


def value_and_gradient(loss, student):
    student = student.clone().requires_grad_()
    value = loss(student)
    value.backward()
    return value.detach(), student.grad


def agree(ours, theirs, student):
    "Value and gradient are theirs, computed in float64"
    for found, expected in zip(value_and_gradient(ours, student), value_and_gradient(theirs, student.double())):
        close(found, expected)


def close(found, expected):
    "The same but for a hundred-thousandth"
    assert (found.double() - expected).norm() <= 1e-5 * expected.norm()


def io(**features):
    "The dictionary in which torchdistill passes a network's features"
    return {path: dict(input=x, output=x) for path, x in features.items()}


def peer(name):
    "Tensors of peers.npz"
    return [torch.from_numpy(PEERS[f'{name}.{key}']) for key in ('value', 'gradient')]


# Against the code of others


@pytest.mark.parametrize('T', [1.0, 4.0])
def test_soft_loss_is_torchdistills_times_T_squared(T):
    theirs = KDLoss('z', 'output', 'z', 'output', temperature=T, alpha=0)
    agree(lambda s: kd_loss(s, H, T), lambda s: T**2 * theirs(io(z=s), io(z=H.double())), S)


def test_fit_loss_is_half_torchdistills_mean_square():
    theirs = SimpleLossWrapper(
        torch.nn.MSELoss(),
        input=dict(is_from_teacher=False, module_path='x', io='output'),
        target=dict(is_from_teacher=True, module_path='x', io='output'),
    )
    agree(lambda s: hint_loss(s, H), lambda s: theirs(io(x=s), io(x=H.double()), None) / 2, S)


@pytest.mark.parametrize('T,alpha,beta', [(4.0, 1.0, 8.0), (1.0, 2.0, 0.5)])
def test_decoupled_loss_is_mdistillers(T, alpha, beta):
    """megvii-research/mdistiller at a08d46f, mdistiller/distillers/DKD.py, dkd_loss.

    Value and gradient in float64 for these
    logits (seeded, standard deviation 3) and labels, once, on a CPU; stored with what went in"""
    student, teacher, y = (torch.from_numpy(PEERS[f'dkd.{name}']) for name in ('student', 'teacher', 'y'))
    for found, expected in zip(
        value_and_gradient(lambda s: dkd_loss(s, teacher, y, T, alpha, beta), student),
        peer(f'dkd_{T:g}_{alpha:g}_{beta:g}'),
    ):
        close(found, expected)


@pytest.mark.parametrize('T', [1.0, 2.0])
def test_relations_of_probabilities_are_torchdistills_over_T_squared(T):
    theirs = DISTLoss('z', 'output', 'z', 'output', beta=2.0, gamma=0.5, tau=T)
    agree(lambda s: dist_loss(s, H, T, beta=2.0, gamma=0.5), lambda s: theirs(io(z=s), io(z=H.double())) / T**2, S)


@pytest.mark.parametrize('T', [1.0, 2.0])
def test_standardized_soft_loss_is_torchdistills_times_T_squared(T):
    theirs = LogitStdKDLoss('z', 'output', 'z', 'output', temperature=T, alpha=0)
    agree(lambda s: ls_kd_loss(s, H, T), lambda s: T**2 * theirs(io(z=s), io(z=H.double())), S)


def test_attention_transfer_is_torchdistills():
    theirs = ATLoss(
        dict(one=dict(teacher=dict(io='output', path='x'), student=dict(io='output', path='x'))), mode='code'
    )
    agree(lambda s: at_loss(s, HINT), lambda s: theirs(io(x=s), io(x=HINT.double())), GUIDED)


@pytest.mark.parametrize('name,loss', [('at_larger', at_loss), ('at_smaller', at_loss), ('sp', sp_loss)])
def test_attention_of_unequal_sizes_and_similarity_are_mdistillers(name, loss):
    """megvii-research/mdistiller at a08d46f, mdistiller/distillers/AT.py, single_stage_at_loss with p = 2, and SP.py,
    similarity_loss: values and gradients in float64 for these features (seeded), on a CPU; stored with the inputs"""
    guided, hint = (torch.from_numpy(PEERS[f'{name}.{who}']) for who in ('guided', 'hint'))
    for found, expected in zip(value_and_gradient(lambda s: loss(s, hint), guided), peer(name)):
        close(found, expected)


@pytest.mark.parametrize('distance,angle', [(25.0, 50.0), (1.0, 0.0), (0.0, 1.0)])
def test_relations_of_images_are_torchdistills(distance, angle):
    theirs = RKDLoss('x', 'x', distance, angle, reduction='mean')
    agree(lambda s: rkd_loss(s, HINT, distance, angle), lambda s: theirs(io(x=s), io(x=HINT.double())), GUIDED)


def test_neighbors_are_torchdistills():
    theirs = PKTLoss('x', 'output', 'x', 'output')
    agree(lambda s: pkt_loss(s, H), lambda s: theirs(io(x=s), io(x=H.double())), S)


@pytest.mark.parametrize('side', [8, 4, 1])
def test_hierarchical_context_is_torchdistills(side):
    student, teacher = torch.randn(2, 3, 3, side, side, generator=torch.Generator().manual_seed(4))
    theirs = HierarchicalContextLoss('x', 'output', 'x', 'output')
    agree(lambda s: hcl_loss(s, teacher), lambda s: theirs(io(x=(s, None)), io(x=teacher.double())), student)


# By hand


def test_soft_loss_by_hand():
    "Two classes, T=2: p = softmax(2, 0)/… written out with exponentials"
    p = exp(1) / (exp(1) + 1)  # teacher's logits 2, 0 at T=2
    q = exp(0.5) / (exp(0.5) + 1)  # student's logits 1, 0 at T=2
    by_hand = 4 * (p * log(p / q) + (1 - p) * log((1 - p) / (1 - q)))
    assert kd_loss(tensor([[1.0, 0.0]]), tensor([[2.0, 0.0]]), T=2.0).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize('T', [1.0, 4.0, 20.0])
def test_soft_loss_is_the_written_formula_and_its_mean_is_over_the_batch(T):
    p, q = (H.double() / T).softmax(1), (S.double() / T).softmax(1)
    formula = T**2 * (p * (p / q).log()).sum() / len(S)
    torch.testing.assert_close(kd_loss(S, H, T).double(), formula, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('T', [1.0, 3.0, 8.0])
def test_soft_gradient_carries_T_squared(T):
    "d/dz of KL at temperature T is (q−p)/T; times T² it is T·(q−p)"
    s = S.clone().requires_grad_()
    kd_loss(s, H, T).backward()
    torch.testing.assert_close(s.grad, T * ((S / T).softmax(1) - (H / T).softmax(1)) / len(S), rtol=1e-4, atol=1e-7)


def test_equal_logits_cost_nothing():
    assert kd_loss(S, S.clone(), 4.0).item() == 0


def test_half_precision_logits_stay_finite():
    assert torch.isfinite(kd_loss(tensor([[60000.0, 0.0]]).half(), tensor([[0.0, 60000.0]]).half(), 1.0))


def test_fit_loss_is_half_the_mean_square():
    assert hint_loss(tensor([[1.0, 2.0]]), tensor([[3.0, 5.0]])).item() == pytest.approx((4 + 9) / 2 / 2)


def test_the_soft_loss_of_an_image_decouples_as_the_paper_proves():
    "Equation 6 of Zhao et al.: KD = TCKD + (1 − the teacher's p of the target) · NCKD"
    for s, h, y in zip(S, H, Y):
        p = (h / 4).softmax(0)[y].item()
        assert dkd_loss(s[None], h[None], y[None], T=4.0, alpha=1.0, beta=1 - p).item() == pytest.approx(
            kd_loss(s[None], h[None], 4.0).item(), rel=1e-4
        )


def test_attention_by_hand():
    "Two positions with attention 9, 16 and 1, 0: half of (9/√337 − 1)² + (16/√337)²"
    guided, hint = tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]]), tensor([[[[1.0, 0.0]]]])
    assert at_loss(guided, hint).item() == pytest.approx(
        ((9 / sqrt(337) - 1) ** 2 + (16 / sqrt(337)) ** 2) / 2, rel=1e-6
    )


def test_similarity_by_hand():
    "Orthogonal images against equal ones: the rows 1, 0 and 0, 1 against 1/√2, 1/√2"
    assert sp_loss(tensor([[2.0, 0.0], [0.0, 3.0]]), tensor([[1.0], [1.0]])).item() == pytest.approx(
        (2 * (1 - sqrt(0.5)) ** 2 + 2 * 0.5) / 4, rel=1e-6
    )


def huber(d):
    return d**2 / 2 if abs(d) < 1 else abs(d) - 1 / 2


def test_distances_by_hand():
    "Sides 3, 4, 5 have mean 4, sides 1, 1, 2 have 4/3: ¾ is 1 less ¼, 5/4 against 3/2; six of nine pairs count"
    triangle, line = tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]), tensor([[0.0], [1.0], [-1.0]])
    assert rkd_loss(line, triangle, 1.0, 0.0).item() == pytest.approx(
        2 * (huber(3 / 4 - 3 / 4) + huber(3 / 4 - 1) + huber(6 / 4 - 5 / 4)) / 9, rel=1e-5
    )


def test_angles_by_hand():
    "The cosines at the corners of 3, 4, 5 are 0, 3/5 and 4/5, on a line −1, 1 and 1; each counts twice in 27 triples"
    triangle, line = tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]), tensor([[0.0], [1.0], [-1.0]])
    assert rkd_loss(line, triangle, 0.0, 1.0).item() == pytest.approx(
        2 * (huber(-1 - 0) + huber(1 - 3 / 5) + huber(1 - 4 / 5)) / 27, rel=1e-5
    )


def test_neighbors_by_hand():
    "Orthogonal images: rows 1, ½ over 3/2; equal images: rows ½, ½"
    by_hand = ((log(0.5 / (2 / 3)) + log(0.5 / (1 / 3))) * 0.5 * 2) / 4
    assert pkt_loss(tensor([[1.0, 0.0], [0.0, 5.0]]), tensor([[1.0], [1.0]])).item() == pytest.approx(by_hand, rel=1e-5)


def test_hierarchical_context_by_hand():
    "A 2×2 map that differs by 1, 1, 1, −1: mean square 1, mean ½ squared with half the weight, by the weights' sum"
    assert hcl_loss(tensor([[[[1.0, 1.0], [1.0, -1.0]]]]), torch.zeros(1, 1, 2, 2)).item() == pytest.approx(
        (1 + 0.5 * 0.25) / 1.5
    )


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


def test_attention_without_positions_is_refused():
    with pytest.raises(KdfastError, match=r'\(6, 10\) of the student and \(6, 4, 5, 5\) of the teacher'):
        at_loss(S, HINT)
