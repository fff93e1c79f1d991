"""Steps of fastai's SGD and of Muon for all weights at once; fastai updates one weight after the other.

The results are the same bits. The optimizer remains fastai's, with its hyperparameters, state and checkpoints. Any
other optimizer uses its own step.
"""

from collections import defaultdict

import torch
from fastai.optimizer import Optimizer, average_grad, momentum_step, weight_decay

from kdfast.training.optimizers.muon import SHARE, is_matrix, muon_step, orthogonal

KNOWN = ([weight_decay, average_grad, momentum_step], [weight_decay, average_grad, muon_step])


def step(
    opt,  # A Learner's optimizer, of any kind
):
    "Do what `opt.step()` does."
    if not is_supported(opt):
        return opt.step()
    move = move_sgd if momentum_step in opt.cbs else move_muon
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
    "Return whether the optimizer is fastai's SGD or Muon, with nothing added and no weight twice."
    if type(opt) is not Optimizer or 'step' in vars(opt) or list(opt.cbs) not in KNOWN:
        return False
    params = [p for params in opt.param_lists for p in params]
    return (
        len({*map(id, params)}) == len(params)
        and all(hyper.keys() == {'lr', 'wd', 'mom'} for hyper in opt.hypers)
        and all(p.grad is None or p.grad.layout is torch.strided for p in params)
    )


def step_together(
    opt,  # SGD or Muon
    params,  # Of one list of the optimizer
    move,  # `move_sgd` or `move_muon`
    lr: float,  # Learning rate
    wd: float,  # Weight decay
    mom: float,  # Momentum
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
    torch._foreach_add_(averages, gradients)
    move(params, averages, lr, mom)


def move_sgd(
    params,  # With a gradient
    averages,  # Moving averages of their gradients
    lr: float,  # Learning rate
    mom: float,  # Momentum, not used
):
    "Do SGD's step."
    if params:
        torch._foreach_add_([p.data for p in params], averages, alpha=-lr)


def move_muon(
    params,  # With a gradient
    averages,  # Moving averages of their gradients
    lr: float,  # Learning rate
    mom: float,  # Momentum
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
