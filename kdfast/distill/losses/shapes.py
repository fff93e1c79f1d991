"Check the shapes that losses compare: PyTorch would broadcast unequal ones without a word."

from torch import Tensor

from kdfast.core.errors import KdfastError
from kdfast.core.format import shape_text

__all__ = []


def check_classes(
    loss: str,  # Name, for the error
    student: Tensor,  # What the loss compares
    teacher: Tensor,  # What the loss compares
):
    "Raise KdfastError unless both are logits (images, classes), of the same two or more classes."
    if student.dim() == 2 and student.shape[1] > 1 and student.shape == teacher.shape:
        return
    raise KdfastError(
        f'{loss} compares logits (images, classes), found {found(student, teacher)}: use Distill, or layers that '
        'return logits'
    )


def check_equal(
    loss: str,  # Name, for the error
    student: Tensor,  # What the loss compares
    teacher: Tensor,  # What the loss compares
):
    "Raise KdfastError unless both have the same shape."
    if student.shape != teacher.shape:
        raise KdfastError(
            f'{loss} expects equal shapes, found {found(student, teacher)}: choose other layers, or map the '
            "student's features to the teacher's shape (Regressed)"
        )


def check_images(
    loss: str,  # Name, for the error
    student: Tensor,  # (batch, …)
    teacher: Tensor,  # (batch, …)
):
    "Raise KdfastError unless both have the same number of images."
    if student.shape[:1] != teacher.shape[:1]:
        raise KdfastError(
            f'{loss} expects features of the same images, found {found(student, teacher)}: choose layers whose first '
            'dimension is the batch'
        )


def found(
    student: Tensor,  # What a loss compares
    teacher: Tensor,  # What a loss compares
) -> str:
    "Return the shapes of both, or the one that both have."
    here, there = (shape_text(x.shape) or 'one number' for x in (student, teacher))
    return here if here == there else f'{here} of the student and {there} of the teacher'
