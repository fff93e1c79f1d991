"""Evaluate the test images: once, after training, and only if others validate."""

from fastai.basics import Learner

from kdfast.data.dataloaders import Images
from kdfast.stats.labels import average_precisions, mean_average_precision
from kdfast.training.label_evaluation import predict_labels
from kdfast.training.outputs import write_arrays
from kdfast.training.predictions import predict_split

NONE = dict(test_accuracy=None, test_map=None, test_loss=None, test_images=None)  # without test images


def evaluate_test(
    run,  # kdfast.training.run.Run that was trained
    learn: Learner,  # Its Learner
) -> dict:  # Results; None for those that the data set does not have
    "Compute accuracy (of several labels: mAP) and loss on the test images; save the predictions."
    data = run.data
    if data.test is None:
        return NONE
    images = run.dls.valid.new(Images(*data.test, data.classes, size=data.size))
    found = (predict_labels if data.several else predict_split)(learn, images, len(data.classes))
    write_arrays(run.folder / 'test_predictions.npz', actual=found.actual, predicted=found.predicted)
    if data.several:
        score = dict(test_map=mean_average_precision(average_precisions(found.actual, found.logits)))
    else:
        score = dict(test_accuracy=found.accuracy)
    return NONE | score | dict(test_loss=found.loss, test_images=len(found.actual))
