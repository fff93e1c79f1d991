"Losses have the values and gradients of other implementations, and values computed by hand."

from math import exp, log, sqrt

import pytest
import torch
from loss_tensors import GUIDED, HINT, PEERS, H, S, Y, agree, close, io, peer, value_and_gradient
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
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss

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


@pytest.mark.parametrize(
    'y',
    [
        torch.eye(4)[:3],  # one-hot
        torch.eye(4, dtype=torch.long)[:3],
        torch.tensor([0.0, 1.0, 2.0]),
        torch.tensor([[0], [1], [2]]),
        torch.tensor([0, 1]),
        torch.tensor(1),
    ],
    ids=['one-hot', 'one-hot integers', 'floats', 'column', 'too few', 'one'],
)
def test_dkd_refuses_labels_that_are_no_classes(y):
    logits = torch.randn(3, 4)
    with pytest.raises(KdfastError, match=r'integers of shape \(3,\); found labels of'):
        dkd_loss(logits, logits, y)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8, torch.int32, torch.long])
def test_dkd_takes_integers_of_any_size(dtype):
    student, teacher, y = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 3, 1])
    assert torch.equal(dkd_loss(student, teacher, y.to(dtype)), dkd_loss(student, teacher, y))
