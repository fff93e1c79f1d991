"""Where in an output the parts of an image are: other rows in the image change the same rows of a feature map most, other columns its columns.

This is asked where sizes do not tell: of tokens, and of networks that take images of one size only.
"""

import torch
from torch import Tensor, nn

from kdfast.models.noise import Inputs, watch

BANDS, ROUNDS = 6, 2  # bands of rows, and of columns, that are changed one by one; images that they are changed in
SURE, SURER = (
    0.6,
    0.85,
)  # least correlation of the map's rows and columns with the image's, where they have its proportions and where not
DOUBT = 0.1  # by how much the correlation of another arrangement must be smaller
MOST_PREFIX, FEW_PREFIX = (
    64,
    8,
)  # tokens without a position: where the others have the proportions of the image, and where not


def moved(
    net: nn.Module,  # In evaluation mode
    layers: dict[str, nn.Module],  # Some of its layers
    readings: dict[str, list[str]],  # Which of them to look at, and how their axes may be read
    inputs: Inputs,  # What the network is called with
) -> dict[
    str, dict[int, Tensor]
]:  # By layer and axis of the channels: row, column and how local each position is, (3, positions)
    "Change the image in bands of rows and of columns, and see which positions of each output that changes most."
    energies = {}

    def see(name, output):
        if not isinstance(output, torch.Tensor) or len(output) != 1 + 2 * BANDS:
            return
        for channels in {axes.index('C') for axes in readings[name]}:
            energies[name, channels] = energies.get((name, channels), 0) + change(output, channels).cpu()

    for seed in range(ROUNDS):
        watch(
            net, {name: layers[name] for name in readings}, see, inputs.noise(1 + 2 * BANDS, change=in_bands, seed=seed)
        )
    found = {name: {} for name in readings}
    for (name, channels), energy in energies.items():
        found[name][channels] = centers(energy)
    return found


def in_bands(images):
    "The first image; the same with each band of rows, then of columns, from another"
    (height, width), first, other = images.shape[2:], images[0], images[1]
    changed = [first]
    for axis, n in ((1, height), (2, width)):
        for band in range(BANDS):
            inside = torch.arange(n).view(-1, *[1] * (2 - axis)) * BANDS // n == band
            changed.append(torch.where(inside, other, first))
    return torch.stack(changed)


def change(output, channels):
    "How much each position of each changed image differs from the first image, apart from what all positions have in common, (images − 1, positions)"
    x = output.float().movedim(channels, 1).flatten(2)
    difference = x[1:] - x[:1]
    return (difference - difference.mean(2, keepdim=True)).square().sum(1)


def centers(energy):
    "Band of rows, and of columns, that each position changes with, and how much more with some bands than with others, (3, positions)"

    def shares(x, dim):
        return x / x.sum(dim, keepdim=True).clamp(min=1e-30)

    parts = [shares(shares(part.double(), 1), 0) for part in energy.split(BANDS)]
    bands = torch.arange(BANDS, dtype=torch.double)
    return torch.stack([*(bands @ part for part in parts), sum(part.var(0) for part in parts)])


def best(
    readings: list[str],  # How the axes may be read
    shape: tuple,  # Of the output
    moved: dict[int, Tensor],  # By axis of the channels: row, column and how local each position is
    sides: tuple[int, int],  # Height and width of the image
) -> tuple | None:  # Axes; of tokens also rows and columns, and how many tokens are before
    "The reading whose rows and columns are those of the image; None where none's are, or several's."
    found = []
    for axes in readings:
        if (at := moved.get(axes.index('C'))) is None:
            continue
        arranged = arrangements(axes, at, sides) if 'T' in axes else [((axes,), at, sized(axes, shape))]
        for reading, inside, (h, w) in arranged:
            least = SURE if in_proportion(h, w, *sides) else SURER
            if (like := score(inside, h, w, axes)) > least:
                found.append((like, reading))
    found.sort(reverse=True)
    return found[0][1] if found and (len(found) == 1 or found[1][0] < found[0][0] - DOUBT) else None


def sized(axes, shape):
    return [shape[axes.index(axis)] for axis in 'HW']


def in_proportion(h, w, height, width):
    return abs(h - w * height / width) < 1 or abs(w - h * width / height) < 1


def arrangements(axes, at, sides):
    "Tokens as rows and columns, with some before or behind them that depend on all of the image alike: class, distillation, registers"
    tokens, local = at.shape[1], at[2]
    for h, w in {
        (h, n // h) for n in range(max(2, tokens - MOST_PREFIX), tokens + 1) for h in range(1, n + 1) if n % h == 0
    }:
        without = tokens - h * w
        if not (in_proportion(h, w, *sides) or (min(h, w) > 1 and without <= FEW_PREFIX)):
            continue
        for skip in range(without + 1):
            inside = slice(skip, skip + h * w)
            others = torch.cat([local[:skip], local[skip + h * w :]])
            if (others < local[inside].median() / 2).all():
                yield (axes, (h, w), skip), at[:, inside], (h, w)


def score(at, h, w, axes):
    "Least correlation of the map's rows with the image's, and of its columns"
    places = dict(zip('HW', torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')))
    if 'W' in axes and axes.index('W') < axes.index('H'):
        places = {axis: place.T for axis, place in places.items()}
    return min(
        correlation(x, places[axis].flatten().double()) for x, axis, n in ((at[0], 'H', h), (at[1], 'W', w)) if n > 1
    )


def correlation(x, y):
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (x.norm() * y.norm()).clamp(min=1e-30))
