"""Mean average precision of the validation images of an epoch."""

import torch

from kdfast.stats.labels import average_precisions, mean_average_precision


class LabelScores:
    "Outputs for images with several labels, collected batch by batch."

    def __init__(self):
        self.batches = []  # (logits, labels), on the device until they are read

    def add(
        self,
        pred,  # Outputs of the network
        y,  # Labels of the batch
    ):
        "Add a batch, unless its outputs are not one logit for each label."
        tensors = isinstance(pred, torch.Tensor) and isinstance(y, torch.Tensor)
        if tensors and pred.ndim == 2 and pred.shape == y.shape:
            self.batches.append([tensor.detach().as_subclass(torch.Tensor).float() for tensor in (pred, y)])

    def mean(self) -> float | None:
        "Return the mean average precision of all batches, and forget them; None without batches."
        batches, self.batches = self.batches, []
        if not batches:
            return None
        logits, labels = (torch.cat(column).cpu().numpy() for column in zip(*batches))
        return mean_average_precision(average_precisions(labels, logits))
