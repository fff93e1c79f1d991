"""The loss of a run on labels: one class of each image, or several labels."""

from collections.abc import Callable

from fastai.basics import BCEWithLogitsLossFlat, CrossEntropyLossFlat, accuracy

from kdfast.core.errors import KdfastError
from kdfast.data.dataset import Data
from kdfast.distill.tasks import CLASS, known_task, name_of


def default_loss(
    several: bool,  # Whether images have several labels
) -> dict:  # Arguments of a Learner
    "Return loss and metrics: cross-entropy and accuracy or, of several labels, binary cross-entropy."
    if several:
        return dict(loss_func=BCEWithLogitsLossFlat())
    return dict(loss_func=CrossEntropyLossFlat(), metrics=accuracy)


def check_loss(
    loss: Callable,  # Of a Learner
    data: Data,  # Images of the run
):
    "Raise KdfastError for a loss of one class per image on images with several labels."
    task = known_task(loss) if data.several else None
    if task and task.kind == CLASS:
        raise KdfastError(
            f'{data.name} has several labels per image, and the loss {name_of(loss)} expects one class: use '
            'BCEWithLogitsLossFlat() or another loss of independent labels, or omit loss_func'
        )
