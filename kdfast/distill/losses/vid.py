"""Variational information distillation."""

from math import expm1, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdfast.distill.losses.features import pool_to_smaller
from kdfast.distill.losses.precision import in_float32
from kdfast.distill.losses.review import check_maps
from kdfast.distill.losses.shapes import check_images

__all__ = ['VID']

FIRST_VARIANCE = 5.0  # as in RepDistiller
LEAST_VARIANCE = 1e-5


class VID(nn.Module):
    """Compute −log q(hint | guided): q is a Gaussian with learned mean and one variance per channel.

    Ahn et al. 2019, section 2 (https://arxiv.org/abs/1904.05835), without the constant; mean over all elements, where
    the paper sums. The mean is a stack of three 1×1 convolutions as wide as the hint, as in RepDistiller;
    torchdistill has an option for the width. The larger of two feature maps is average-pooled to the smaller. Vectors
    count as 1×1 maps.

    Raises KdfastError for features with other numbers of channels than given here.
    """

    def __init__(
        self,
        guided: int,  # Channels of the student's features
        hint: int,  # Channels of the teacher's features
    ):
        super().__init__()
        widths = (guided, hint), (hint, hint), (hint, hint)
        first, second, third = (nn.Conv2d(*width, 1, bias=False) for width in widths)
        self.mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.alpha = nn.Parameter(torch.full((hint,), log(expm1(FIRST_VARIANCE - LEAST_VARIANCE))))

    @in_float32
    def forward(
        self,
        guided: Tensor,  # The student's features, (batch, channels, height, width) or (batch, channels)
        hint: Tensor,  # The teacher's features, likewise, with channels, height and width of its own
    ) -> Tensor:  # Scalar: mean over all elements; negative where the variance is small
        check_images('VID', guided, hint)
        guided, hint = pool_to_smaller(check_maps(guided, self.mean[0].in_channels), check_maps(hint, len(self.alpha)))
        variance = (F.softplus(self.alpha) + LEAST_VARIANCE)[:, None, None]
        return 0.5 * ((hint - self.mean(guided)).square() / variance + variance.log()).mean()
