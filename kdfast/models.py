"The study's two networks: the same named stages, wide for the teacher and thin for the student."
from collections import OrderedDict

from torch import nn
from torch.nn.functional import relu


def conv_bn(
    n_in:int, # Channels that come in
    n_out:int, # Channels that go out
    size:int=3, # Height and width of the kernel
    stride:int=1, # Step of the kernel
) -> nn.Sequential:
    "Convolution and batch norm."
    return nn.Sequential(nn.Conv2d(n_in, n_out, size, stride, size//2, bias=False), nn.BatchNorm2d(n_out))


class Residual(nn.Module):
    """Two convolutions and a shortcut: https://arxiv.org/abs/1512.03385

    A shortcut that changes shape averages before its 1×1 convolution, so that no activation is skipped
    (ResNet-D, https://arxiv.org/abs/1812.01187); a block starts as its shortcut, the last scale being zero.
    """
    def __init__(self,
        n_in:int, # Channels that come in
        n_out:int, # Channels that go out
        stride:int=1, # 2 halves height and width
    ):
        super().__init__()
        self.conv1,self.conv2 = conv_bn(n_in, n_out, stride=stride),conv_bn(n_out, n_out)
        pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.shortcut = nn.Identity() if n_in == n_out and stride == 1 else nn.Sequential(pool, *conv_bn(n_in, n_out, 1))
        nn.init.zeros_(self.conv2[1].weight)

    def forward(self, x): return relu(self.shortcut(x) + self.conv2(relu(self.conv1(x))))


def network(
    widths:tuple[int,int,int], # Channels of the three stages
    n_classes:int, # Outputs
) -> nn.Sequential:
    "Stem, three stages of two residual blocks, head; height and width halve in the stem and before stages 2 and 3."
    w1,w2,w3 = widths
    def stage(n_in, n_out, stride=2): return nn.Sequential(Residual(n_in, n_out, stride), Residual(n_out, n_out))
    return nn.Sequential(OrderedDict(
        stem   = nn.Sequential(*conv_bn(3, w1, stride=2), nn.ReLU()),
        stage1 = stage(w1, w1, stride=1),
        stage2 = stage(w1, w2),
        stage3 = stage(w2, w3),
        head   = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w3, n_classes)),
    ))


def wide(
    n_classes:int=10, # Outputs
) -> nn.Sequential:
    "The teacher."
    return network((32, 84, 184), n_classes)


def thin(
    n_classes:int=10, # Outputs
) -> nn.Sequential:
    "The student, and its own baseline."
    return network((16, 40, 88), n_classes)
