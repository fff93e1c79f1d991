"Describe a network beside its weights: name, classes, normalization, image size, sources."

import json
from pathlib import Path

import safetensors
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.core.source import Project
from kdfast.data.dataset import Data, presized_side

LARGEST = 1e30  # number of a normalization or a range: float32 holds it, and its reciprocal


def with_description(
    network: nn.Module,  # Its attribute `build_info` is set
    name: str | None,  # That builds it again; None if no name does
    data: Data,  # To train it on
    project: Project | None = None,  # The user's code that builds it
) -> nn.Module:
    "Attach to a network what is needed to build it again and to prepare its images."
    network.build_info = dict(
        **dict(network=name) if name else {},
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        size=list(data.shape),
        presized=presized_side(data.size) if data.size else None,
        **dict(labels='several') if data.several else {},
        **dict(range=list(data.range)) if data.range else {},
        **dict(source=project.hashes) if project else {},
    )
    return network


def read_description(
    file: Path,  # .safetensors
) -> dict:
    "Read the description of the network in a file of weights. Raises KdfastError if there is none."
    try:
        with safetensors.safe_open(file, 'pt') as f:
            text = (f.metadata() or {}).get('built_by', '{}')
    except (safetensors.SafetensorError, OSError) as e:
        raise KdfastError(f'{file} is no file of weights: {e}') from e
    return parse_description(text, file)


def parse_description(
    text: str,  # JSON
    file: Path,  # That holds it, for the error
) -> dict:
    "Parse a description, which may lack the network's name. Raises KdfastError if it is malformed."
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        description = None
    if is_valid(description):
        return description
    raise KdfastError(
        f'{file} does not describe its network: it was not written by kdfast, or by a recipe that does not build it '
        'with run.build'
    )


def is_valid(
    description: object,  # From JSON, untrusted
) -> bool:
    "Return whether a description has the fields that are needed, and valid values."
    return (
        isinstance(description, dict)
        and description.keys() >= REQUIRED
        and all(valid(description[name]) for name, valid in FIELDS.items() if name in description)
        and is_presized(description)
    )


def is_size(
    value: object,  # From JSON, untrusted
) -> bool:
    "Return whether a value is a height and a width."
    return is_list(value, int) and len(value) == 2 and all(0 < n < 2**16 for n in value)


def is_list(
    value: object,  # From JSON, untrusted
    kind,  # Of its items: a type, or several
) -> bool:
    "Return whether a value is a list of items of a type; True and False are no numbers."
    return isinstance(value, list) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)


def is_colors(
    value: object,  # From JSON, untrusted
    least: float,  # The smallest allowed number
) -> bool:
    "Return whether a value has a number, which float32 can hold, for each of three channels."
    return is_list(value, int | float) and len(value) == 3 and all(least <= n <= LARGEST for n in value)


def is_range(
    value: object,  # From JSON, untrusted
) -> bool:
    "Return whether a value has the numbers that become black and white; of constant images, one."
    return is_list(value, int | float) and len(value) == 2 and -LARGEST <= value[0] <= value[1] <= LARGEST


REQUIRED = {'classes', 'mean', 'std', 'size'}
FIELDS = dict(  # of a description: whether a value is valid
    network=lambda v: isinstance(v, str),
    classes=lambda v: is_list(v, str) and len(v) == len(set(v)) > 0,
    mean=lambda v: is_colors(v, -LARGEST),
    std=lambda v: is_colors(v, 1 / LARGEST),
    size=is_size,
    presized=lambda v: v is None or is_list([v], int),
    labels=lambda v: v in (None, 'several'),
    range=is_range,
    source=lambda v: isinstance(v, dict) and is_list([*v.values()], str),
    extra=lambda v: isinstance(v, dict),
    versions=lambda v: isinstance(v, dict) and is_list([*v.values()], dict),
)


def is_presized(
    description: dict,  # Its fields are valid
) -> bool:
    "Return whether the squares from which images are cut, if there are some, hold them."
    (height, width), side = description['size'], description.get('presized')
    return side is None or height == width <= side <= 2 * height


def read_named_description(
    file: Path,  # .safetensors
) -> dict:
    "Read a description that names what builds the network. Raises KdfastError if it does not."
    description = read_description(file)
    if 'network' in description:
        return description
    raise KdfastError(
        f'{file} does not name what builds its network: its recipe built it by no function of a file or a package'
    )
