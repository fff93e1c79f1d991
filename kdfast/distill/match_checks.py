"""What Match refuses before the first batch."""

import difflib
from importlib import import_module
from pkgutil import iter_modules

from fastai.callback.mixup import MixHandler
from torch import nn

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.distill import losses
from kdfast.distill.loss_inputs import check_indices, held_weights
from kdfast.distill.tasks import CLASS, known_task, name_of


def check_loss(
    loss,  # That Match is given
):
    "Raise KdfastError unless a loss is a function or a module that exists."
    if isinstance(loss, type):
        raise KdfastError(f'the loss is the class {loss.__name__}: create it first, {loss.__name__}(…)')
    if callable(loss):
        return
    known = [name for module in modules_of_losses() for name in module.__all__]
    near = difflib.get_close_matches(str(loss).lower(), [*known, *(n.removesuffix('_loss') for n in known)], n=3)
    near = [name if name in known else f'{name}_loss' for name in near]
    advice = f'; did you mean {", ".join(dict.fromkeys(near))}, without quotes?' if near else ''
    raise KdfastError(
        f'the loss is {loss!r}, expected a function or module of the student\'s and the teacher\'s tensor, such as '
        f'at_loss{advice}'
    )


def check_hidden_modules(
    match,  # Match, when a fit begins
    name: str,  # Of its loss
):
    "Raise KdfastError for weights inside a function that would not be trained."
    known = [match.model, match.teacher, *([match.loss_module] if match.loss_module else [])]
    trained = {id(p) for module in known for p in module.parameters()}
    for held in held_weights(match.loss_fn):
        weights = held.parameters() if isinstance(held, nn.Module) else [held]
        if any(p.requires_grad and id(p) not in trained for p in weights):
            kind = type(held).__name__
            raise KdfastError(
                f'the loss {name} uses a {kind} whose weights would not be trained: give Match a module with it (its '
                'forward computes the loss), or freeze them (requires_grad_(False))'
            )


def modules_of_losses() -> list:
    "Return the modules of kdfast's losses."
    return [import_module(f'{losses.__name__}.{m.name}') for m in iter_modules(losses.__path__)]


def check_match(
    match,  # Match, when a fit begins
):
    "Raise KdfastError for what can be known before the first batch."
    name = name_of(match.loss_fn)
    if match.extra_inputs and any(isinstance(cb, MixHandler) for cb in match.learn.cbs):
        raise KdfastError(
            f'{name} needs the label or index of each image, and MixUp and CutMix mix images: remove one of them'
        )
    if 'index' in match.extra_inputs:
        check_indices(match.loss_fn, name, match.dls.train)
    if match.loss_module and distributed.is_initialized():
        raise KdfastError(
            f'{name} is trained with the student, which several processes do not support: use one process'
        )
    check_hidden_modules(match, name)
    task = known_task(match.loss_func) if match.compares_classes and not match.pairs else None
    if task and task.kind != CLASS:
        raise KdfastError(
            f'{name} compares logits of classes, and outputs for the loss {name_of(match.loss_func)} are '
            f'{task.kind}: use Distill'
        )
    if match.pairs and isinstance(match.model, nn.DataParallel) and len(match.model.device_ids) > 1:
        raise KdfastError(
            'DataParallel computes the layers of the student in several copies: '
            'use DistributedDataParallel (learn.distrib_ctx)'
        )
