"""What a network's outputs mean, which its loss tells: a class, labels, or numbers. The soft loss of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from fastai.callback.mixup import MixHandler
from fastai.callback.rnn import RNNCallback
from fastai.losses import BaseLoss
from torch import Tensor

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.logits import kd_loss

LIBRARIES = 'torch', 'torchvision', 'fastai', 'timm'
CLASS, LABELS, NUMBERS = 'class', 'labels', 'numbers'


LOSSES = {  # by the names of their classes and functions
    CLASS: 'CrossEntropyLoss NLLLoss cross_entropy nll_loss LabelSmoothingCrossEntropy FocalLoss DiceLoss SoftTargetCrossEntropy'.split(),
    LABELS: (
        'BCEWithLogitsLoss MultiLabelSoftMarginLoss binary_cross_entropy_with_logits multilabel_soft_margin_loss '
        'BinaryCrossEntropy sigmoid_focal_loss'
    ).split(),
    NUMBERS: 'MSELoss L1Loss SmoothL1Loss HuberLoss mse_loss l1_loss smooth_l1_loss huber_loss'.split(),
}


@dataclass(frozen=True)
class Task:
    "What outputs are."

    kind: str  # class: logits of which one is right; labels: logits each of which is right or wrong; numbers
    axis: int = 1  # Dimension of the classes

    def soft_loss(
        self,
        student: Tensor,  # Outputs
        teacher: Tensor,  # Outputs of the same shape
        T: float,  # Temperature; numbers have none
    ) -> Tensor:  # Scalar
        "How far the student is from the teacher. Raises KdfastError for outputs of one class."
        if self.kind == NUMBERS:
            return F.mse_loss(student.float(), teacher.float())
        if self.kind == LABELS:
            return label_kd_loss(student, teacher, T)
        self.check(student)
        return kd_loss(*(x.movedim(self.axis, -1).flatten(0, -2) for x in (student, teacher)), T)

    def check(self, outputs):
        if outputs.dim() > 1 and outputs.shape[self.axis] > 1:
            return
        raise KdfastError(
            f'the outputs {dimensions(outputs)} have one class, of which nothing can be learned: give the Learner a loss for two classes, '
            'or, for a yes or no, BCEWithLogitsLossFlat'
        )


def label_kd_loss(
    student: Tensor,  # Logits of the student, a label each
    teacher: Tensor,  # Logits of the teacher, the same shape
    T: float = 4.0,  # Temperature of both sigmoids
) -> Tensor:  # Scalar: mean over all labels
    "Soft loss where each label is right or wrong by itself: T² · KL(Bernoulli(σ(teacher/T)) ‖ Bernoulli(σ(student/T)))."
    student, teacher = (x.float() / T for x in (student, teacher))
    p = teacher.sigmoid()
    return (
        T**2
        * (
            p * (F.logsigmoid(teacher) - F.logsigmoid(student))
            + (1 - p) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
        ).mean()
    )


def task_of(
    loss: Callable,  # Loss of a Learner
) -> Task:
    "What the outputs are that it takes. Raises KdfastError for a loss that is not known."
    if task := known_task(loss):
        return task
    raise KdfastError(
        f'what outputs the loss {name_of(loss)} takes is not known: name a loss that takes the same, '
        'such as task=CrossEntropyLossFlat(), BCEWithLogitsLossFlat() or MSELossFlat()'
    )


def known_task(
    loss: Callable,  # Loss of a Learner
) -> Task | None:
    "The same; None for a loss that is not known."
    if inside := within(loss):
        task = known_task(inside)
        return Task(task.kind, loss.axis) if task and isinstance(loss, BaseLoss) else task
    known = {name: kind for kind, names in LOSSES.items() for name in names}
    kind = next((known[name] for name in names_of(loss) if name in known), None)
    return Task(kind, getattr(loss, 'axis', 1)) if kind else None


def within(loss):
    "The loss inside of what fastai and functools put around one"
    if isinstance(loss, partial | BaseLoss):
        return loss.func
    return (
        loss.__self__.old_lf if isinstance(getattr(loss, '__self__', None), MixHandler) else None
    )  # stands in for the loss in training


def names_of(loss):
    "Its own name, or those of its class and what that derives from, as far as a library made them"
    made = [loss] if hasattr(loss, '__name__') else type(loss).__mro__
    return [o.__name__ for o in made if (getattr(o, '__module__', None) or '').partition('.')[0] in LIBRARIES]


def name_of(
    loss: Callable,  # Any loss
) -> str:
    "What a user calls it."
    while inside := within(loss):
        loss = inside
    return getattr(loss, '__name__', None) or type(loss).__name__


# Logits among what a network gives

Which = int | str | Callable | None


def logits_of(
    output,  # What a network gives
    which: Which = None,  # Where the logits are in a tuple, a dictionary or an object: place, name, or a function of the output
) -> Tensor:
    "The logits; the output itself where it cannot be told."
    if callable(which):
        return which(output)
    if which is None or isinstance(output, Tensor):
        return output
    try:
        return getattr(output, which) if isinstance(which, str) and not isinstance(output, Mapping) else output[which]
    except (KeyError, IndexError, TypeError, AttributeError) as e:
        raise KdfastError(
            f'a network gives {described(output)}, in which there is no {which!r}: choose another for logits='
        ) from e


def which_of(
    cbs,  # Callbacks of a Learner
    given: Which,  # By the user
) -> Which:
    "Where a teacher's logits are: as the user says, or, where fastai's RNNCallback takes them out of the student's output, as it does."
    if given is None and any(isinstance(cb, RNNCallback) for cb in cbs):
        return first
    return given


def first(output):
    "What RNNCallback takes"
    if not isinstance(output, tuple | list):
        return output
    return output[0][-1] if isinstance(output[0], tuple | list) else output[0]


def alike(
    student,  # Logits of the student
    teacher,  # Logits of the teacher
) -> Tensor:  # The teacher's, in float32
    "Raises KdfastError where they are no tensors of one shape."
    if isinstance(student, Tensor) and isinstance(teacher, Tensor) and student.shape == teacher.shape:
        return teacher.float()
    mend = 'expected logits of both, of the same classes'
    if not all(isinstance(o, Tensor) for o in (student, teacher)):
        mend += ': say with logits= which part they are, by place, name or a function'
    raise KdfastError(f'the teacher gives {described(teacher)}, the student {described(student)}: {mend}')


def described(output):
    return dimensions(output) if isinstance(output, Tensor) else type(output).__name__


def dimensions(x):
    return '×'.join(map(str, x.shape))
