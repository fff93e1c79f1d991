"""Train a loss that has parameters together with the student."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy

from fastai.basics import Learner, norm_bias_params
from fastai.callback.schedule import LRFinder
from torch import nn
from torch.nn.parameter import is_lazy

from kdfast.core.errors import KdfastError
from kdfast.distill.loss_inputs import owner_of
from kdfast.distill.teacher import identities
from kdfast.models.undone import undone


def evaluation_copy(
    loss: Callable,  # The loss in training: a module, its method, or a partial of one
) -> Callable | None:
    "Return a copy in evaluation mode, or None if the loss cannot be copied."
    try:
        copy = deepcopy(loss)
        owner_of(copy).eval()
        return copy
    except Exception:  # any error of a user's module; the fit continues without a validation value
        return None


@contextmanager
def trained_with_model(
    loss: nn.Module,  # With or without parameters
    learn: Learner,  # During a fit
):
    """Add the parameters of a loss to the optimizer's last parameter group, and remove them afterwards.

    Norm layers and biases are trained without weight decay, unless the Learner applies it to those of the model
    (`wd_bn_bias`). Weights of the model are left to the Learner; weights of a teacher, such as its classifier in the
    loss of SimKD, are frozen. `lr_find` leaves the loss as it was, as it does the model. What is saved of the optimizer
    meanwhile, and loaded, is of the model's weights alone.
    """
    opt = learn.opt
    known = {id(p) for p, *_ in opt.all_params()} | identities_of([learn.model])
    teachers = identities_of(teacher for cb in learn.cbs if isinstance(teacher := vars(cb).get('teacher'), nn.Module))
    with as_before_lr_find(loss, learn, known | teachers):
        trained = [p for p in loss.parameters() if p.requires_grad and not identities(p) & known]
        added = [p for p in trained if not identities(p) & teachers]
        frozen = [p for p in trained if identities(p) & teachers]
        without_decay = {id(p) for p in norm_bias_params(loss)} if not learn.wd_bn_bias else {}
        opt.param_lists[-1].extend(added)
        for p in added:
            opt.state[p] = dict(do_wd=False) if id(p) in without_decay else {}
        for p in frozen:
            p.requires_grad_(False)
        try:
            with saved_without(opt, added):
                yield
        finally:
            remove_parameters(opt, added)
            for p in frozen:
                p.requires_grad_(True)


def as_before_lr_find(
    loss: nn.Module,  # With or without parameters
    learn: Learner,  # During a fit
    of_networks: set[int],  # What identifies weights of student and teacher, which the loss may hold
) -> AbstractContextManager:
    "Undo what `lr_find` does to a loss, not what other fits do. Raises KdfastError for lazy parameters."
    if not any(isinstance(cb, LRFinder) for cb in learn.cbs):
        return nullcontext()
    if any(map(is_lazy, loss.parameters())):
        raise KdfastError('lr_find cannot restore a loss with lazy parameters: call the loss once before')
    return undone(loss, {id(p) for p in loss.parameters() if not identities(p) & of_networks})


def identities_of(
    networks: Iterable[nn.Module],  # Any number
) -> set[int]:
    "Return what identifies the weights of networks: themselves, and their memory."
    return {key for network in networks for p in network.parameters() for key in identities(p)}


@contextmanager
def saved_without(
    opt,  # Optimizer of a Learner
    added: list,  # Parameters that it has during the fit alone
):
    "Let an optimizer save and load the state of its own parameters: it has no others after the fit."

    def own(method):
        def call(*args, **kwargs):
            with set_aside(opt, added):
                return method(*args, **kwargs)

        return call

    methods = {name: own(getattr(opt, name)) for name in ('state_dict', 'load_state_dict')}
    vars(opt).update(methods)
    try:
        yield
    finally:
        for name in methods:
            del vars(opt)[name]


@contextmanager
def set_aside(
    opt,  # Optimizer of a Learner
    added: list,  # Parameters of its last group
):
    "Remove parameters from an optimizer, and add them again afterwards, with their state and gradients."
    held = [{p: state[p] for p in added if p in state} for state in states_of(opt)]
    gradients = [p.grad for p in added]
    remove_parameters(opt, added)
    try:
        yield
    finally:
        opt.param_lists[-1].extend(added)
        for p, gradient in zip(added, gradients):
            p.grad = gradient
        for state, own in zip(states_of(opt), held):  # others than before if they were loaded
            state.update(own)


def states_of(
    opt,  # Optimizer of a Learner
) -> list[dict]:  # By parameter
    "Return the states of an optimizer, and of the PyTorch optimizer in an OptimWrapper."
    inner = getattr(opt, 'opt', None)
    return [opt.state] + ([inner.state] if hasattr(inner, 'state') else [])


def remove_parameters(
    opt,  # Optimizer of a Learner
    parameters: list,  # That were added to it
):
    "Remove parameters, their state and their gradients from an optimizer."
    ids = {id(p) for p in parameters}
    for params in opt.param_lists:
        params[:] = [p for p in params if id(p) not in ids]
    for state in states_of(opt):
        for p in parameters:
            state.pop(p, None)
    for p in parameters:
        p.grad = None
