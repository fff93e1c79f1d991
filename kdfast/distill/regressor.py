"""The regressor: an extra layer between a guided layer and a hint layer of another shape."""

from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.core.format import shape_text
from kdfast.models.front import features


def regressor(
    student: nn.Module,  # The student's front
    teacher: nn.Module,  # The teacher's front
    xb: Tensor | tuple,  # Some images, to compute both shapes
) -> nn.Module:  # New
    """Return a convolution from (N, C, H, W) to (N, c, h, w): kernel (H − h + 1, W − w + 1), no padding.

    Maps guided features to the hint's channels, height and width. Romero et al. 2015, section 2.2; it is linear,
    where the paper adds the non-linearity of the hint layer. Between vectors it is a linear layer.

    If the guided features are smaller than the hint, the output of the convolution is enlarged by repetition. If one
    size is a multiple of the other, the gradient equals that of a comparison with the average-pooled hint.

    Raises KdfastError between a vector and a feature map, and from one position to several.

    Both fronts run in evaluation mode and are not changed.
    """
    guided = features(student, xb)
    hint = features(teacher, xb)
    if guided.dim() == hint.dim() == 2:
        return nn.Linear(guided.shape[1], hint.shape[1])
    if reason := why_impossible(guided, hint):
        here, there = (shape_text(x.shape[1:]) for x in (guided, hint))
        raise KdfastError(f'no regressor maps guided features {here} to a hint {there}: {reason}')
    sides = list(zip(guided.shape[2:], hint.shape[2:]))
    convolution = nn.Conv2d(guided.shape[1], hint.shape[1], [max(g - h, 0) + 1 for g, h in sides])
    if all(g >= h for g, h in sides):
        return convolution
    return nn.Sequential(convolution, nn.Upsample(tuple(hint.shape[2:])))


def why_impossible(
    guided: Tensor,  # (batch, …)
    hint: Tensor,  # (batch, …)
) -> str:
    "Return why no regressor exists between the two, or an empty string."
    if 2 in (guided.dim(), hint.dim()):
        return 'a vector has no positions; choose two feature maps (layers before the pooling) or two vectors'
    if not guided.dim() == hint.dim() == 4:
        return 'expected feature maps or vectors; choose other layers'
    if guided[0, 0].numel() == 1 < hint[0, 0].numel():
        return 'one position cannot be mapped to several; choose a guided layer nearer to the input'
    return ''
