"""Find the axes of a feature map that are rows and columns of the image.

When some rows of the image change, the same rows of a feature map change most. This is used if sizes are not
sufficient: for tokens, and for networks that accept images of one size only.
"""

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from kdfast.models.noise import Inputs, record_layers, trial

BANDS = 6  # bands of rows, and of columns, that are changed one by one
ROUNDS = 2  # images in which they are changed
MIN_CORRELATION = 0.6  # of the map's rows and columns with the image's, if both have the same proportions
MIN_CORRELATION_OTHER = 0.85  # if they have different proportions
MARGIN = 0.1  # by which the correlation of any other arrangement must be smaller
RESETS = 'reset_parameters', '_reset_parameters'  # methods of PyTorch's layers; the second of attention
MAX_PREFIX = 64  # tokens without a position, if the others have the proportions of the image
MAX_PREFIX_OTHER = 8  # if they have other proportions


def locate(
    net: nn.Module,  # Any network; left as it was
    layers: dict[str, nn.Module],  # Some of its layers by name
    candidates: dict[str, list[str]],  # Possible layouts of each layer to locate
    shapes: dict[str, tuple],  # Of their outputs
    inputs: Inputs,  # Of the network
) -> dict[str, tuple | Exception | None]:  # As of `best`; an exception if the network failed
    """Find the layout of each layer with the network's weights; of the others with new weights.

    A class token that has learned to look at one place changes like a token of that place. The layout is the same
    whatever the weights are.
    """

    def look(network, modules, wanted):
        with trial(network):
            locations, error = measure(network, modules, wanted, inputs)
        return {name: best(axes, shapes[name], locations[name], inputs.sides) or error for name, axes in wanted.items()}

    found = look(net, layers, candidates) if candidates else {}
    unknown = {name: axes for name, axes in candidates.items() if not isinstance(found[name], tuple)}
    if unknown and (untrained := with_new_weights(net)):
        modules = dict(zip(net.modules(), untrained.modules()))
        others = {name: modules[layers[name]] for name in unknown if layers[name] in modules}
        found |= look(untrained, others, {name: unknown[name] for name in others})
    return found


def with_new_weights(
    net: nn.Module,  # Any network
) -> nn.Module | None:  # None if it cannot be copied
    "Return a copy whose layers have random weights, always the same."
    try:
        copy = deepcopy(net)
    except Exception:  # networks of users may raise anything
        return None
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for module in copy.modules():
            for reset in RESETS:
                if callable(method := getattr(module, reset, None)):
                    method()
    return copy


def measure(
    net: nn.Module,  # In evaluation mode
    layers: dict[str, nn.Module],  # Some of its layers by name
    candidates: dict[str, list[str]],  # Possible layouts of each layer to measure
    inputs: Inputs,  # Of the network
) -> tuple[dict[str, dict[int, Tensor]], Exception | None]:
    """Change bands of rows and columns in images, and measure which positions of outputs change most.

    Returns row, column and locality, (3, positions), by layer and dimension of the channels; and what stopped the
    network.
    """
    energies, error = {}, None

    def record(name, output):
        if not isinstance(output, Tensor) or len(output) != 1 + 2 * BANDS:
            return
        for channels in {axes.index('C') for axes in candidates[name]}:
            energies[name, channels] = energies.get((name, channels), 0) + change(output, channels).cpu()

    for seed in range(ROUNDS):
        images = inputs.noise(1 + 2 * BANDS, change=change_bands, seed=seed)
        error = record_layers(net, {name: layers[name] for name in candidates}, record, images) or error
    found = {name: {} for name in candidates}
    for (name, channels), energy in energies.items():
        found[name][channels] = centers(energy)
    return found, error


def change_bands(
    images: Tensor,  # (N, C, H, W), at least two
) -> Tensor:  # (1 + 2 * BANDS, C, H, W)
    "Return the first image, and copies of it with one band of rows, or of columns, from the second."
    height, width = images.shape[2:]
    first, second = images[0], images[1]
    changed = [first]
    for axis, n in ((1, height), (2, width)):
        for band in range(BANDS):
            inside = torch.arange(n).view(-1, *[1] * (2 - axis)) * BANDS // n == band
            changed.append(torch.where(inside, second, first))
    return torch.stack(changed)


def change(
    output: Tensor,  # For the images of `change_bands`
    channels: int,  # Dimension of the channels
) -> Tensor:  # (2 * BANDS, positions)
    "Measure how much each position changes, apart from the mean change of all positions."
    x = output.float().movedim(channels, 1).flatten(2)
    difference = x[1:] - x[:1]
    return (difference - difference.mean(2, keepdim=True)).square().sum(1)


def centers(
    energy: Tensor,  # Returned by `change`, (2 * BANDS, positions)
) -> Tensor:  # (3, positions)
    "Return the mean band of rows, and of columns, that changes each position, and how local that is."

    def normalized(x, dim):
        return x / x.sum(dim, keepdim=True).clamp(min=1e-30)

    parts = [normalized(normalized(part.double(), 1), 0) for part in energy.split(BANDS)]
    bands = torch.arange(BANDS, dtype=torch.double)
    return torch.stack([*(bands @ part for part in parts), sum(part.var(0) for part in parts)])


def best(
    candidates: list[str],  # Possible layouts
    shape: tuple,  # Of the output
    locations: dict[int, Tensor],  # Returned by `measure`
    sides: tuple[int, int],  # Height and width of the image
) -> tuple | None:  # Axes; for tokens also rows and columns, and the number of prefix tokens
    "Return the only layout whose rows and columns are those of the image; None if there is none."
    found = []
    for axes in proportional(candidates, shape, sides):
        if (location := locations.get(axes.index('C'))) is None:
            continue
        if 'T' in axes:
            arranged = arrangements(axes, location, sides)
        else:
            arranged = [((axes,), location, [shape[axes.index(axis)] for axis in 'HW'])]
        for layout, inside, (h, w) in arranged:
            minimum = MIN_CORRELATION if in_proportion(h, w, *sides) else MIN_CORRELATION_OTHER
            if (correlation := min_correlation(inside, h, w, axes)) > minimum:
                found.append((correlation, layout))
    found.sort(reverse=True)
    unique = len(found) == 1 or len(found) > 1 and found[1][0] < found[0][0] - MARGIN
    return found[0][1] if unique else None


def proportional(
    candidates: list[str],  # Possible layouts
    shape: tuple,  # Of the output
    sides: tuple[int, int],  # Height and width of the image
) -> list[str]:
    "Leave out maps whose sides are not in proportion to the image's, if those of another layout are."
    maps = [axes for axes in candidates if 'T' not in axes]
    fit = [axes for axes in maps if in_proportion(*(shape[axes.index(axis)] for axis in 'HW'), *sides)]
    return fit or candidates


def in_proportion(
    h: int,  # Rows of the map
    w: int,  # Columns of the map
    height: int,  # Of the image
    width: int,  # Of the image
) -> bool:
    "Return whether a map has the proportions of the image, up to rounding."
    return abs(h - w * height / width) < 1 or abs(w - h * width / height) < 1


def arrangements(
    axes: str,  # NTC or NCT
    location: Tensor,  # Returned by `measure`, (3, tokens)
    sides: tuple[int, int],  # Height and width of the image
) -> Iterator[tuple]:  # Layout, locations of its tokens, rows and columns
    "Yield arrangements of tokens in rows and columns whose other tokens depend on the whole image."
    tokens, locality = location.shape[1], location[2]
    counts = range(max(2, tokens - MAX_PREFIX), tokens + 1)
    for h, w in {(h, n // h) for n in counts for h in range(1, n + 1) if n % h == 0}:
        others = tokens - h * w
        if not (in_proportion(h, w, *sides) or (min(h, w) > 1 and others <= MAX_PREFIX_OTHER)):
            continue
        for prefix in range(others + 1):
            inside = slice(prefix, prefix + h * w)
            outside = torch.cat([locality[:prefix], locality[prefix + h * w :]])
            if (outside < locality[inside].median() / 2).all():
                yield (axes, (h, w), prefix), location[:, inside], (h, w)


def min_correlation(
    location: Tensor,  # (3, h * w)
    h: int,  # Rows of the map
    w: int,  # Columns of the map
    axes: str,  # Of the output
) -> float:
    "Return the smaller correlation of the map's rows, and of its columns, with the image's."
    places = dict(zip('HW', torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')))
    if 'W' in axes and axes.index('W') < axes.index('H'):
        places = {axis: place.T for axis, place in places.items()}
    pairs = [(location[i], places[axis]) for i, axis, n in ((0, 'H', h), (1, 'W', w)) if n > 1]
    return min(correlation(x, place.flatten().double()) for x, place in pairs)


def correlation(
    x: Tensor,  # (n,)
    y: Tensor,  # (n,)
) -> float:
    "Compute the correlation coefficient of two vectors."
    x = x - x.mean()
    y = y - y.mean()
    return float(x @ y / (x.norm() * y.norm()).clamp(min=1e-30))
