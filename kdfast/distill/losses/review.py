"""Knowledge review (ReviewKD)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.features import hcl_loss
from kdfast.distill.losses.precision import in_float32

__all__ = ['ReviewKD']

WIDEST = 512  # largest number of channels of fused features


class ReviewKD(nn.Module):
    """Compare each stage of the teacher with the attention-fused stages of the student from that depth on.

    Chen et al. 2021, section 3 (https://arxiv.org/abs/2104.09044). From the deepest stage to the first, the features
    fused so far are resized and fused with the next stage, and `hcl_loss` compares the result with the teacher's
    stage. The losses of all stages are summed.

    If a stage of the teacher has another height or width, the fused features are resized to it, as in mdistiller;
    torchdistill expects equal sizes. mdistiller increases the weight of the loss over the first epochs; the recipe
    does not.

    Raises KdfastError for lists of unequal length.
    """

    together = True  # Match calls it once, with the features of all stages

    def __init__(
        self,
        guided: list[int],  # Channels of the student's stages, first to deepest
        hint: list[int],  # Channels of the teacher's stages, first to deepest
    ):
        super().__init__()
        if len(guided) != len(hint):
            raise KdfastError(
                f'ReviewKD pairs stages, found {len(guided)} of the student and {len(hint)} of the teacher: '
                'give the same number of both'
            )
        middle = min(WIDEST, guided[-1])
        deepest = len(guided) - 1
        self.fusions = nn.ModuleList(Fusion(g, middle, h, i == deepest) for i, (g, h) in enumerate(zip(guided, hint)))

    @in_float32
    def forward(
        self,
        guided: list[Tensor],  # The student's stages, first to deepest: (batch, channels, height, width) or vectors
        hint: list[Tensor],  # The teacher's stages, likewise
    ) -> Tensor:  # Scalar: mean over the elements of a stage, sum over the stages
        losses, deeper = [], None
        for fuse, g, h in reversed(list(zip(self.fusions, guided, hint, strict=True))):
            g = check_maps(g, fuse.inward[0].in_channels)
            h = check_maps(h, fuse.outward[0].out_channels)
            fused, deeper = fuse(g, deeper, h.shape[2:])
            losses.append(hcl_loss(fused, h))
        return sum(losses)


class Fusion(nn.Module):
    "Fuse a stage with the deeper stages by attention (ABF). The deepest stage is only projected."

    def __init__(
        self,
        guided: int,  # Channels of the student's stage
        middle: int,  # Channels of the fused features
        hint: int,  # Channels of the teacher's stage
        deepest: bool,  # Whether this is the deepest stage
    ):
        super().__init__()
        self.inward = nn.Sequential(nn.Conv2d(guided, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.outward = nn.Sequential(nn.Conv2d(middle, hint, 3, padding=1, bias=False), nn.BatchNorm2d(hint))
        self.attention = None if deepest else nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())

    def forward(
        self,
        x: Tensor,  # The student's stage, (batch, channels, height, width)
        deeper: Tensor | None,  # Fused features of the next deeper stage
        size: tuple,  # Height and width of the teacher's stage
    ) -> tuple[Tensor, Tensor]:  # Features to compare with the hint; features for the next shallower stage
        x = self.inward(x)
        if self.attention:
            deeper = F.interpolate(deeper, x.shape[2:])
            here, there = self.attention(torch.cat([x, deeper], 1)).split(1, dim=1)
            x = here * x + there * deeper
        x = F.interpolate(x, size)
        return self.outward(x), x


def check_maps(
    x: Tensor,  # Features
    channels: int,  # That the loss expects
) -> Tensor:  # (batch, channels, height, width)
    "Return features as maps, vectors as 1×1 maps. Raises KdfastError for other shapes or channels."
    if x.dim() == 2:
        x = x[:, :, None, None]
    if x.dim() == 4 and x.shape[1] == channels:
        return x
    raise KdfastError(
        f'this loss expects features (batch, {channels}, height, width) or (batch, {channels}), '
        f'found {tuple(x.shape)}: create it with the channels of its layers; Match converts tokens to feature maps'
    )
