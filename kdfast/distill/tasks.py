"""Tasks: one class, independent labels or numbers, found from the Learner's loss; soft loss of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from fastai.callback.mixup import MixHandler
from fastai.callback.rnn import RNNCallback
from fastai.losses import BaseLoss
from torch import Tensor

from kdfast.core.errors import KdfastError
from kdfast.core.format import shape_text
from kdfast.core.ranges import check_loss_numbers
from kdfast.distill.losses.logits import kd_loss
from kdfast.distill.losses.precision import precise, with_masks
from kdfast.distill.losses.shapes import check_equal
from kdfast.models.probabilities import reject_label_probabilities, reject_probabilities

LIBRARIES = 'torch', 'torchvision', 'fastai', 'timm'
CLASS = 'class'
LABELS = 'labels'
NUMBERS = 'numbers'


LOSSES = {  # names of the losses, classes and functions, of each kind of task
    CLASS: (
        'CrossEntropyLoss NLLLoss cross_entropy nll_loss LabelSmoothingCrossEntropy FocalLoss DiceLoss '
        'SoftTargetCrossEntropy'
    ).split(),
    LABELS: (
        'BCEWithLogitsLoss MultiLabelSoftMarginLoss binary_cross_entropy_with_logits multilabel_soft_margin_loss '
        'BinaryCrossEntropy sigmoid_focal_loss'
    ).split(),
    NUMBERS: 'MSELoss L1Loss SmoothL1Loss HuberLoss mse_loss l1_loss smooth_l1_loss huber_loss'.split(),
}


@dataclass(frozen=True)
class Task:
    "The kind of outputs that a loss expects."

    kind: str  # class: logits of exclusive classes; labels: logits of independent labels; numbers
    axis: int = 1  # Dimension of the classes

    def soft_loss(
        self,
        student: Tensor,  # Outputs
        teacher: Tensor,  # Outputs of the same shape
        T: float,  # Temperature, not used for numbers
    ) -> Tensor:  # Scalar
        "Compute the loss between student and teacher. Raises KdfastError for outputs of one class."
        if self.kind == NUMBERS:
            check_equal('the squared error', student, teacher)
            return F.mse_loss(student.float(), teacher.float())
        if self.kind == LABELS:
            return label_kd_loss(student, teacher, T)
        self.check(student)
        return kd_loss(*(x.movedim(self.axis, -1).flatten(0, -2) for x in (student, teacher)), T)

    def check(
        self,
        outputs: Tensor,  # Of the student
    ):
        "Raise KdfastError for outputs of one class."
        if outputs.dim() > 1 and outputs.shape[self.axis] > 1:
            return
        raise KdfastError(
            f'outputs of shape {shape_text(outputs.shape)} have a single class, from which nothing can be learned: '
            'use a loss for two classes, or BCEWithLogitsLossFlat for a binary label'
        )

    def check_logits(
        self,
        student: Tensor,  # Outputs
        teacher: Tensor,  # Outputs
    ):
        "Raise KdfastError for probabilities of classes; for those of labels only in the trained teacher."
        if self.kind == CLASS:
            reject_probabilities(student, 'the student', self.axis)
            reject_probabilities(teacher, 'the teacher', self.axis)
        elif self.kind == LABELS:
            reject_label_probabilities(teacher, 'the teacher')


def label_kd_loss(
    student: Tensor,  # Logits of the student, one per label
    teacher: Tensor,  # Logits of the teacher, the same shape
    T: float = 4.0,  # Temperature of both sigmoids
) -> Tensor:  # Scalar: mean over all labels
    """Compute the soft loss of independent labels, T² · KL of the sigmoids.

    The divergence is KL(Bernoulli(σ(teacher/T)) ‖ Bernoulli(σ(student/T))).
    """
    check_loss_numbers(T)
    check_equal('label_kd_loss', student, teacher)
    student, teacher = (precise(x, T) / T for x in with_masks(student.float(), teacher.float()))
    p = teacher.sigmoid()
    positive = p * (F.logsigmoid(teacher) - F.logsigmoid(student))
    negative = (1 - p) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (T**2 * (positive + negative).mean()).float()


def task_of(
    loss: Callable,  # Loss of a Learner
) -> Task:
    "Return the task of a loss. Raises KdfastError if the loss is unknown."
    if task := known_task(loss):
        return task
    raise KdfastError(
        f'the kind of outputs that the loss {name_of(loss)} expects is unknown: name a loss for the same outputs, '
        'such as task=CrossEntropyLossFlat(), BCEWithLogitsLossFlat() or MSELossFlat()'
    )


def known_task(
    loss: Callable,  # Loss of a Learner
) -> Task | None:
    "Return the task of a loss, or None if the loss is unknown."
    if inner := inner_loss(loss):
        task = known_task(inner)
        return Task(task.kind, loss.axis) if task and isinstance(loss, BaseLoss) else task
    kinds = {name: kind for kind, names in LOSSES.items() for name in names}
    kind = next((kinds[name] for name in library_names(loss) if name in kinds), None)
    return Task(kind, getattr(loss, 'axis', 1)) if kind else None


def check_mean(
    loss: Callable,  # Loss of a Learner
):
    "Raise KdfastError for a loss of a library that sums over the batch; a subclass may divide."
    outer = loss
    while loss is not None:
        of_library = type(loss).__module__.partition('.')[0] in (*LIBRARIES, 'functools')
        options = getattr(loss, 'keywords', getattr(loss, '__dict__', {}))  # of a partial, or a loss
        if of_library and options.get('reduction') == 'sum':
            raise KdfastError(
                f'Distill blends means over the batch, and the loss {name_of(outer)} sums: '
                "create it with reduction='mean'"
            )
        loss = inner_loss(loss)


def inner_loss(
    loss: Callable,  # Any loss
) -> Callable | None:
    "Return the loss inside a wrapper of fastai or functools, or None."
    if isinstance(loss, partial | BaseLoss):
        return loss.func
    owner = getattr(loss, '__self__', None)
    return owner.old_lf if isinstance(owner, MixHandler) else None  # MixUp replaces the loss in training


def library_names(
    loss: Callable,  # Any loss
) -> list[str]:
    "Return the names of a loss, or of its class and base classes, that are defined in LIBRARIES."
    candidates = [loss] if hasattr(loss, '__name__') else type(loss).__mro__
    return [c.__name__ for c in candidates if (getattr(c, '__module__', None) or '').partition('.')[0] in LIBRARIES]


def name_of(
    loss: Callable,  # Any loss
) -> str:
    "Return the name of a loss without its wrappers, for messages."
    while inner := inner_loss(loss):
        loss = inner
    return getattr(loss, '__name__', None) or type(loss).__name__


# Logits in the output of a network

Which = int | str | Callable | None


def logits_of(
    output,  # Output of a network
    which: Which = None,  # Which part of the output is the logits: index, name or function; default: all of it
) -> Tensor:
    "Return the logits in an output. Raises KdfastError if `which` does not exist in it."
    if callable(which):
        return which(output)
    if which is None or isinstance(output, Tensor):
        return output
    try:
        return getattr(output, which) if isinstance(which, str) and not isinstance(output, Mapping) else output[which]
    except (KeyError, IndexError, TypeError, AttributeError) as e:
        raise KdfastError(
            f'the output of a network ({described(output)}) does not contain {which!r}: change logits='
        ) from e


def teacher_choice(
    cbs,  # Callbacks of a Learner
    given: Which,  # By the user
) -> Which:
    "Return which part of the teacher's output is the logits; with RNNCallback the same as the student's."
    if given is None and any(isinstance(cb, RNNCallback) for cb in cbs):
        return first_output
    return given


def first_output(
    output,  # Output of a network
):
    "Return the part of an output that RNNCallback uses."
    if not isinstance(output, tuple | list):
        return output
    return output[0][-1] if isinstance(output[0], tuple | list) else output[0]


def check_same_shape(
    student,  # Logits of the student
    teacher,  # Logits of the teacher
) -> Tensor:  # The teacher's logits, in float32
    "Raise KdfastError unless both are tensors of one shape."
    if isinstance(student, Tensor) and isinstance(teacher, Tensor) and student.shape == teacher.shape:
        return teacher.float()
    advice = 'expected logits of the same classes'
    if not all(isinstance(o, Tensor) for o in (student, teacher)):
        advice += '; select them with logits= (index, name or function)'
    raise KdfastError(f'the teacher returns {described(teacher)}, the student {described(student)}: {advice}')


def described(
    output,  # Any value
) -> str:
    "Return the shape of a tensor, or the type of any other value."
    return shape_text(output.shape) if isinstance(output, Tensor) else type(output).__name__
