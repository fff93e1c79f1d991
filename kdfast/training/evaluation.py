"""Evaluate a trained run: accuracies, confusion matrix, predictions, size and speed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fastai.basics import Learner
from torch import nn

from kdfast.core.atomic import write_csv
from kdfast.core.errors import KdfastError
from kdfast.data.dataset import Data
from kdfast.models.cost import count_macs, measure_latency, to_half
from kdfast.models.saved import save_network
from kdfast.stats.confusion import balanced_accuracy, class_accuracies, most_confused
from kdfast.training.final_test import evaluate_test
from kdfast.training.given_teacher import check_given, keep_code
from kdfast.training.label_evaluation import evaluate_labels
from kdfast.training.metrics_log import find_best_epoch
from kdfast.training.outputs import write_arrays
from kdfast.training.predictions import Predictions, predict_split

PAIRS_SHOWN = 5  # most confused pairs whose images are saved
IMAGES_SHOWN = 8  # images saved of each pair


CLASSIFIED = (  # results that a run without a classifier does not have
    'train_accuracy',
    'valid_accuracy',
    'valid_balanced_accuracy',
    'class_accuracy',
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
    if not epochs and run.given is None:
        remedy = 'expected at least 1 epoch' if arguments.get('epochs') == 0 else 'its main fits no Learner of its run'
        raise KdfastError(f'{run.folder.recipe} trained nothing: {remedy}')
    last = epochs[-1] if epochs else dict.fromkeys(['train_total', 'train_soft', 'train_hard'])
    model, network = network, run.given or network
    keep_code(run, network)
    save_network(network, run.folder / 'weights.safetensors')
    classified = dict.fromkeys(CLASSIFIED)
    if isinstance(outcome, Learner):
        classified |= (evaluate_labels if run.data.several else evaluate_classifier)(run, outcome)
        classified |= evaluate_test(run, outcome)
    if run.given is not None and not run.rehearsal:
        check_given(run)
    return dict(
        recipe=run.folder.recipe,
        data=run.data.name,
        seed=run.seed,
        arguments=arguments,
        params=sum(p.numel() for p in network.parameters()),
        macs=try_measure(run, 'multiply-adds', count_macs, model),
        bytes=(run.folder / 'weights.safetensors').stat().st_size,
        latency=try_measure(run, 'latency', measure_latency, model),
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
    found = predict_split(learn, valid, len(names), keep_logits=True)
    matrix = count_confusion(found.actual, found.predicted, len(names))
    worst = most_confused(matrix)
    rows = ([name, *row] for name, row in zip(names, matrix.tolist()))
    write_csv(run.folder / 'confusion.csv', ['actual \\ predicted', *names], rows)
    write_confused(run.folder / 'confused.npz', run.data, found, worst)
    logits = {} if found.logits is None else dict(logits=to_half(found.logits))
    write_arrays(run.folder / 'predictions.npz', actual=found.actual, predicted=found.predicted, **logits)
    plain = run.dls.train.new(run.dls.train_ds.plain(), bs=valid.bs, shuffle=False, drop_last=False)
    trained = predict_split(learn, plain, len(names))
    best_epoch, best = find_best_epoch(run.metrics_log.epochs, 'valid_accuracy')
    return dict(
        train_accuracy=trained.accuracy,
        valid_accuracy=found.accuracy,
        valid_balanced_accuracy=balanced_accuracy(matrix),
        class_accuracy=dict(zip(names, class_accuracies(matrix))),
        best_valid_accuracy=best,
        best_epoch=best_epoch,
        valid_loss=found.loss,
        valid_images=len(found.actual),
        worst_pairs=[[names[a], names[b], int(matrix[a, b])] for a, b in worst],
    )


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
