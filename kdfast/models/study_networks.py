"The study's networks, of the same named stages: wide, the teacher; thin and matched, the students."

from collections import OrderedDict

from torch import nn
from torch.nn.functional import relu


def conv_bn(
    n_in: int,  # Channels that come in
    n_out: int,  # Channels that go out
    size: int = 3,  # Height and width of the kernel
    stride: int = 1,  # Step of the kernel
) -> nn.Sequential:
    "Convolution and batch norm."
    return nn.Sequential(nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False), nn.BatchNorm2d(n_out))


class Residual(nn.Module):
    """Two convolutions and a shortcut: https://arxiv.org/abs/1512.03385

    A shortcut that changes shape averages before its 1×1 convolution, so that no activation is skipped
    (ResNet-D, https://arxiv.org/abs/1812.01187); a block starts as its shortcut, the last scale being zero.
    """

    def __init__(
        self,
        n_in: int,  # Channels that come in
        n_out: int,  # Channels that go out
        stride: int = 1,  # 2 halves height and width
        n_mid: int | None = None,  # Channels between the two convolutions, n_out unless given
    ):
        super().__init__()
        n_mid = n_mid or n_out
        self.conv1, self.conv2 = conv_bn(n_in, n_mid, stride=stride), conv_bn(n_mid, n_out)
        pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.shortcut = (
            nn.Identity() if n_in == n_out and stride == 1 else nn.Sequential(pool, *conv_bn(n_in, n_out, 1))
        )
        nn.init.zeros_(self.conv2[1].weight)

    def forward(self, x):
        return relu(self.shortcut(x) + self.conv2(relu(self.conv1(x))))


def network(
    widths: tuple[int, int, int],  # Channels of the three stages
    n_classes: int,  # Outputs
    guided: int | None = None,  # Channels that the middle stage ends with, its width unless given
) -> nn.Sequential:
    "Stem, three stages of two residual blocks, head; height and width halve in the stem and before stages 2 and 3."
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


HINT = 84  # channels of the teacher's hint


def wide(
    n_classes: int = 10,  # Outputs
) -> nn.Sequential:
    "The teacher."
    return network((32, HINT, 184), n_classes)


def thin(
    n_classes: int = 10,  # Outputs
) -> nn.Sequential:
    "The student, whose guided features reach the hint only through a regressor."
    return network((16, 40, 88), n_classes)


def matched(
    n_classes: int = 10,  # Outputs
) -> nn.Sequential:
    "The student, changed so that its guided features have the hint's shape and need no regressor; as many parameters as `thin`."
    return network((16, 40, 77), n_classes, guided=HINT)
