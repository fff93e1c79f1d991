"Networks whose layers are convolutions or tokens."

import torch
from torch import nn

import kdfast.distill.hint  # noqa: F401, adds Learner.fit_hint

SIDE = 32


class Tokens(nn.Module):
    "A small vision transformer, with tokens of no position in front, behind and between"

    def __init__(
        self, n_classes=3, front=1, behind=0, middle=0, dim=24, patch=8, side=SIDE, depth=2, channels_first=False
    ):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        n = (side // patch) ** 2
        self.more = nn.ParameterList([torch.randn(1, k, dim) for k in (front, middle, behind)])
        self.place, self.side = nn.Parameter(0.1 * torch.randn(1, n, dim)), side
        self.join = nn.Identity()
        self.blocks = nn.Sequential(
            *[nn.TransformerEncoderLayer(dim, 2, 2 * dim, 0.0, batch_first=True, norm_first=True) for _ in range(depth)]
        )
        self.turned = nn.Identity()
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, n_classes)

    def forward(self, x):
        assert x.shape[2:] == (self.side, self.side), f'made for {self.side}×{self.side}'
        x = self.patches(x).flatten(2).mT + self.place
        (front, middle, behind), half = (more.expand(len(x), -1, -1) for more in self.more), x.shape[1] // 2
        x = self.blocks(self.join(torch.cat([front, x[:, :half], middle, x[:, half:], behind], 1)))
        self.turned(x.mT)
        return self.head(self.norm(x).mean(1))


def convolutions(n_classes=3):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, 1, 1),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, n_classes),
    )


def tokens(n_classes=3):
    return Tokens(n_classes, patch=4, side=8, depth=1, dim=16)
