"""What a trained network returns: collected for all images, checked, and written to arrays on disk."""

import io
from collections.abc import Callable
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from fastai.basics import Callback, Learner, noop

from kdfast.core import atomic
from kdfast.core.errors import Diverged, KdfastError

LOGITS_KEPT = 10_000_000  # largest images × classes whose logits are saved: 20 MB in half precision


def collect(
    learn: Learner,  # Trained
    dl,  # DataLoader, in a fixed order
    columns_of: Callable,  # From predictions and targets of a batch to tensors, a row per image
) -> tuple[list[torch.Tensor], float]:  # The columns for all images, on the CPU; the mean loss
    "Predict all images, and keep columns of each batch. Raises Diverged if the loss is not finite."
    collector = Collector(columns_of)
    learn.get_preds(dl=dl, with_preds=False, with_targs=False, reorder=False, act=noop, cbs=collector)
    columns = [torch.cat(column) for column in zip(*collector.batches)]
    loss = collector.total_loss / len(columns[0])
    if not isfinite(loss):
        raise Diverged(f'the loss of the trained network is {loss}: try a lower --lr')
    return columns, loss


class Collector(Callback):
    "Collect columns batch by batch, on the CPU."

    order = 90  # after callbacks that change predictions

    def __init__(
        self,
        columns_of: Callable,  # As of `collect`
    ):
        self.columns_of = columns_of

    def before_validate(self):
        self.batches = []
        self.total_loss = 0.0

    def after_batch(self):
        actual = self.y.as_subclass(torch.Tensor)
        self.batches.append([column.cpu() for column in self.columns_of(self.pred, actual)])
        self.total_loss += float(self.loss.mean()) * len(actual)


def check_logits(
    pred,  # Output of the trained network
    n_classes: int,  # Number of classes
) -> torch.Tensor:  # (n, classes), float32
    "Return the logits. Raises KdfastError for other shapes, Diverged for NaN."
    shape = tuple(pred.shape) if isinstance(pred, torch.Tensor) else type(pred).__name__
    if not isinstance(pred, torch.Tensor) or pred.ndim != 2 or pred.shape[1] != n_classes:
        raise KdfastError(
            f'the trained network returns {shape}, expected (images, {n_classes}): '
            'if it is not a classifier, main should return the network instead of the Learner'
        )
    if pred.isnan().any():
        raise Diverged('the trained network returns NaN: try a lower --lr')
    return pred.detach().as_subclass(torch.Tensor).float()


def write_arrays(
    file: Path,  # .npz
    **arrays,  # Arrays or tensors, by name
):
    "Write arrays to a file, completely or not at all."
    content = io.BytesIO()
    np.savez_compressed(content, **{name: np.asarray(tensor) for name, tensor in arrays.items()})
    atomic.write(file, content.getvalue())
