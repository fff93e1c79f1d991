"""Variational information distillation."""

from math import expm1, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdfast.distill.losses.features import pool_to_smaller
from kdfast.distill.losses.precision import in_float32
from kdfast.distill.losses.review import check_maps

FIRST_VARIANCE, LEAST_VARIANCE = 5.0, 1e-5  # of VID, as in RepDistiller


class VID(nn.Module):
    """Variational information distillation: −log q(hint | guided), a Gaussian whose mean is learnt and whose variance is a channel's.

    Ahn et al. 2019, section 2 (https://arxiv.org/abs/1904.05835), less the constant; mean over all elements, where the paper sums.
    The mean is three 1×1 convolutions as wide as the hint, RepDistiller's; torchdistill lets one choose the width.
    Where heights or widths differ the larger is pooled to the smaller, vectors count as maps of 1×1.
    """

    def __init__(
        self,
        guided: int,  # Channels of the student's features
        hint: int,  # Channels of the teacher's
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
        hint: Tensor,  # The teacher's, likewise, with channels, height and width of its own
    ) -> Tensor:  # Scalar: mean over all elements; below 0 where the variance is small
        guided, hint = pool_to_smaller(check_maps(guided, self.mean[0].in_channels), check_maps(hint, len(self.alpha)))
        variance = (F.softplus(self.alpha) + LEAST_VARIANCE)[:, None, None]
        return 0.5 * ((hint - self.mean(guided)).square() / variance + variance.log()).mean()
