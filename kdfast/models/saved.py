"""Networks on disk: saved, described, loaded, and built again."""

import json
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from kdfast.core import atomic
from kdfast.core.errors import KdfastError
from kdfast.core.names import Name, is_run, parse
from kdfast.core.source import Project, error_reason, errors_explained, kept_name, kept_project, named_function
from kdfast.data.dataset import Data, presized_side
from kdfast.models import state
from kdfast.models.build import build_network, create_network, fit_to_size, project_of
from kdfast.models.weights import unwrapped
from kdfast.runs import trust
from kdfast.runs.run_dir import RunDir

# Networks on disk


def build_for(
    name: str,  # Of a network
    data: Data,  # What it is for
    said: Callable = lambda note: None,  # Is told what a user should know
) -> tuple[nn.Module, Project | None]:  # And the user's code that builds it
    "The network, which knows what it takes to build it again and to show it an image."
    with torch.random.fork_rng([]):  # weights follow from the seed, whatever was built or loaded before
        named = fit_to_size(name, len(data.classes), data.shape)
        called, project = recorded_name(named)
    return with_description(
        build_network(str(named), len(data.classes), said, data.shape), called, data, project
    ), project


def build_by(
    function: Callable,  # Of the number of classes, such as `wide`
    data: Data,  # What it is for
    said: Callable = lambda note: None,  # Is told what a user should know
) -> tuple[nn.Module, Project | None]:  # And the user's code that builds it
    "What a function gives, which knows how to build it again, if the function can be found again."
    called, project = named_function(function)
    name = called or getattr(function, '__qualname__', type(function).__name__)
    with errors_explained(f'{name} could not be built for {len(data.classes)} classes', project):
        network = function(len(data.classes))
    if called is None:
        said(
            f'{name} is no function of a file or a package: the weights of what it builds are kept, but kdfast cannot load them'
        )
    return with_description(network, called, data, project), project


def recorded_name(named):
    "The name that files of weights have for it, and the sources that build it"
    project = project_of(named)
    return str(Name(kept_name(named.where) if project else named.where, named.what, named.arguments)), project


def with_description(
    network: nn.Module,
    name: str | None,  # That builds it; of a file beside its weights, where a user's own code does
    data: Data,  # What it is for
    project: Project | None = None,  # The user's code that builds it
) -> nn.Module:
    "The network, which now knows what it takes to build it again and to show it an image."
    network.built_by = dict(
        **dict(network=name) if name else {},
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        size=list(data.shape),
        presized=presized_side(data.size) if data.size else None,
        **dict(range=list(data.range)) if data.range else {},
        **dict(source=project.hashes) if project else {},
    )
    return network


def save_network(
    network: nn.Module,
    file: Path,  # .safetensors
):
    "The network alone: no regressor, no teacher; with what it takes to build it again. Raises KdfastError for what cannot be kept."
    atomic.write(file, state.serialized(network, getattr(network, 'built_by', {})))


def read_description(
    file: Path,  # .safetensors
) -> dict:
    "What a file of weights says of its network: its name, the classes, the normalization and the size of the images. Raises KdfastError."
    try:
        with safetensors.safe_open(file, 'pt') as f:
            text = (f.metadata() or {}).get('built_by', '{}')
    except (safetensors.SafetensorError, OSError) as e:
        raise KdfastError(f'{file} is no file of weights: {e}') from e
    return parse_description(text, file)


def parse_description(text, file):
    "What kdfast wrote of a network beside it; it may have no name. Raises KdfastError for anything else"
    try:
        facts = json.loads(text)
        size, colors, files, versions = (
            facts['size'],
            [float(n) for n in (*facts['mean'], *facts['std'])],
            dict(facts.get('source', {})),
            dict(facts.get('versions', {})),
        )
        right = (
            len(size) == 2
            and all(isinstance(n, int) and 0 < n < 2**16 for n in size)
            and len(colors) == 6
            and isinstance(facts.get('extra', {}), dict)
            and all(isinstance(entry, dict) for entry in versions.values())
            and all(
                isinstance(name, str) for name in (facts.get('network', ''), *facts['classes'], *files, *files.values())
            )
        )
    except (KeyError, TypeError, ValueError):
        right = False
    if right:
        return facts
    raise KdfastError(
        f'{file} does not say what network it holds: it was not written by kdfast, or by a recipe that does not build it with run.build'
    )


def load_network(
    folder: RunDir,  # A finished run
) -> nn.Module:
    "The network of a run, in evaluation mode. Raises KdfastError where what built it is not there, or may not run."
    return load_network_file(folder / 'weights.safetensors')


def load_network_file(
    file: Path,  # Weights that kdfast wrote
) -> nn.Module:
    """The network of a file, in evaluation mode.

    A user's function that builds it is looked for in the directory `source` beside it, and runs only where it was trained with on
    this machine, or `trust_code` was called for it. Raises KdfastError.
    """
    facts = described(file)
    network = rebuild(facts, file)
    try:
        state.restore(network, safetensors.torch.load_file(file), facts)
    except (RuntimeError, ValueError, KeyError) as e:
        raise KdfastError(f'{file} does not fit {facts["network"]} as it is built today: {error_reason(e)}') from e
    network = unwrapped(network)
    network.built_by = {name: value for name, value in facts.items() if name not in ('versions', 'extra')}
    return network.to(memory_format=torch.channels_last).eval()


def trust_code(
    file: Path,  # Weights that kdfast wrote
):
    "The code that came with a file, and builds its network, may run from now on. Read it first."
    trust.accept(read_description(file))


def check_trusted(
    file: Path,  # Weights that kdfast wrote
):
    "Raise KdfastError where the network of a file could not be built: what builds it is not there, or may not run."
    facts = described(file)
    if parse(facts['network']).is_code:
        trusted_sources(facts, file)


def described(file):
    facts = read_description(file)
    if 'network' in facts:
        return facts
    raise KdfastError(
        f'{file} does not name what builds its network: its recipe built it by no function of a file or a package'
    )


def trusted_sources(facts, file):
    "The sources that build the network of a file, which may run"
    sources = trust.read(facts, file)
    trust.check(facts, file)
    return sources


def rebuild(facts, file):
    "The network that a file of weights names, new"
    named, size = parse(facts['network']), tuple(facts['size'])
    if not named.is_code:
        return create_network(named, len(facts['classes']), size)
    sources = trusted_sources(facts, file)
    project = kept_project(named.where, file.parent / trust.SOURCE, sources) if sources else None
    return create_network(named, len(facts['classes']), size, project)


def any_network(
    name: str,  # Of a network, or the folder of a run
    n_classes: int = 10,  # Outputs, of what is built
    size: tuple[int, int] | None = None,  # Height and width of the images, where it is built for one size
) -> nn.Module:
    "A run's network as it was trained, any other as it is built."
    return load_network(RunDir(Path(name))) if is_run(name) else build_network(name, n_classes, size=size)
