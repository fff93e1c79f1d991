"""A loss of features behind a regressor that learns with it."""

from torch import Tensor, nn

from kdfast.distill.losses.features import hint_loss


class Regressed(nn.Module):
    "The fit loss behind a regressor that is trained beside the student: a hint and labels at once, as most tools have FitNets."

    def __init__(
        self,
        regressor: nn.Module,  # From the guided features to the hint's shape
    ):
        super().__init__()
        self.regressor = regressor

    def forward(
        self,
        guided: Tensor,  # The student's features, (batch, channels, height, width)
        hint: Tensor,  # The teacher's
    ) -> Tensor:  # Scalar: mean over all elements
        return hint_loss(self.regressor(guided), hint)
