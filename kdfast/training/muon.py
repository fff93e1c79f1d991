"Muon, an optimizer for few epochs: the steps of convolutions are orthogonal matrices (https://kellerjordan.github.io/posts/muon/)."

import torch
from fastai.optimizer import Optimizer, average_grad, weight_decay

ROUNDS = 5  # of the Newton-Schulz iteration
QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # and its polynomial, as steep at zero as it can be and still bring all singular values near 1
SHARE = 0.1  # of the learning rate for orthogonal steps, so that one rate serves them and the steps of SGD beside them


def orthogonal(
    matrix: torch.Tensor,  # (rows, columns), or a batch of such
) -> torch.Tensor:  # The same shape
    """Nearly U·Vᵀ of the matrix U·S·Vᵀ: its directions, with singular values of about 0.7 to 1.2 in place of its own.

    Those below a thousandth of the matrix's norm remain smaller; a matrix of zeros is left as it is.
    """
    (a, b, c), (rows, columns), one = QUINTIC, matrix.shape[-2:], matrix.dim() == 2
    if rows > columns:
        return orthogonal(matrix.mT).mT  # the smaller square is the cheaper
    x = matrix / ((matrix.norm() if one else matrix.norm(dim=(1, 2), keepdim=True)) + 1e-7)
    square, factor, add = x @ x.mT, None, torch.addmm if one else torch.baddbmm
    for left in reversed(
        range(ROUNDS)
    ):  # of x ← (a + b·xxᵀ + c·(xxᵀ)²)·x all but the last product: what stands before x, and xxᵀ, commute
        step = add(square, square, square, beta=b, alpha=c)
        step.diagonal(dim1=-2, dim2=-1).add_(a)
        factor = step if factor is None else step @ factor
        if left:
            square = step @ square @ step
    return factor @ x


def is_matrix(p):
    "Whether it is the filters of a convolution that share their input"
    return p.ndim >= 4 and p.shape[1] != 1


def muon_step(p, lr, mom, grad_avg, **kwargs):
    "SGD's step; that of a convolution along Nesterov's momentum, as an orthogonal matrix of (channels out, all that one of them sees)"
    if not is_matrix(p):
        return p.data.add_(grad_avg, alpha=-lr)
    ahead = (p.grad.data + mom * grad_avg).flatten(1)
    rows, columns = ahead.shape
    p.data.add_(orthogonal(ahead).view_as(p), alpha=-lr * SHARE * max(1, rows / columns) ** 0.5)


def Muon(
    params,  # Lists of parameters, as fastai's optimizers take them
    lr: float,  # Learning rate; convolutions take a tenth of it
    mom: float = 0.9,  # Momentum
    wd: float = 0.0,  # Weight decay, decoupled: multiplied by the learning rate
) -> Optimizer:
    """A fastai optimizer: Muon for convolutions, SGD with momentum for all other weights.

    Depthwise convolutions, whose filters share no input, are among the others. Convolutions take a tenth of the learning rate for
    their step, but all of it for their decay: `wd` decays them ten times as much, next to the step, as the same number
    does in the reference implementation and in torch.optim.Muon.
    """
    return Optimizer(params, [weight_decay, average_grad, muon_step], lr=lr, mom=mom, wd=wd)
