"Networks of random structure."

import torch
from torch import nn
from torch.nn.functional import relu_

import kdfast.distill.hint  # noqa: F401, adds Learner.fit_hint

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


# Generated networks


class Residual(nn.Module):
    "Its activation is one module that computes twice, and writes into what it is given"

    def __init__(self, inner, act):
        super().__init__()
        self.inner, self.act = inner, act

    def forward(self, x):
        return self.act(x + self.act(self.inner(x.clone())))


class Chain(nn.Module):
    "No Sequential; what its layers give is overwritten behind them"

    def __init__(self, parts, act):
        super().__init__()
        self.parts, self.unused, self.act = nn.ModuleList(parts), nn.Conv2d(4, 4, 1), act

    def forward(self, x):
        for part in self.parts:
            x = self.act(part(x.clone()))
        return x


class Backwards(nn.Sequential):
    "A Sequential with a forward of its own"

    def forward(self, x):
        for part in reversed(self):
            x = part(x)
        return x


def generated(draw, depth=2, overwrites=True):
    "A network of nested parts, some of which occur again; 4 channels in and out"
    shared = [nn.ReLU(overwrites), nn.Conv2d(4, 4, 3, 1, 1)]

    def part(depth):
        kind = draw.choice(
            ['conv', 'norm', 'shared', 'sequential', 'residual', 'chain', 'backwards']
            if depth
            else ['conv', 'norm', 'shared', 'act']
        )
        if kind == 'conv':
            return nn.Conv2d(4, 4, 3, 1, 1)
        if kind == 'norm':
            return nn.BatchNorm2d(4)
        if kind == 'act':
            return nn.ReLU(overwrites)
        if kind == 'shared':
            return draw.choice(shared)
        parts = [part(depth - 1) for _ in range(draw.randint(2, 4))]
        if kind == 'residual':
            return Residual(nn.Sequential(*parts), draw.choice([*shared[:1], nn.ReLU()]))
        return dict(
            sequential=lambda: nn.Sequential(*parts),
            chain=lambda: Chain(parts, relu_ if overwrites else torch.relu),
            backwards=lambda: Backwards(*parts),
        )[kind]()

    net = nn.Sequential(*[part(depth) for _ in range(3)])
    if draw.random() < 0.3:
        net[0].register_forward_hook(lambda module, inputs, output: output * 2)
    if draw.random() < 0.3:
        net.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    if draw.random() < 0.5:
        net = Chain([net], torch.relu)
    return net.eval()


def by_hooks(net, module):
    "What the layer gives each time that it computes"
    seen = []
    hook = module.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        net(X.clone())
    hook.remove()
    return seen
