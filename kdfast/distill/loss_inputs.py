"""Inputs of a loss beside features or logits: labels (`y`) and indices of the images (`index`)."""

import dis
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CellType, ModuleType

import torch
from fastai.basics import Callback, Learner
from fastai.data.load import DataLoader
from torch import Tensor, nn

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.models.inference import unwrapped


def without_partial(
    loss: Callable,  # Any loss
) -> Callable:
    "Return the function inside functools.partial."
    while isinstance(loss, partial):
        loss = loss.func
    return loss


def owner_of(
    loss: Callable,  # Any loss
) -> Callable:
    "Return the function or module inside functools.partial, or whose method the loss is."
    while isinstance(loss, partial) or isinstance(getattr(loss, '__self__', None), nn.Module):
        loss = loss.func if isinstance(loss, partial) else loss.__self__
    return loss


def held_weights(
    loss: object,  # Any loss, or what it holds
    seen: set | None = None,  # Ids of what was looked at
) -> list[nn.Module | nn.Parameter]:
    "Return the modules and parameters that a loss uses: in functions, objects and containers."
    seen = set() if seen is None else seen
    if id(loss) in seen:
        return []
    seen.add(id(loss))
    if isinstance(loss, nn.Module | nn.Parameter):
        return [loss]
    return [found for value in contents(loss) for found in held_weights(value, seen)]


def contents(
    value: object,  # A loss, or what it holds
) -> list:
    "Return what a value holds: a function its closure, defaults and globals, an object its attributes."
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if inspect.ismethod(value):
        own = value.__self__
        return [own, value.__func__, *([] if isinstance(own, nn.Module) else getattr(own, '__dict__', {}).values())]
    if inspect.isfunction(value):
        names = {i.argval for i in dis.get_instructions(value) if i.opname == 'LOAD_GLOBAL'}
        used = [value.__globals__[name] for name in names if name in value.__globals__]
        used = [v for v in used if not inspect.isfunction(v) or v.__globals__ is value.__globals__]
        closure = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        return [*used, *closure, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    opaque = isinstance(value, type | ModuleType | Learner | Callback | Tensor) or not callable(value)
    return [] if opaque else list(getattr(value, '__dict__', {}).values())


def extra_inputs(
    loss: Callable,  # Takes the student's and the teacher's tensor, and possibly more
) -> set[str]:
    "Return which of `y` and `index` are free parameters of the loss, after the first two."
    inner = without_partial(loss)
    called = unwrapped(inner).forward if isinstance(inner, nn.Module) else inner
    if isinstance(loss, partial):
        called = partial(called, *loss.args, **loss.keywords)
    try:
        parameters = inspect.signature(called).parameters
    except ValueError:
        return set()  # implemented in C
    return {'y', 'index'} & {*list(parameters)[2:]} - {*getattr(loss, 'keywords', ())}


def knows_indices(
    dl,  # A DataLoader
) -> bool:
    "Return whether `sample_indices` supports this DataLoader."
    return hasattr(dl, 'batch_idx') or isinstance(dl, DataLoader)


def check_indices(
    loss: Callable,  # With the parameter `index`
    name: str,  # Of the loss, for the error
    dl,  # The training DataLoader
):
    "Raise KdfastError if indices are not known, or if the loss was made for another number of images."
    if not knows_indices(dl):
        raise KdfastError(
            f'{name} needs the indices of the images of a batch, which {type(dl).__name__} does not provide: '
            'use a DataLoader of fastai'
        )
    expected = getattr(owner_of(loss), 'training_images', None)
    dataset = getattr(dl, 'dataset', None)  # a loader may take only some images of it
    found = len(dataset) if hasattr(dataset, '__len__') else expected
    if expected is not None and expected != found:
        raise KdfastError(
            f'{name} was created for {expected} training images, found {found}: give it the number (n) or the labels '
            'of all training images'
        )


@contextmanager
def without_skipped_items(
    dl,  # The training DataLoader
) -> Iterator[None]:
    "Let items that a DataLoader of fastai leaves out raise KdfastError: later indices would be wrong."
    if not isinstance(dl, DataLoader) or 'do_item' in vars(dl):
        yield
        return
    vars(dl)['do_item'] = partial(item_of, dl)
    try:
        yield
    finally:
        vars(dl).pop('do_item', None)


def item_of(
    dl,  # A DataLoader of fastai
    index: int,  # Of the item
):  # The item
    "Return an item of the data set. Raises KdfastError if it is left out."
    item = type(dl).do_item(dl, index)
    if item is None:
        raise KdfastError(
            f'the data set leaves out item {index} (SkipItemException), so that the indices of the images in a batch '
            'are not known: remove the item from the data set, or use a loss without `index`'
        )
    return item


def sample_indices(
    dl,  # DataLoader of the epoch
    i: int,  # Number of the batch in the epoch
    y: Tensor,  # Labels of the batch
) -> Tensor:  # (batch,), on the device of `y`
    "Return the indices of a batch in its data set. Raises KdfastError if there are too few or many."
    if getattr(dl, 'batch_idx', None) is not None:
        found = dl.batch_idx  # a DataLoader of kdfast
    else:
        of_epoch = dl._DataLoader__idxs  # fastai has no public attribute for the order of an epoch
        found = of_epoch[i * dl.bs : (i + 1) * dl.bs][distributed.rank_slice()]
    if len(found) == len(y):
        return torch.as_tensor(found, device=y.device)
    raise KdfastError(
        f'{type(dl).__name__} has {len(found)} indices for a batch of {len(y)} images: use a loss without `index`'
    )
