import pytest
import torch
from kdfast.losses import hint_loss, kd_loss
from torch import tensor

S,H = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)),torch.randn(6, 10, generator=torch.Generator().manual_seed(1))


def test_soft_loss_by_hand():
    "Two classes, T=2: p = softmax(2, 0)/… written out with exponentials"
    from math import exp, log
    p = exp(1)/(exp(1) + 1)         # teacher's logits 2, 0 at T=2
    q = exp(.5)/(exp(.5) + 1)       # student's logits 1, 0 at T=2
    by_hand = 4 * (p*log(p/q) + (1-p)*log((1-p)/(1-q)))
    assert kd_loss(tensor([[1., 0.]]), tensor([[2., 0.]]), T=2.).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize('T', [1., 4., 20.])
def test_soft_loss_is_the_written_formula_and_its_mean_is_over_the_batch(T):
    p,q = (H.double()/T).softmax(1),(S.double()/T).softmax(1)
    formula = T**2 * (p * (p/q).log()).sum() / len(S)
    torch.testing.assert_close(kd_loss(S, H, T).double(), formula, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('T', [1., 3., 8.])
def test_soft_gradient_carries_T_squared(T):
    "d/dz of KL at temperature T is (q−p)/T; times T² it is T·(q−p)"
    s = S.clone().requires_grad_()
    kd_loss(s, H, T).backward()
    torch.testing.assert_close(s.grad, T*((S/T).softmax(1) - (H/T).softmax(1))/len(S), rtol=1e-4, atol=1e-7)


def test_equal_logits_cost_nothing(): assert kd_loss(S, S.clone(), 4.).item() == 0


def test_half_precision_logits_stay_finite():
    assert torch.isfinite(kd_loss(tensor([[60000., 0.]]).half(), tensor([[0., 60000.]]).half(), 1.))


def test_fit_loss_is_half_the_mean_square():
    assert hint_loss(tensor([[1., 2.]]), tensor([[3., 5.]])).item() == pytest.approx((4 + 9)/2/2)
