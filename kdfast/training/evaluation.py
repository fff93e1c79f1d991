"""Evaluate a trained run: accuracies, confusion matrix, predictions, size and speed."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from fastai.basics import Callback, Learner, noop
from torch import nn

from kdfast.core import atomic
from kdfast.core.atomic import write_csv
from kdfast.core.errors import Diverged, KdfastError
from kdfast.data.dataset import Data
from kdfast.models.cost import count_macs, measure_latency, to_half
from kdfast.models.saved import save_network
from kdfast.stats.confusion import most_confused

PAIRS_SHOWN = 5  # most confused pairs whose images are saved
IMAGES_SHOWN = 8  # images saved of each pair
LOGITS_KEPT = 10_000_000  # largest images × classes whose logits are saved: 20 MB in half precision


CLASSIFIED = (  # results that a run without a classifier does not have
    'train_accuracy',
    'valid_accuracy',
    'best_valid_accuracy',
    'best_epoch',
    'valid_loss',
    'valid_images',
    'worst_pairs',
)


def evaluate(
    run,  # kdfast.training.run.Run that was trained
    arguments: dict,  # All arguments of its recipe
    outcome: Learner | nn.Module,  # Learner to evaluate, or a network to save that is not a classifier
) -> dict:  # Content of result.json
    "Evaluate a run; save its network, predictions and confusion matrix in the run directory."
    network = outcome.model if isinstance(outcome, Learner) else outcome
    epochs = run.metrics_log.epochs
    if not epochs:
        raise KdfastError(f'{run.folder.recipe} trained nothing: its main does not fit a Learner of run.learner(…)')
    last = epochs[-1]
    save_network(network, run.folder / 'weights.safetensors')
    classified = evaluate_classifier(run, outcome) if isinstance(outcome, Learner) else dict.fromkeys(CLASSIFIED)
    return dict(
        recipe=run.folder.recipe,
        data=run.data.name,
        seed=run.seed,
        arguments=arguments,
        params=sum(p.numel() for p in network.parameters()),
        macs=try_measure(run, 'multiply-adds', count_macs, network),
        bytes=(run.folder / 'weights.safetensors').stat().st_size,
        latency=try_measure(run, 'latency', measure_latency, network),
        epochs=len(epochs),
        seconds=round(sum(row['seconds'] for row in epochs), 1),
        train_loss=last['train_total'],
        soft_loss=last['train_soft'],
        hard_loss=last['train_hard'],
        fit_loss=fit_loss(run),
        hint=run.stage_one,
        **classified,
        teacher_sha256=run.teacher_sha256,
    )


def evaluate_classifier(
    run,  # kdfast.training.run.Run that was trained
    learn: Learner,  # Its Learner
) -> dict:  # The results in CLASSIFIED
    "Compute accuracies, loss and most confused pairs without augmentation; save the predictions."
    names = run.data.classes
    valid = run.dls.valid
    found = predict_validation(learn, valid, len(names), keep_logits=True)
    matrix = count_confusion(found.actual, found.predicted, len(names))
    worst = most_confused(matrix)
    rows = ([name, *row] for name, row in zip(names, matrix.tolist()))
    write_csv(run.folder / 'confusion.csv', ['actual \\ predicted', *names], rows)
    write_confused(run.folder / 'confused.npz', run.data, found, worst)
    logits = {} if found.logits is None else dict(logits=to_half(found.logits))
    write_arrays(run.folder / 'predictions.npz', actual=found.actual, predicted=found.predicted, **logits)
    plain = run.dls.train.new(run.dls.train_ds.plain(), bs=valid.bs, shuffle=False, drop_last=False)
    trained = predict_validation(learn, plain, len(names))
    epochs = [row for row in run.metrics_log.epochs if row['valid_accuracy'] is not None]
    best = max(epochs, key=lambda row: row['valid_accuracy'], default={})
    return dict(
        train_accuracy=trained.accuracy,
        valid_accuracy=found.accuracy,
        best_valid_accuracy=best.get('valid_accuracy'),
        best_epoch=best.get('epoch'),
        valid_loss=found.loss,
        valid_images=len(found.actual),
        worst_pairs=[[names[a], names[b], int(matrix[a, b])] for a, b in worst],
    )


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


def predict_validation(
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


def count_confusion(
    actual: torch.Tensor,  # (n,) classes
    predicted: torch.Tensor,  # (n,) classes
    n_classes: int,  # Number of classes
) -> np.ndarray:  # (n_classes, n_classes): rows are actual, columns predicted
    "Count the confusion matrix; memory grows with images + classes²."
    return torch.bincount(actual * n_classes + predicted, minlength=n_classes**2).view(n_classes, n_classes).numpy()


def write_confused(
    file: Path,  # confused.npz
    data: Data,  # Images of the run
    found: Predictions,  # For the validation images
    pairs: list,  # Most confused pairs of classes, (actual, predicted)
):
    "Write the most confident errors: a few images of each of the most confused pairs."
    rows = []
    for a, b in pairs[:PAIRS_SHOWN]:
        of_pair = ((found.actual == a) & (found.predicted == b)).nonzero()[:, 0]
        most_confident = found.surplus[of_pair].argsort(descending=True)
        rows += of_pair[most_confident][:IMAGES_SHOWN].tolist()
    index = np.array(rows, int)
    images = data.shown(data.valid[0][index])
    write_arrays(file, images=images, index=index, actual=found.actual[rows], predicted=found.predicted[rows])


def write_arrays(
    file: Path,  # .npz
    **arrays,  # Arrays or tensors, by name
):
    "Write arrays to a file, completely or not at all."
    content = io.BytesIO()
    np.savez_compressed(content, **{name: np.asarray(tensor) for name, tensor in arrays.items()})
    atomic.write(file, content.getvalue())


def fit_loss(
    run,  # kdfast.training.run.Run that was trained
) -> float | None:
    "Return the last fit loss of the run, else that of a run it depends on; None if there was none."
    own = [row['train_fit'] for row in run.metrics_log.epochs]
    upstream = [folder.result['fit_loss'] for _, folder in run.upstream]
    return next((loss for loss in [*reversed(own), *upstream] if loss is not None), None)


def try_measure(
    run,  # kdfast.training.run.Run that was trained
    what: str,  # Name of the measure, for the note
    measure: Callable,  # Function of the network and the run
    network: nn.Module,  # Trained network
):
    "Return measure(network, run); None, with a note, if it raises an error."
    try:
        return measure(network, run)
    except Exception as e:  # any error of a user's network; the training must not be lost
        first_line = str(e).partition('\n')[0]
        run.say(f'{what} of {run.folder.recipe} not measured: {type(e).__name__}: {first_line}')
        return None
