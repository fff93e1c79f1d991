"""Feature maps: how the output of a layer is laid out, found by changing the image, and brought to N×C×H×W.

Axes are named N (images of the batch), C (channels), H and W (rows and columns) and T (tokens, row by row). Two facts decide:

1. The sides of a map follow the sides of the image: an axis that changes with the image's height alone is H, with its width alone W.
2. For tokens, and where the network takes images of one size only: other rows in the image change the same rows of the map most,
   other columns the same columns (`kdfast.models.positions`).
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.models import positions
from kdfast.models.noise import Inputs, trying, watch

FEW = 2  # images that show the shape of an output


@dataclass(frozen=True)
class Layout:
    "Where an output has its channels and its positions."

    axes: str  # NCHW, NHWC …; NTC or NCT of tokens; NC of a vector
    grid: tuple = ()  # Rows and columns of the tokens
    prefix: int = 0  # Tokens before those: class, distillation, registers

    def arrange(
        self,
        x: torch.Tensor,  # What the layer gives
    ) -> torch.Tensor:  # (batch, channels, height, width); of a vector (batch, channels)
        "The same values as a feature map. What is one already stays the same tensor."
        if self.axes == 'NCHW':
            return x
        if self.axes == 'NC':
            return x.flatten(1)
        axes = self.axes
        if self.grid:
            at, n = axes.index('T'), self.grid[0] * self.grid[1]
            x, axes = x.narrow(at, self.prefix, n).unflatten(at, self.grid), axes.replace('T', 'HW')
        return x.permute([axes.index(axis) for axis in 'NCHW'])


# What layers give, as feature maps


class Arranged:
    "Brings what layers of a network give to N×C×H×W; of a network that sees no images, leaves it as it is."

    def __init__(self):
        self.known = {}

    def prepare(
        self,
        net: nn.Module,  # The network, as it was made
        layers: dict[str, nn.Module],  # Names and modules, the same each time
        given: tuple[tuple, dict],  # What it is called with: positional arguments, and those by name
    ):
        "Find out how outputs are laid out, once for each size of the images. Raises KdfastError for a layer that gives neither map nor vector."
        self.size = Inputs(given).size
        if self.size not in self.known:
            self.known[self.size] = layouts(net, layers, given)
        for layout in self.known[self.size].values():
            if isinstance(layout, KdfastError):
                raise layout

    def __call__(
        self,
        layer: str,  # Its name
        output: torch.Tensor,  # What it gave for what was prepared
    ) -> torch.Tensor:
        layout = self.known[self.size][layer]
        return layout.arrange(output) if layout else output


# How an output is laid out


def layouts(
    net: nn.Module,  # Any network
    layers: dict[str, nn.Module],  # Names and modules of some of its layers
    given: tuple[tuple, dict],  # What it is called with: positional arguments, and those by name
) -> dict[str, Layout | KdfastError | None]:  # None where the network sees no image: outputs are then taken as they are
    """How the outputs of these layers are laid out; a KdfastError for one that gives neither a feature map nor a vector.

    Images, float tensors of four dimensions, are replaced by noise. The network is called in evaluation mode and left as it was.
    """
    inputs = Inputs(given)
    if not inputs.n:
        return dict.fromkeys(layers)
    with trying(net):
        calls, stopped = shapes(net, layers, inputs)
        found = {name: unusable(name, calls[name], net, stopped) for name in layers}
        rest = {name: module for name, module in layers.items() if not found[name]}
        sizes = [calls, *(shapes(net, rest, inputs, scale)[0] for scale in ((2, 1), (1, 2)))]  # taller and wider images
        read = {name: readings(*[seen[name][0] if seen[name] else None for seen in sizes]) for name in rest}
        unsure = {name: axes for name, (axes, sure) in read.items() if not sure}
        moved = positions.moved(net, rest, unsure, inputs) if unsure else {}
    for name, (axes, sure) in read.items():
        where = (axes[0],) if sure else positions.best(axes, calls[name][0], moved[name], inputs.sides)
        found[name] = Layout(*where) if where else no_map(name, calls[name][0])
    return found


def shapes(net, layers, inputs, scale=(1, 1)):
    "What each layer gives, call by call: a shape, or the type of what is no tensor; and what stopped the network"
    seen = {name: [] for name in layers}

    def see(name, output):
        seen[name].append(tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__)

    return seen, watch(net, layers, see, inputs.noise(FEW, scale))


def unusable(name, calls, net, stopped):
    "Why nothing can be learnt from what the layer gives, or None"
    kind = type(net).__name__
    if not calls:
        return KdfastError(
            f'{kind} does not compute its layer {name} when it is shown an image{f" ({stopped})" if stopped else ""}: choose another'
        )
    if len(calls) > 1:
        return KdfastError(
            f'{kind} computes its layer {name} {len(calls)} times for an image: choose one that it computes once'
        )
    (shape,) = calls
    if isinstance(shape, str):
        return KdfastError(f'layer {name} gives {shape}, expected a tensor: choose another')
    if shape[:1] != (FEW,):
        return KdfastError(
            f'layer {name} gives {times(shape)} for {FEW} images, as windows of images do: no feature map of each image, choose another layer'
        )
    if len(shape) not in (2, 3, 4):
        return KdfastError(
            f'layer {name} gives {times(shape[1:])} for an image, neither a feature map nor a vector: choose another'
        )
    return None


def no_map(name, shape):
    return KdfastError(
        f'layer {name} gives {times(shape[1:])} for an image, and nothing shows which of that are rows and columns: '
        'no feature map, choose another layer'
    )


def times(shape):
    return '×'.join(map(str, shape))


def readings(
    shape: tuple,  # Of what the layer gives
    taller: tuple | str | None,  # Of what it gives for taller images, where it gives anything
    wider: tuple | str | None,  # For wider images
) -> tuple[list[str], bool]:  # Layouts that are possible, and whether the only one is sure
    "How the axes can be read."
    if len(shape) == 2:
        return ['NC'], True
    long = [axis for axis, n in enumerate(shape) if axis and n > 1]
    if len(long) < 2:
        return ['NC' if len(shape) == 3 else {2: 'NHCW', 3: 'NHWC'}.get(*long or [1], 'NCHW')], True  # one position
    known = follows(shape, taller, wider)
    if len(shape) == 3:
        return [
            axes
            for axes in ('NTC', 'NCT')
            if not known or (known[axes.index('T')] in ' T' and known[axes.index('C')] == ' ')
        ], False
    if not known or known == '    ':
        return ['NCHW', 'NHWC', 'NHCW'], False
    fits = [
        axes for axes in map(''.join, permutations('CHW')) if all(k in (' ', axis) for k, axis in zip(known[1:], axes))
    ]
    flat = [
        axes for axes in fits if all(axis in known or shape[1 + axes.index(axis)] == 1 for axis in 'HW')
    ]  # a side of 1 grows with nothing
    return ['N' + axes for axes in flat or fits], len(flat) == 1


def follows(shape, *others):
    "What each axis changes with: H the height of the images alone, W their width alone, T both, a space neither; None where that is not known"
    if any(not isinstance(other, tuple) or len(other) != len(shape) for other in others):
        return None
    return ''.join(' HWT'[(n != taller) + 2 * (n != wider)] for n, taller, wider in zip(shape, *others))
