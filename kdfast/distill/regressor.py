"""The extra layer between a guided layer and a hint layer of another shape."""

from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.models.front import features


def regressor(
    student: nn.Module,  # The student's front
    teacher: nn.Module,  # The teacher's front
    xb: Tensor | tuple,  # Some images, to see both shapes
) -> nn.Module:  # New
    """The extra matrix of a hint: a convolution from the guided features to the hint's channels, height and width.

    Romero et al. 2015, section 2.2: without padding, its kernel as large as it takes to shrink the guided features to the hint's
    height and width; 1×1 where they are equal. It is linear; the paper ends it in the hint's own non-linearity.
    Guided features that are smaller than the hint are repeated up to its size behind the convolution: the gradient is then that
    of a comparison with the hint averaged to theirs, where one size is a multiple of the other. Between vectors it is a linear layer.
    Raises KdfastError between a vector and a feature map, and from one position to several. Neither front is changed: both run in evaluation mode.
    """
    guided, hint = features(student, xb), features(teacher, xb)
    if guided.dim() == hint.dim() == 2:
        return nn.Linear(guided.shape[1], hint.shape[1])
    if reason := unbridged(guided, hint):
        raise KdfastError(
            f'no regressor maps guided features of {shape_text(guided)} onto a hint of {shape_text(hint)}: {reason}'
        )
    sides = list(zip(guided.shape[2:], hint.shape[2:]))
    convolution = nn.Conv2d(guided.shape[1], hint.shape[1], [max(g - h, 0) + 1 for g, h in sides])
    return (
        convolution if all(g >= h for g, h in sides) else nn.Sequential(convolution, nn.Upsample(tuple(hint.shape[2:])))
    )


def unbridged(guided, hint):
    "Why there is no regressor between the two, or an empty string"
    if 2 in (guided.dim(), hint.dim()):
        return 'a vector has no positions; choose two feature maps, which are found before the pooling, or two vectors'
    if not guided.dim() == hint.dim() == 4:
        return 'expected feature maps or vectors; choose other layers'
    if guided[0, 0].numel() == 1 < hint[0, 0].numel():
        return 'one position cannot follow several; choose a guided layer nearer to the image'
    return ''


def shape_text(x):
    return '×'.join(str(n) for n in x.shape[1:])
