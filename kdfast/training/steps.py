"""Steps of fastai's SGD, of Muon and of AdamW for all weights at once; fastai updates one weight after the other.

The results are the same bits. The optimizer remains fastai's, with its hyperparameters, state and checkpoints. Any
other optimizer uses its own step.
"""

from collections import defaultdict

import torch
from fastai.optimizer import (
    Optimizer,
    average_grad,
    average_sqr_grad,
    debias,
    momentum_step,
    step_stat,
    weight_decay,
)

from kdfast.training.optimizers.adamw import SHARE as ADAMW_SHARE
from kdfast.training.optimizers.adamw import adamw_step, damped_average
from kdfast.training.optimizers.muon import SHARE, is_matrix, muon_step, orthogonal


def step(
    opt,  # A Learner's optimizer, of any kind
):
    "Do what `opt.step()` does."
    if not is_supported(opt):
        return opt.step()
    _, move = KNOWN[opt.cbs[-1]]
    for params, hyper in zip(opt.param_lists, opt.hypers):
        step_together(opt, params, move, **hyper)


def zero_grad(
    opt,  # A Learner's optimizer, of any kind
):
    "Do what `opt.zero_grad()` does."
    if type(opt) is not Optimizer or 'zero_grad' in vars(opt):
        return opt.zero_grad()
    gradients = [p.grad for params in opt.param_lists for p in params if p.grad is not None]
    for gradient in gradients:
        if gradient.requires_grad:
            gradient.detach_()
    if gradients:
        torch._foreach_zero_(gradients)


def is_supported(
    opt,  # A Learner's optimizer
):
    "Return whether the optimizer is fastai's SGD, Muon or AdamW, with nothing added and no weight twice."
    if type(opt) is not Optimizer or 'step' in vars(opt) or not opt.cbs:
        return False
    cbs, move = KNOWN.get(opt.cbs[-1], (None, None))
    if list(opt.cbs) != cbs:
        return False
    hypers = {'lr', 'wd', 'mom', *(('sqr_mom', 'eps') if move is move_adamw else ())}
    params = [p for params in opt.param_lists for p in params]
    return (
        len({*map(id, params)}) == len(params)
        and all(hyper.keys() == hypers for hyper in opt.hypers)
        and all(p.grad is None or p.grad.layout is torch.strided for p in params)
    )


def step_together(
    opt,  # SGD, Muon or AdamW
    params,  # Of one list of the optimizer
    move,  # `move_sgd`, `move_muon` or `move_adamw`
    lr: float,  # Learning rate
    wd: float,  # Weight decay
    mom: float,  # Momentum
    **more,  # Further hyperparameters, for `move`
):
    "Update one list of parameters: decay, average the gradients, move."
    states = [opt.state[p] for p in params]  # of all of them, as fastai makes them
    states = [state for p, state in zip(params, states) if p.grad is not None]
    params = [p for p in params if p.grad is not None]
    if not params:
        return
    gradients = [p.grad.data for p in params]
    for state, gradient in zip(states, gradients):
        if state.get('grad_avg') is None:
            state['grad_avg'] = torch.zeros_like(gradient)
    averages, decayed = (
        [state['grad_avg'] for state in states],
        [p.data for p, state in zip(params, states) if state.get('do_wd', True)],
    )
    if wd != 0 and decayed:
        torch._foreach_mul_(decayed, 1 - lr * wd)
    torch._foreach_mul_(averages, mom)
    torch._foreach_add_(averages, gradients, alpha=1 - mom if move is move_adamw else 1)
    move(params, averages, lr, mom, states, **more)


def move_sgd(
    params,  # With a gradient
    averages,  # Moving averages of their gradients
    lr: float,  # Learning rate
    mom: float,  # Momentum, not used
    states=(),  # Of the optimizer, not used
):
    "Do SGD's step."
    if params:
        torch._foreach_add_([p.data for p in params], averages, alpha=-lr)


def move_muon(
    params,  # With a gradient
    averages,  # Moving averages of their gradients
    lr: float,  # Learning rate
    mom: float,  # Momentum
    states=(),  # Of the optimizer, not used
):
    "Do Muon's step."
    matrices, others = [
        [(p, average) for p, average in zip(params, averages) if is_matrix(p) == wanted] for wanted in (True, False)
    ]
    move_sgd([p for p, _ in others], [average for _, average in others], lr, mom)
    if not all(p.is_cuda for p, _ in matrices):  # on a CPU, which waits for products and not for calls, one by one
        for p, average in matrices:
            muon_step(p, lr, mom, average)
    else:
        move_together(matrices, lr, mom)


def move_together(
    matrices,  # (weight, moving average of its gradients) of each
    lr: float,  # Learning rate
    mom: float,  # Momentum
):
    "Update convolutions: those of the same shape as one batch of matrices."
    alike = defaultdict(list)
    for p, average in matrices:
        alike[p.flatten(1).shape, p.dtype, p.device].append((p, (p.grad.data + mom * average).flatten(1)))
    for ((rows, columns), *_), group in alike.items():
        params, ahead = zip(*group)
        steps = orthogonal(torch.stack(ahead)).unbind()
        torch._foreach_add_(
            [p.data for p in params],
            [s.view_as(p) for s, p in zip(steps, params)],
            alpha=-lr * SHARE * max(1, rows / columns) ** 0.5,
        )


def move_adamw(
    params,  # With a gradient
    averages,  # Moving averages of their gradients
    lr: float,  # Learning rate
    mom: float,  # Momentum
    states,  # Of the optimizer, one for each parameter
    sqr_mom: float,  # Momentum of the squared gradients
    eps: float,  # Added to their root
):
    "Do AdamW's step; a weight may have joined later than others."
    gradients = [p.grad.data for p in params]
    for state, gradient in zip(states, gradients):
        if state.get('sqr_avg') is None:
            state['sqr_avg'] = torch.zeros_like(gradient)
        state['step'] = state.get('step', 0) + 1
    squares = [state['sqr_avg'] for state in states]
    torch._foreach_mul_(squares, sqr_mom)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - sqr_mom)
    scales = torch._foreach_div(squares, [debias(sqr_mom, 1 - sqr_mom, state['step']) for state in states])
    torch._foreach_sqrt_(scales)
    torch._foreach_add_(scales, eps)
    rates = [-(ADAMW_SHARE * lr) / debias(mom, 1 - mom, state['step']) for state in states]
    torch._foreach_addcdiv_([p.data for p in params], averages, scales, rates)


KNOWN = {  # by the last callback of an optimizer: all of them, and what moves the weights
    momentum_step: ([weight_decay, average_grad, momentum_step], move_sgd),
    muon_step: ([weight_decay, average_grad, muon_step], move_muon),
    adamw_step: ([weight_decay, damped_average, average_sqr_grad, step_stat, adamw_step], move_adamw),
}
