"""Train a loss that has parameters together with the student."""

from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy

from fastai.basics import Learner, norm_bias_params
from torch import nn


def evaluation_copy(
    loss: nn.Module,  # The loss in training
) -> Callable | None:
    "Return a copy in evaluation mode, or None if the loss cannot be copied."
    try:
        return deepcopy(loss).eval()
    except Exception:  # any error of a user's module; the fit continues without a validation value
        return None


@contextmanager
def trained_with_model(
    loss: nn.Module,  # With or without parameters
    learn: Learner,  # During a fit
):
    """Add the parameters of a loss to the optimizer's last parameter group, and remove them afterwards.

    Norm layers and biases are trained without weight decay, unless the Learner applies it to those of the model
    (`wd_bn_bias`).
    """
    opt = learn.opt
    known = {id(p) for p, *_ in opt.all_params()}
    added = [p for p in loss.parameters() if p.requires_grad and id(p) not in known]
    without_decay = {id(p) for p in norm_bias_params(loss)} if not learn.wd_bn_bias else {}
    opt.param_lists[-1].extend(added)
    for p in added:
        opt.state[p] = dict(do_wd=False) if id(p) in without_decay else {}
    try:
        yield
    finally:
        remove_parameters(opt, added)


def remove_parameters(
    opt,  # Optimizer of a Learner
    parameters: list,  # That were added to it
):
    "Remove parameters, their state and their gradients from an optimizer."
    ids = {id(p) for p in parameters}
    for params in opt.param_lists:
        params[:] = [p for p in params if id(p) not in ids]
    inner_state = getattr(getattr(opt, 'opt', None), 'state', {})  # of the PyTorch optimizer in OptimWrapper
    for state in (opt.state, inner_state):
        for p in parameters:
            state.pop(p, None)
    for p in parameters:
        p.grad = None
