"""AdamW: Adam with decoupled weight decay (https://arxiv.org/abs/1711.05101)."""

from functools import partial

from fastai.optimizer import Optimizer, adam_step, average_grad, average_sqr_grad, step_stat, weight_decay

__all__ = ['AdamW']

SHARE = 0.01  # of the learning rate for steps, so that the rates that suit SGD suit this, too
damped_average = partial(average_grad, dampening=True)


def adamw_step(
    p,  # Parameter
    lr,  # Learning rate
    **kwargs,  # State and hyperparameters of the optimizer
):
    "Update a parameter as Adam does, with a hundredth of the learning rate."
    adam_step(p, SHARE * lr, **kwargs)


def AdamW(
    params,  # Lists of parameters, as for fastai's optimizers
    lr: float,  # Learning rate; steps use a hundredth of it
    mom: float = 0.9,  # Decay of the mean of the gradients, β1
    sqr_mom: float = 0.99,  # Decay of the mean of the squared gradients, β2
    eps: float = 1e-5,  # Added to the root of the mean of the squares
    wd: float = 0.0,  # Decoupled weight decay: multiplied by the learning rate
) -> Optimizer:
    """Create a fastai optimizer: AdamW with a hundredth of the learning rate for its steps.

    A rate of 0.2 is one of 0.002 elsewhere. The decay uses the full rate, as it does for SGD and Muon: relative to the
    step, `wd` decays a hundred times as much as the same number does in torch.optim.AdamW, 0.005 as 0.5 does there.
    β2 and eps are fastai's.
    """
    steps = [weight_decay, damped_average, average_sqr_grad, step_stat, adamw_step]
    return Optimizer(params, steps, lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)
