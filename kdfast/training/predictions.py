"Predictions of a trained classifier for all images of a split."

from dataclasses import dataclass

import torch
from fastai.basics import Learner

from kdfast.training.outputs import LOGITS_KEPT, check_logits, collect


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
    keep_logits = keep_logits and dl.n * n_classes <= LOGITS_KEPT

    def columns_of(pred, actual):
        logits = check_logits(pred, n_classes)
        highest = logits.max(1)
        surplus = highest.values - logits.gather(1, actual[:, None])[:, 0]
        return actual, highest.indices, surplus, *([logits] if keep_logits else [])

    columns, loss = collect(learn, dl, columns_of)
    return Predictions(*columns[:3], loss, columns[3] if keep_logits else None)
