"The study's networks, with the same named stages: wide (the teacher), thin and matched (students)."

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import relu


def conv_bn(
    n_in: int,  # Input channels
    n_out: int,  # Output channels
    size: int = 3,  # Height and width of the kernel
    stride: int = 1,  # Of the kernel
) -> nn.Sequential:
    "Return a convolution followed by a batch norm."
    return nn.Sequential(nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False), nn.BatchNorm2d(n_out))


class Residual(nn.Module):
    """Residual block of two convolutions and a shortcut (He et al., https://arxiv.org/abs/1512.03385).

    A shortcut that changes the shape averages before its 1×1 convolution, so that no activation is skipped (ResNet-D,
    https://arxiv.org/abs/1812.01187). The last batch norm's weight is initialized to zero, so that a block starts as
    its shortcut.
    """

    def __init__(
        self,
        n_in: int,  # Input channels
        n_out: int,  # Output channels
        stride: int = 1,  # Of the first convolution; 2 halves height and width
        n_mid: int | None = None,  # Channels between the two convolutions; n_out by default
    ):
        super().__init__()
        n_mid = n_mid or n_out
        self.conv1 = conv_bn(n_in, n_mid, stride=stride)
        self.conv2 = conv_bn(n_mid, n_out)
        pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        if n_in == n_out and stride == 1:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Sequential(pool, *conv_bn(n_in, n_out, 1))
        nn.init.zeros_(self.conv2[1].weight)

    def forward(
        self,
        x: Tensor,  # (N, n_in, H, W)
    ) -> Tensor:  # (N, n_out, H / stride, W / stride), rounded up
        "Add the two convolutions to the shortcut."
        return relu(self.shortcut(x) + self.conv2(relu(self.conv1(x))))


def network(
    widths: tuple[int, int, int],  # Channels of the three stages
    n_classes: int,  # Outputs
    guided: int | None = None,  # Output channels of the middle stage; its width by default
) -> nn.Sequential:
    """Return a network of a stem, three stages of two residual blocks, and a head.

    The stem, stage 2 and stage 3 halve height and width.
    """
    w1, w2, w3 = widths
    guided = guided or w2

    def stage(n_in, width, stride=2, n_out=None):
        return nn.Sequential(Residual(n_in, width, stride), Residual(width, n_out or width, n_mid=width))

    return nn.Sequential(
        OrderedDict(
            stem=nn.Sequential(*conv_bn(3, w1, stride=2), nn.ReLU()),
            stage1=stage(w1, w1, stride=1),
            stage2=stage(w1, w2, n_out=guided),
            stage3=stage(guided, w3),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w3, n_classes)),
        )
    )


HINT_CHANNELS = 84  # output channels of the teacher's hint layer


def wide(
    n_classes: int = 10,  # Outputs
) -> nn.Sequential:
    "Return the teacher."
    return network((32, HINT_CHANNELS, 184), n_classes)


def thin(
    n_classes: int = 10,  # Outputs
) -> nn.Sequential:
    "Return the student whose guided features need a regressor to match the hint."
    return network((16, 40, 88), n_classes)


def matched(
    n_classes: int = 10,  # Outputs
) -> nn.Sequential:
    "Return the student whose guided features have the hint's shape; it has as many parameters as `thin`."
    return network((16, 40, 77), n_classes, guided=HINT_CHANNELS)
