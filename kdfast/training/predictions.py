"Predictions of a trained classifier for all images of a split."

from dataclasses import dataclass
from math import isfinite

import torch
from fastai.basics import Callback, Learner, noop

from kdfast.core.errors import Diverged
from kdfast.training.outputs import LOGITS_KEPT, check_logits


@dataclass
class Predictions:
    "Predictions for a split; without logits, memory does not depend on the number of classes."

    actual: torch.Tensor  # (n,) classes
    predicted: torch.Tensor  # (n,) classes
    surplus: torch.Tensor  # (n,) logit of the predicted class minus that of the actual class
    loss: float  # Mean over the images
    logits: torch.Tensor | None  # (n, classes), if kept

    @property
    def accuracy(self) -> float:
        "Fraction of correct predictions"
        return float((self.actual == self.predicted).double().mean())


def predict_split(
    learn: Learner,  # Trained; its model maps images to (n, classes)
    dl,  # DataLoader, in a fixed order
    n_classes: int,  # Number of classes
    keep_logits: bool = False,  # Keep the logits if they are at most LOGITS_KEPT numbers
) -> Predictions:
    "Predict all images. Raises Diverged for NaN or an infinite loss, KdfastError for other outputs."
    collector = PredictionCollector(n_classes, keep_logits and dl.n * n_classes <= LOGITS_KEPT)
    learn.get_preds(dl=dl, with_preds=False, with_targs=False, reorder=False, act=noop, cbs=collector)
    columns = [torch.cat(column) for column in zip(*collector.batches)]
    loss = collector.total_loss / len(columns[0])
    if not isfinite(loss):
        raise Diverged(f'the loss of the trained network is {loss}: try a lower --lr')
    return Predictions(*columns[:3], loss, columns[3] if collector.keep_logits else None)


class PredictionCollector(Callback):
    "Collect the columns of `Predictions`, batch by batch, on the CPU."

    order = 90  # after callbacks that change predictions

    def __init__(
        self,
        n_classes: int,  # Number of classes
        keep_logits: bool,  # Also collect the logits
    ):
        self.n_classes = n_classes
        self.keep_logits = keep_logits

    def before_validate(self):
        self.batches = []
        self.total_loss = 0.0

    def after_batch(self):
        logits = check_logits(self.pred, self.n_classes)
        actual = self.y.as_subclass(torch.Tensor)
        highest = logits.max(1)
        surplus = highest.values - logits.gather(1, actual[:, None])[:, 0]
        columns = actual, highest.indices, surplus, *([logits] if self.keep_logits else [])
        self.batches.append([column.cpu() for column in columns])
        self.total_loss += float(self.loss.mean()) * len(actual)
