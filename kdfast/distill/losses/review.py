"""Knowledge review."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.features import hcl_loss
from kdfast.distill.losses.precision import in_float32

WIDEST = 512  # channels in which ReviewKD fuses


class ReviewKD(nn.Module):
    """Knowledge review: each stage of the teacher teaches the student's stages up to that depth, fused by attention.

    Chen et al. 2021, section 3 (https://arxiv.org/abs/2104.09044): from the deepest stage to the first, the features fused so far
    are brought to the next stage's size, and `hcl_loss` compares what comes of them with the hint; the losses are summed.
    Sizes come from the features. Where a hint's size is another than the student's, fused features are brought to it, as in
    mdistiller; torchdistill expects equal sizes. mdistiller raises the loss's weight over the first epochs; the recipe does not.
    Raises KdfastError for lists of unequal length.
    """

    together = True  # Match gives it all stages at once

    def __init__(
        self,
        guided: list[int],  # Channels of the student's stages, first to deepest
        hint: list[int],  # Channels of the teacher's
    ):
        super().__init__()
        if len(guided) != len(hint):
            raise KdfastError(
                f'ReviewKD pairs stages, found {len(guided)} of the student and {len(hint)} of the teacher: give as many of both'
            )
        middle, deepest = min(WIDEST, guided[-1]), len(guided) - 1
        self.fusions = nn.ModuleList(Fusion(g, middle, h, i == deepest) for i, (g, h) in enumerate(zip(guided, hint)))

    @in_float32
    def forward(
        self,
        guided: list[
            Tensor
        ],  # The student's features, first to deepest stage, each (batch, channels, height, width) or (batch, channels)
        hint: list[Tensor],  # The teacher's, likewise
    ) -> Tensor:  # Scalar: mean over the elements of a stage, sum over the stages
        losses, deeper = [], None
        for fuse, g, h in reversed(list(zip(self.fusions, guided, hint, strict=True))):
            g, h = check_maps(g, fuse.inward[0].in_channels), check_maps(h, fuse.outward[0].out_channels)
            fused, deeper = fuse(g, deeper, h.shape[2:])
            losses.append(hcl_loss(fused, h))
        return sum(losses)


class Fusion(nn.Module):
    "Attention based fusion of a stage with those behind it (ABF). The deepest stage has nothing to fuse."

    def __init__(
        self,
        guided: int,  # Channels of the student's stage
        middle: int,  # Channels of what is fused
        hint: int,  # Channels of the teacher's stage
        deepest: bool,  # No stage is behind it
    ):
        super().__init__()
        self.inward = nn.Sequential(nn.Conv2d(guided, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.outward = nn.Sequential(nn.Conv2d(middle, hint, 3, padding=1, bias=False), nn.BatchNorm2d(hint))
        self.attention = None if deepest else nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())

    def forward(self, x, deeper, size):
        "(what compares with the hint, what the stage before fuses), both of height and width `size`"
        x = self.inward(x)
        if self.attention:
            deeper = F.interpolate(deeper, x.shape[2:])
            here, there = self.attention(torch.cat([x, deeper], 1)).split(1, dim=1)
            x = here * x + there * deeper
        x = F.interpolate(x, size)
        return self.outward(x), x


def check_maps(x, channels):
    "Vectors as feature maps of 1×1. Raises KdfastError for anything else, and for other channels than the loss was made for."
    if x.dim() == 2:
        x = x[:, :, None, None]
    if x.dim() == 4 and x.shape[1] == channels:
        return x
    raise KdfastError(
        f'this loss was made for features (batch, {channels}, height, width) or (batch, {channels}), found {tuple(x.shape)}: '
        'give it the channels of its layers; Match arranges tokens as maps'
    )
