"Evaluate a trained run: accuracies, confusion matrix, predictions, in one pass over each split; size and speed."

import io
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from fastai.basics import Callback, Learner, noop
from torch import nn

from kdfast.core import atomic
from kdfast.core.atomic import write_csv
from kdfast.core.errors import Diverged, KdfastError
from kdfast.models.cost import count_macs, measure_latency, to_half
from kdfast.models.saved import save_network
from kdfast.stats.confusion import most_confused

PAIRS_SHOWN, IMAGES_SHOWN = 5, 8  # most confused pairs, and images of each, that are kept to be looked at
LOGITS_KEPT = 10_000_000  # images × classes up to which predictions.npz holds the logits, too: 20 MB in half precision


CLASSIFIED = (  # numbers that a run without a classifier has not
    'train_accuracy',
    'valid_accuracy',
    'best_valid_accuracy',
    'best_epoch',
    'valid_loss',
    'valid_images',
    'worst_pairs',
)


def evaluate(
    run,  # The kdfast.training.run.Run that was trained
    arguments: dict,  # What its recipe was called with
    outcome: Learner
    | nn.Module,  # The Learner to evaluate; or, where there is nothing to classify, the network to keep
) -> dict:
    "The numbers of a finished run; the network, its predictions and its confusion matrix are written beside them."
    network = outcome.model if isinstance(outcome, Learner) else outcome
    epochs = run.record.epochs
    if not epochs:
        raise KdfastError(f'{run.folder.recipe} trained nothing: its main fits no Learner of run.learner(…)')
    last = epochs[-1]
    save_network(network, run.folder / 'weights.safetensors')
    classified = evaluate_classifier(run, outcome) if isinstance(outcome, Learner) else dict.fromkeys(CLASSIFIED)
    return dict(
        recipe=run.folder.recipe,
        data=run.data.name,
        seed=run.seed,
        arguments=arguments,
        params=sum(p.numel() for p in network.parameters()),
        macs=measure_losses(run, 'multiply-adds', count_macs, network),
        bytes=(run.folder / 'weights.safetensors').stat().st_size,
        latency=measure_losses(run, 'latency', measure_latency, network),
        epochs=len(epochs),
        seconds=round(sum(row['seconds'] for row in epochs), 1),
        train_loss=last['train_total'],
        soft_loss=last['train_soft'],
        hard_loss=last['train_hard'],
        fit_loss=fit_loss(run),
        hint=run.hint,
        **classified,
        teacher_sha256=run.teacher_sha256,
    )


def evaluate_classifier(run, learn):
    "Accuracies, loss and most confused pairs of the final weights, on plain images; writes the files that hold them"
    names, valid = run.data.classes, run.dls.valid
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
    epochs = [row for row in run.record.epochs if row['valid_accuracy'] is not None]
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
    "What a network makes of a split: memory in proportion to its images, not to images × classes."

    actual: torch.Tensor  # (n,) classes
    predicted: torch.Tensor  # (n,) classes
    surplus: torch.Tensor  # (n,) logit of the predicted class minus that of the actual one
    loss: float  # Mean over the images
    logits: torch.Tensor | None  # (n, classes), where they are few enough to be kept

    @property
    def accuracy(self):
        return float((self.actual == self.predicted).double().mean())


def predict_validation(
    learn: Learner,  # Trained; its model maps images to (n, classes)
    dl,  # DataLoader, in a fixed order
    n_classes: int,
    keep_logits: bool = False,  # Up to LOGITS_KEPT numbers
) -> Predictions:
    "Predict every image once, in batches. Raises Diverged for what is no number, KdfastError for what are no logits."
    seen = Seen(n_classes, keep_logits and dl.n * n_classes <= LOGITS_KEPT)
    learn.get_preds(dl=dl, with_preds=False, with_targs=False, reorder=False, act=noop, cbs=seen)
    columns = [torch.cat(column) for column in zip(*seen.batches)]
    loss = seen.total / len(columns[0])
    if not isfinite(loss):
        raise Diverged(f'the loss of the trained network is {loss}: a lower --lr is the usual cure')
    return Predictions(*columns[:3], loss, columns[3] if seen.keep else None)


class Seen(Callback):
    "Gathers, batch by batch, what `Predictions` hold, on the CPU."

    order = 90  # what other callbacks make of a prediction is done

    def __init__(self, n_classes, keep):
        self.n_classes, self.keep = n_classes, keep

    def before_validate(self):
        self.batches, self.total = [], 0.0

    def after_batch(self):
        logits, actual = check_logits(self.pred, self.n_classes), self.y.as_subclass(torch.Tensor)
        highest = logits.max(1)
        surplus = highest.values - logits.gather(1, actual[:, None])[:, 0]
        columns = actual, highest.indices, surplus, *([logits] if self.keep else [])
        self.batches.append([column.cpu() for column in columns])
        self.total += float(self.loss.mean()) * len(actual)


def check_logits(pred, n_classes):
    shape = tuple(pred.shape) if isinstance(pred, torch.Tensor) else type(pred).__name__
    if not isinstance(pred, torch.Tensor) or pred.ndim != 2 or pred.shape[1] != n_classes:
        raise KdfastError(
            f'the trained network gives {shape}, expected (images, {n_classes}): '
            'main should return the network, not the Learner, where there is nothing to classify'
        )
    if pred.isnan().any():
        raise Diverged('the trained network gives NaN, not numbers: a lower --lr is the usual cure')
    return pred.detach().as_subclass(torch.Tensor).float()


def count_confusion(
    actual: torch.Tensor,  # (n,) classes
    predicted: torch.Tensor,  # (n,) classes
    n_classes: int,
) -> np.ndarray:  # (n_classes, n_classes): rows are actual, columns predicted
    "Count the confusion matrix: memory for images + classes²."
    return torch.bincount(actual * n_classes + predicted, minlength=n_classes**2).view(n_classes, n_classes).numpy()


def write_confused(file, data, found, pairs):
    "The images that the network is surest of and has wrong, as it saw them: a few of each of its most confused pairs"
    rows = []
    for a, b in pairs[:PAIRS_SHOWN]:
        of_pair = ((found.actual == a) & (found.predicted == b)).nonzero()[:, 0]
        rows += of_pair[found.surplus[of_pair].argsort(descending=True)][:IMAGES_SHOWN].tolist()
    index = np.array(rows, int)
    images = data.shown(data.valid[0][index])
    write_arrays(file, images=images, index=index, actual=found.actual[rows], predicted=found.predicted[rows])


def write_arrays(file, **arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **{name: np.asarray(tensor) for name, tensor in arrays.items()})
    atomic.write(file, content.getvalue())


def fit_loss(run):
    "The last fit loss of stage one: this run's own, or that of the run it stands on; None without a stage one"
    own = [row['train_fit'] for row in run.record.epochs]
    needed = [folder.result['fit_loss'] for _, folder in run.upstream]
    return next((fit for fit in [*reversed(own), *needed] if fit is not None), None)


# Size and speed


def measure_losses(run, what, measure, network):
    "A number that a result can do without: None, and a note that says why, for a network that cannot be measured so"
    try:
        return measure(network, run)
    except Exception as e:  # whatever a network raises for one image, or under a counter: its training is not lost
        run.say(f'{what} of {run.folder.recipe} not measured: {type(e).__name__}: {str(e).partition(chr(10))[0]}')
        return None
