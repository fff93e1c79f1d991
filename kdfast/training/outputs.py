"""What a trained network returns: checks, and arrays on disk."""

import io
from pathlib import Path

import numpy as np
import torch

from kdfast.core import atomic
from kdfast.core.errors import Diverged, KdfastError

LOGITS_KEPT = 10_000_000  # largest images × classes whose logits are saved: 20 MB in half precision


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
