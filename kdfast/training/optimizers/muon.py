"""Muon for convolutions, SGD for the rest; needs about half the epochs.

The steps of convolutions are orthogonalized (https://kellerjordan.github.io/posts/muon/).
"""

import torch
from fastai.optimizer import Optimizer, average_grad, weight_decay

__all__ = ['Muon']

ROUNDS = 5  # of the Newton-Schulz iteration
# Coefficients of its polynomial: steepest at zero among those that bring all singular values near 1
QUINTIC = 3.4445, -4.7750, 2.0315
SHARE = (
    0.1  # of the learning rate for orthogonalized steps, so that SGD steps of the other weights can use the same rate
)


def orthogonal(
    matrix: torch.Tensor,  # (rows, columns), or a batch of such
) -> torch.Tensor:  # The same shape
    """Return approximately U·Vᴴ of the matrix U·S·Vᴴ: its singular values become about 0.7 to 1.2.

    Singular values below a thousandth of the matrix's norm remain smaller. A matrix of zeros is returned unchanged.
    """
    a, b, c = QUINTIC
    rows, columns = matrix.shape[-2:]
    if rows > columns:
        return orthogonal(matrix.mH).mH  # the smaller Gram matrix is cheaper
    single = matrix.dim() == 2
    norm, add = (matrix.norm(), torch.addmm) if single else (matrix.norm(dim=(1, 2), keepdim=True), torch.baddbmm)
    x = matrix / (norm + 1e-7)
    square, factor = x @ x.mH, None
    # The iteration x ← (a + b·xxᴴ + c·(xxᴴ)²)·x without its last product: the factors of x commute with xxᴴ
    for left in reversed(range(ROUNDS)):
        step = add(square, square, square, beta=b, alpha=c)
        step.diagonal(dim1=-2, dim2=-1).add_(a)
        factor = step if factor is None else step @ factor
        if left:
            square = step @ square @ step
    return factor @ x


def is_matrix(
    p,  # A weight
):
    "Return whether a parameter is the filters of a convolution that share their input."
    return p.ndim >= 4 and p.shape[1] != 1


def muon_step(
    p,  # A weight with a gradient
    lr,  # Learning rate
    mom,  # Momentum
    grad_avg,  # Moving average of its gradients
    **kwargs,  # Other hyperparameters, not used
):
    """Update a parameter: convolutions by an orthogonalized step, others by SGD's step.

    The orthogonalized direction is Nesterov momentum. The step of a convolution is a matrix of shape (output
    channels, weights per output channel).
    """
    if not is_matrix(p):
        return p.data.add_(grad_avg, alpha=-lr)
    ahead = (p.grad.data + mom * grad_avg).flatten(1)
    rows, columns = ahead.shape
    p.data.add_(orthogonal(ahead).view_as(p), alpha=-lr * SHARE * max(1, rows / columns) ** 0.5)


def Muon(
    params,  # Lists of parameters, as for fastai's optimizers
    lr: float,  # Learning rate; convolutions use a tenth of it
    mom: float = 0.9,  # Momentum
    wd: float = 0.0,  # Decoupled weight decay: multiplied by the learning rate
) -> Optimizer:
    """Create a fastai optimizer: Muon for convolutions, SGD with momentum for all other weights.

    Depthwise convolutions, whose filters share no input, use SGD. Convolutions use a tenth of the learning rate for
    their step, but the full rate for their decay: relative to the step, `wd` decays them ten times as much as the
    same number does in the reference implementation and in torch.optim.Muon.
    """
    return Optimizer(params, [weight_decay, average_grad, muon_step], lr=lr, mom=mom, wd=wd)
