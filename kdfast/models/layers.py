"List the layers of networks, and find pairs of layers that a hint can use."

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Group
from rich.text import Text
from torch import nn

from kdfast.core.errors import KdfastError, reason
from kdfast.core.format import shape_text, thousands
from kdfast.core.tables import Table
from kdfast.models.feature_maps import Layout, layouts
from kdfast.models.inference import is_script, tensors, unwrapped
from kdfast.models.noise import record_layers, trial
from kdfast.models.sizes import height_and_width


@dataclass(frozen=True)
class Layer:
    "A layer whose output is a feature map."

    name: str
    kind: str  # Class of the module
    shape: tuple  # Channels, height, width
    params: int  # Of all modules that compute up to and including it
    layout: str  # In the network: N×C×H×W, N×H×W×C, 16 of 17 tokens …


def layers(
    net: nn.Module,  # Any network
    size: int | Sequence[int],  # Height and width of the images, or one number for both
) -> list[Layer]:
    """List the blocks whose outputs are feature maps, in the order in which they compute.

    Blocks are modules with submodules, and top-level modules. Raises KdfastError if the network cannot process images
    of that size.
    """
    net, (height, width) = unwrapped(net), height_and_width(size)
    images = torch.zeros(1, 3, height, width, device=next((t.device for t in tensors(net)), None))
    modules = {name: m for name, m in net.named_modules() if name and not is_script(m)}
    counted = {}  # number of elements by id of each parameter so far
    outputs = {}  # shape of the first output and number of parameters so far, by layer

    def record(name, output):
        counted.update((id(p), p.numel()) for p in modules[name].parameters(recurse=False))
        outputs.setdefault(name, (getattr(output, 'shape', None), sum(counted.values())))

    with trial(net):
        stopped = record_layers(net, modules, record, ((images,), {}))
    if stopped:  # networks of users may raise anything for images of another size
        raise KdfastError(
            f'{type(net).__name__} cannot process images of {width}×{height} ({reason(stopped)}): choose another --size'
        ) from stopped
    names = [name for name in outputs if '.' not in name or next(modules[name].children(), None) is not None]
    found = layouts(net, {name: modules[name] for name in names}, ((images,), {}))
    maps = {name: layout for name, layout in found.items() if isinstance(layout, Layout) and layout.axes != 'NC'}
    return [describe_layer(name, modules[name], layout, *outputs[name]) for name, layout in maps.items()]


def describe_layer(
    name: str,  # Dotted name
    module: nn.Module,  # The layer
    layout: Layout,  # Of its output
    shape: tuple,  # Of its output
    params: int,  # Number of parameters so far
) -> Layer:
    "Return the description of a layer."
    arranged = layout.arrange(torch.empty(shape, device='meta'))
    return Layer(name, type(module).__name__, tuple(arranged.shape[1:]), params, layout_text(layout, shape))


def layout_text(
    layout: Layout,  # Of a layer's output
    shape: tuple,  # Of the output
) -> str:
    "Format a layout, for example N×H×W×C or 16 of 17 tokens."
    if not layout.grid:
        return '×'.join(layout.axes)
    tokens, positions = shape[layout.axes.index('T')], layout.grid[0] * layout.grid[1]
    return f'{tokens} tokens' if tokens == positions else f'{positions} of {tokens} tokens'


def matching_layers(
    teacher: list[Layer],  # Of the teacher
    student: list[Layer],  # Of the student
) -> list[tuple[Layer, Layer]]:  # Hint layer and guided layer
    "Return pairs of layers with equal height and width; for each size, the last layer of each network."
    hints = {layer.shape[1:]: layer for layer in teacher}
    guided = {layer.shape[1:]: layer for layer in student}
    return [(hint, guided[size]) for size, hint in hints.items() if size in guided and size > (1, 1)]


def table(
    layers: list[Layer],  # Of a network
) -> Table:
    "Return a table of layers."
    columns = Table(box=None, pad_edge=False, header_style='dim', padding=(0, 2, 0, 0))
    columns.add_column('layer', overflow='fold')
    columns.add_column('', style='dim', overflow='fold')
    for header in ('shape', 'parameters so far'):
        columns.add_column(header, justify='right', no_wrap=True)
    other_layouts = any(layer.layout != 'N×C×H×W' for layer in layers)
    if other_layouts:
        columns.add_column('layout', style='dim', overflow='fold')
    for layer in layers:
        cells = [layer.name, layer.kind, shape_text(layer.shape), thousands(layer.params)]
        columns.add_row(*cells, *[layer.layout] * other_layouts)
    return columns


def view(
    networks: dict[str, list[Layer]],  # Layers by network; student first, then the teacher, if any
) -> Group:
    "Return the tables of one or two networks, and the pairs of layers that a hint can use."
    parts = []
    for name, found in networks.items():
        parts += [Text(f'\n{name}\n', 'bold'), table(found)]
    if len(networks) == 2:
        student, teacher = networks.values()
        pairs = Table.grid(padding=(0, 2))
        for hint, guided in matching_layers(teacher, student):
            equal = hint.shape == guided.shape
            regressor = 'no regressor' if equal else f'regressor {guided.shape[0]} → {hint.shape[0]}'
            option = Text(f'--hint {hint.name}:{guided.name}', 'bold')
            pairs.add_row(option, shape_text(hint.shape[1:]), regressor)
        heading = Text('\npairs of equal height and width (the last layers of each size)\n', 'bold')
        parts += [heading, pairs if pairs.rows else Text('none')]
    return Group(*parts)
