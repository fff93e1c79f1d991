"""Feature maps: find the layout of a layer's output, and convert it to N×C×H×W.

Axes are named N (images of the batch), C (channels), H and W (rows and columns) and T (tokens, row by row). The layout
is found by changing the images:

1. An axis whose length changes with the height of the images alone is H; with their width alone, W.
2. For tokens, and for networks that accept images of one size only: when some rows of the image change, the same rows
   of the map change most; when columns change, the same columns (`kdfast.models.positions`).
"""

from dataclasses import dataclass
from itertools import permutations

from torch import Tensor, nn

from kdfast.core.errors import KdfastError, reason
from kdfast.core.format import shape_text
from kdfast.models import positions
from kdfast.models.noise import Inputs, record_layers, trial

N_IMAGES = 2  # in the batches that show the shape of an output


@dataclass(frozen=True)
class Layout:
    "The layout of a layer's output."

    axes: str  # NCHW, NHWC …; NTC or NCT for tokens; NC for a vector
    grid: tuple = ()  # Rows and columns of the tokens
    prefix: int = 0  # Tokens before those of the grid: class, distillation, registers

    def arrange(
        self,
        x: Tensor,  # Output of the layer
    ) -> Tensor:  # (batch, channels, height, width); for a vector (batch, channels)
        "Convert an output to a feature map. An output that is one already is returned unchanged."
        if self.axes == 'NCHW':
            return x
        if self.axes == 'NC':
            return x.flatten(1)
        axes = self.axes
        if self.grid:
            dim = axes.index('T')
            rows, columns = self.grid
            x = x.narrow(dim, self.prefix, rows * columns).unflatten(dim, self.grid)
            axes = axes.replace('T', 'HW')
        return x.permute([axes.index(axis) for axis in 'NCHW'])


# Outputs of layers as feature maps


class Arranged:
    "Convert outputs of layers to N×C×H×W; without images among the inputs they stay unchanged."

    def __init__(self):
        self.known = {}

    def prepare(
        self,
        net: nn.Module,  # The network
        layers: dict[str, nn.Module],  # Layers by name, the same in each call
        inputs: tuple[tuple, dict],  # Positional and keyword arguments of the network
    ):
        """Find the layouts, once for each image size.

        Raises KdfastError if an output is neither a feature map nor a vector.
        """
        self.size = Inputs(inputs).size
        if self.size not in self.known:
            self.known[self.size] = layouts(net, layers, inputs)
        for layout in self.known[self.size].values():
            if isinstance(layout, KdfastError):
                raise layout

    def __call__(
        self,
        layer: str,  # Its name
        output: Tensor,  # Its output for the inputs that were prepared
    ) -> Tensor:
        layout = self.known[self.size][layer]
        return layout.arrange(output) if layout else output


# Find layouts


def layouts(
    net: nn.Module,  # Any network; left as it was
    layers: dict[str, nn.Module],  # Some of its layers by name
    inputs: tuple[tuple, dict],  # Positional and keyword arguments of the network
) -> dict[str, Layout | KdfastError | None]:  # None for all if the inputs are no images
    """Find the layout of each layer's output.

    The value is a KdfastError if an output is neither a feature map nor a vector. Images, that is float tensors of four
    dimensions, are replaced by noise. The network is called in evaluation mode.
    """
    inputs = Inputs(inputs)
    if not inputs.n:
        return dict.fromkeys(layers)
    with trial(net):
        outputs, error = output_shapes(net, layers, inputs)
        found = {name: unusable(name, outputs[name], net, error) for name in layers}
        usable = {name: module for name, module in layers.items() if not found[name]}
        taller, wider = (output_shapes(net, usable, inputs, scale)[0] for scale in ((2, 1), (1, 2)))
        candidates, certain = {}, {}
        for name in usable:
            shapes = [calls[name][0] if calls[name] else None for calls in (outputs, taller, wider)]
            candidates[name], certain[name] = possible_axes(*shapes)
    uncertain = {name: axes for name, axes in candidates.items() if not certain[name]}
    shapes = {name: outputs[name][0] for name in uncertain}
    located = positions.locate(net, layers, uncertain, shapes, inputs)
    for name, axes in candidates.items():
        if certain[name]:
            found[name] = Layout(axes[0])
        else:
            place = located[name]
            found[name] = Layout(*place) if isinstance(place, tuple) else no_map(name, shapes[name], place)
    return found


def output_shapes(
    net: nn.Module,  # In evaluation mode
    layers: dict[str, nn.Module],  # Some of its layers by name
    inputs: Inputs,  # Of the network
    scale: tuple[int, int] = (1, 1),  # Factors of the images' height and width
) -> tuple[dict[str, list], Exception | None]:
    """Return the output shapes of each layer, call by call, and what stopped the network.

    An output that is no tensor has the name of its type in place of a shape.
    """
    shapes = {name: [] for name in layers}

    def record(name, output):
        shapes[name].append(tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__)

    return shapes, record_layers(net, layers, record, inputs.noise(N_IMAGES, scale))


def unusable(
    name: str,  # Of the layer
    calls: list,  # Shape, or name of a type, of each output
    net: nn.Module,  # The network
    stopped: Exception | None,  # What stopped the network
) -> KdfastError | None:
    "Return the error for a layer whose output can be neither a feature map nor a vector of each image."
    kind = type(net).__name__
    if not calls:
        cause = f' ({reason(stopped)})' if stopped else ''
        return KdfastError(f'{kind} does not compute its layer {name} for an image{cause}: choose another')
    if len(calls) > 1:
        return KdfastError(
            f'{kind} computes its layer {name} {len(calls)} times for an image: choose one that it computes once'
        )
    (shape,) = calls
    if isinstance(shape, str):
        return KdfastError(f'layer {name} gives {shape}, expected a tensor: choose another')
    if shape[:1] != (N_IMAGES,):
        return KdfastError(
            f'layer {name} gives {shape_text(shape)} for {N_IMAGES} images, as windows of images do: no feature map of '
            'each image, choose another layer'
        )
    if len(shape) not in (2, 3, 4):
        return KdfastError(
            f'layer {name} gives {shape_text(shape[1:])} for an image, neither a feature map nor a vector: choose '
            'another'
        )
    return None


def no_map(
    name: str,  # Of the layer
    shape: tuple,  # Of its output
    stopped: Exception | None = None,  # What stopped the network when its images were changed
) -> KdfastError:
    "Return the error for a layer whose layout could not be found."
    cause = f', because the network fails for other images of that size ({reason(stopped)})' if stopped else ''
    return KdfastError(
        f'layer {name} gives {shape_text(shape[1:])} for an image, and its rows and columns cannot be identified'
        f'{cause}: no feature map, choose another layer'
    )


def possible_axes(
    shape: tuple,  # Of the layer's output
    taller: tuple | str | None,  # Of its output for images of twice the height, if there is one
    wider: tuple | str | None,  # Of its output for images of twice the width, if there is one
) -> tuple[list[str], bool]:
    "Return the possible layouts of an output, and whether the only one is certain."
    if len(shape) == 2:
        return ['NC'], True
    long = [dim for dim, n in enumerate(shape) if dim and n > 1]
    if len(long) < 2:  # a single position
        if len(shape) == 3:
            return ['NC'], True
        channels = long[0] if long else 1
        return [{2: 'NHCW', 3: 'NHWC'}.get(channels, 'NCHW')], True
    known = size_dependence(shape, taller, wider)
    if len(shape) == 3:
        return [axes for axes in ('NTC', 'NCT') if fits_tokens(axes, known)], False
    if not known or known == '    ':
        return ['NCHW', 'NHWC', 'NHCW'], False
    orders = [''.join(order) for order in permutations('CHW')]
    fits = [axes for axes in orders if all(k in (' ', axis) for k, axis in zip(known[1:], axes))]
    both_known = [  # each of H and W changes with the images, or has length 1, which never changes
        axes for axes in fits if all(axis in known or shape[1 + axes.index(axis)] == 1 for axis in 'HW')
    ]
    return ['N' + axes for axes in both_known or fits], len(both_known) == 1


def fits_tokens(
    axes: str,  # NTC or NCT
    known: str | None,  # Returned by `size_dependence`
) -> bool:
    "Return whether the tokens change with both sides of the images, and the channels with none."
    return not known or (known[axes.index('T')] in ' T' and known[axes.index('C')] == ' ')


def size_dependence(
    shape: tuple,  # Of an output
    taller: tuple | str | None,  # For images of twice the height
    wider: tuple | str | None,  # For images of twice the width
) -> str | None:  # None if an output is missing or has other dimensions
    """Return what the length of each axis depends on.

    H: the height of the images alone; W: their width alone; T: both; space: neither.
    """
    if any(not isinstance(other, tuple) or len(other) != len(shape) for other in (taller, wider)):
        return None
    return ''.join(' HWT'[(n != n_taller) + 2 * (n != n_wider)] for n, n_taller, n_wider in zip(shape, taller, wider))
