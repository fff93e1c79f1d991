"Describe a network beside its weights: name, classes, normalization, image size, sources."

import json
from pathlib import Path

import safetensors
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.core.source import Project
from kdfast.data.dataset import Data, presized_side


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
        valid = is_valid(description)
    except (KeyError, TypeError, ValueError):
        valid = False
    if valid:
        return description
    raise KdfastError(
        f'{file} does not describe its network: it was not written by kdfast, or by a recipe that does not build it '
        'with run.build'
    )


def is_valid(
    description: dict,  # From JSON, untrusted
) -> bool:
    """Return whether a description has valid values.

    Raises KeyError, TypeError or ValueError for some malformed ones.
    """
    size = description['size']
    colors = [float(n) for n in (*description['mean'], *description['std'])]
    files = dict(description.get('source', {}))
    versions = dict(description.get('versions', {}))
    names = (description.get('network', ''), *description['classes'], *files, *files.values())
    return (
        len(size) == 2
        and all(isinstance(n, int) and 0 < n < 2**16 for n in size)
        and len(colors) == 6
        and description.get('labels') in (None, 'several')
        and isinstance(description.get('extra', {}), dict)
        and all(isinstance(entry, dict) for entry in versions.values())
        and all(isinstance(name, str) for name in names)
    )


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
