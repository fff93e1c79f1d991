"What layers a network has, and which of two networks meet: where a hint can be taken and where it can guide."

from dataclasses import dataclass

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.core.format import thousands
from kdfast.models.feature_maps import Layout, layouts
from kdfast.models.inference import tensors, unwrapped
from kdfast.models.noise import trying, watch


@dataclass(frozen=True)
class Layer:
    "A layer that gives a feature map."

    name: str
    kind: str  # Of module
    shape: tuple  # Channels, height, width
    params: int  # Of all that is computed up to and including it
    layout: str  # In the network: N×C×H×W, N×H×W×C, 16 of 17 tokens …


def layers(
    net: nn.Module,  # Any network
    side: int,  # Height and width of the images
) -> list[Layer]:
    """Its blocks that give feature maps, as they are computed: modules that are made of others, and those that stand alone.

    Raises KdfastError where the network cannot see images of that size.
    """
    net = unwrapped(net)
    images = torch.zeros(1, 3, side, side, device=next((t.device for t in tensors(net)), None))
    modules, computed, seen = {name: module for name, module in net.named_modules() if name}, {}, {}

    def see(name, output):
        computed.update((id(p), p.numel()) for p in modules[name].parameters(recurse=False))
        seen.setdefault(name, (getattr(output, 'shape', None), sum(computed.values())))

    with trying(net):
        stopped = watch(net, modules, see, ((images,), {}))
    if stopped:  # whatever a network of somebody else's does with a size that it was not made for
        raise KdfastError(
            f'{type(net).__name__} cannot see images of {side}×{side} ({type(stopped).__name__}: {stopped}): choose another --size'
        ) from stopped
    blocks = {
        name: modules[name] for name in seen if '.' not in name or next(modules[name].children(), None) is not None
    }
    found = layouts(net, blocks, ((images,), {}))
    maps = {name: layout for name, layout in found.items() if isinstance(layout, Layout) and layout.axes != 'NC'}
    return [layer(name, modules[name], layout, *seen[name]) for name, layout in maps.items()]


def layer(name, module, layout, shape, params):
    arranged = layout.arrange(torch.empty(shape, device='meta'))
    return Layer(name, type(module).__name__, tuple(arranged.shape[1:]), params, in_words(layout, shape))


def in_words(layout, shape):
    if not layout.grid:
        return '×'.join(layout.axes)
    tokens, places = shape[layout.axes.index('T')], layout.grid[0] * layout.grid[1]
    return f'{tokens} tokens' if tokens == places else f'{places} of {tokens} tokens'


def meeting(
    teacher: list[Layer],  # Of the teacher
    student: list[Layer],  # Of the student
) -> list[tuple[Layer, Layer]]:
    "Hint layer and guided layer of equal height and width: of each size the last, which has seen most."
    last = [{layer.shape[1:]: layer for layer in those} for those in (teacher, student)]
    return [(hint, last[1][size]) for size, hint in last[0].items() if size in last[1] and size > (1, 1)]


def table(found):
    "Layers for a reader"
    columns = Table(box=None, pad_edge=False, header_style='dim', padding=(0, 2, 0, 0))
    columns.add_column('layer', overflow='fold')
    columns.add_column('', style='dim', overflow='fold')
    for header in ('shape', 'parameters so far'):
        columns.add_column(header, justify='right', no_wrap=True)
    elsewhere = any(layer.layout != 'N×C×H×W' for layer in found)
    if elsewhere:
        columns.add_column('in the network', style='dim', overflow='fold')
    for layer in found:
        columns.add_row(
            layer.name,
            layer.kind,
            '×'.join(map(str, layer.shape)),
            thousands(layer.params),
            *[layer.layout] * elsewhere,
        )
    return columns


def view(
    networks: dict[str, list[Layer]],  # Student first; a teacher behind it, or not
) -> Group:
    "Their layers, and the pairs that meet."
    parts = [part for name, found in networks.items() for part in (Text(f'\n{name}\n', 'bold'), table(found))]
    if len(networks) == 2:
        student, teacher = networks.values()
        pairs = Table.grid(padding=(0, 2))
        for hint, guided in meeting(teacher, student):
            need = 'no matrix' if hint.shape == guided.shape else f'a matrix {guided.shape[0]} → {hint.shape[0]}'
            pairs.add_row(Text(f'--hint {hint.name}:{guided.name}', 'bold'), f'{hint.shape[1]}×{hint.shape[2]}', need)
        parts += [
            Text('\nof equal height and width, the last of each\n', 'bold'),
            pairs if pairs.rows else Text('none'),
        ]
    return Group(*parts)
