"""Evaluate a trained run on images with several labels: average precision, F1, counts of each label."""

from dataclasses import dataclass

import numpy as np
import torch
from fastai.basics import Learner

from kdfast.core.atomic import write_csv
from kdfast.models.cost import to_half
from kdfast.stats.labels import (
    average_precisions,
    image_f1,
    label_counts,
    macro_f1,
    mean_average_precision,
    micro_f1,
)
from kdfast.training.metrics_log import find_best_epoch
from kdfast.training.outputs import LOGITS_KEPT, check_logits, collect, write_arrays

COUNTS = ('true positives', 'false positives', 'false negatives', 'true negatives')  # columns of labels.csv


def evaluate_labels(
    run,  # kdfast.training.run.Run that was trained
    learn: Learner,  # Its Learner
) -> dict:  # The results of a run on images with several labels
    "Compute average precision, F1 and loss without augmentation; save the predictions and the counts."
    names, valid = run.data.classes, run.dls.valid
    found = predict_labels(learn, valid, len(names))
    counts = label_counts(found.actual, found.predicted)
    write_csv(run.folder / 'labels.csv', ['label', *COUNTS], ([c, *row] for c, row in zip(names, counts.tolist())))
    logits = dict(logits=to_half(torch.from_numpy(found.logits))) if found.logits.size <= LOGITS_KEPT else {}
    write_arrays(run.folder / 'predictions.npz', actual=found.actual, predicted=found.predicted, **logits)
    plain = run.dls.train.new(run.dls.train_ds.plain(), bs=valid.bs, shuffle=False, drop_last=False)
    trained = predict_labels(learn, plain, len(names))
    best_epoch, best = find_best_epoch(run.metrics_log.epochs, 'valid_map')
    average = average_precisions(found.actual, found.logits)
    return dict(
        train_map=mean_average_precision(average_precisions(trained.actual, trained.logits)),
        valid_map=mean_average_precision(average),
        best_valid_map=best,
        best_epoch=best_epoch,
        valid_f1=float(image_f1(found.actual, found.predicted).mean()),
        valid_f1_macro=macro_f1(counts),
        valid_f1_micro=micro_f1(counts),
        valid_loss=found.loss,
        valid_images=len(found.actual),
        label_counts=dict(zip(names, counts.tolist())),
        label_average_precision=dict(zip(names, average)),
    )


@dataclass
class LabelPredictions:
    "Predictions for a split."

    actual: np.ndarray  # (n, labels) uint8, 0 or 1
    logits: np.ndarray  # (n, labels) float32
    loss: float  # Mean over the images

    @property
    def predicted(self) -> np.ndarray:
        "(n, labels) uint8: 1 where the probability is above 0.5, the logit above 0"
        return (self.logits > 0).astype(np.uint8)


def predict_labels(
    learn: Learner,  # Trained; its model maps images to (n, labels)
    dl,  # DataLoader, in a fixed order
    n_labels: int,  # Number of labels
) -> LabelPredictions:
    "Predict all images. Raises Diverged for NaN or an infinite loss, KdfastError for other outputs."
    columns, loss = collect(learn, dl, lambda pred, actual: (actual, check_logits(pred, n_labels)))
    actual, logits = (column.numpy() for column in columns)
    return LabelPredictions(actual.astype(np.uint8), logits, loss)
