"""The hint loss behind a regressor that is trained together with the student."""

from torch import Tensor, nn

from kdfast.distill.losses.features import hint_loss

__all__ = ['Regressed']


class Regressed(nn.Module):
    """Compute the hint loss of regressed features; the regressor is trained together with the student.

    With labels in the same fit this is the common one-stage form of FitNets (https://arxiv.org/abs/1412.6550).
    """

    def __init__(
        self,
        regressor: nn.Module,  # Maps the guided features to the hint's shape
    ):
        super().__init__()
        self.regressor = regressor

    def forward(
        self,
        guided: Tensor,  # The student's features, (batch, channels, height, width)
        hint: Tensor,  # The teacher's features, with channels, height and width of its own
    ) -> Tensor:  # Scalar: mean over all elements
        return hint_loss(self.regressor(guided), hint)
