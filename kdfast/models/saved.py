"Build networks for a data set, save them with their description, and load them again."

from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from kdfast.core import atomic
from kdfast.core.errors import KdfastError
from kdfast.core.explain import error_reason, errors_explained
from kdfast.core.names import Name, is_run, parse
from kdfast.core.projects import named_function, saved_name, saved_project
from kdfast.core.source import Project
from kdfast.data.dataset import Data
from kdfast.models import state
from kdfast.models.build import build_network, create_network, fit_to_size, project_of
from kdfast.models.channels_last import channels_last
from kdfast.models.description import read_description, read_named_description, with_description
from kdfast.models.inference import unwrapped
from kdfast.runs import trust
from kdfast.runs.run_dir import RunDir

WEIGHTS = 'weights.safetensors'  # of a run

# Build


def build_for(
    name: str,  # Of a network
    data: Data,  # To train it on
    notify: Callable = lambda note: None,  # Called with a message for the user
) -> tuple[nn.Module, Project | None]:  # The network, with its description; the user's code that builds it
    "Build a network for a data set."
    with torch.random.fork_rng([]):  # so that weights depend on the seed alone
        named = fit_to_size(name, len(data.classes), data.shape)
        recorded, project = recorded_name(named)
    network = build_network(str(named), len(data.classes), notify, data.shape)
    return with_description(network, recorded, data, project), project


def build_by(
    function: Callable,  # From the number of classes to a network, such as `wide`
    data: Data,  # To train it on
    notify: Callable = lambda note: None,  # Called with a message for the user
) -> tuple[nn.Module, Project | None]:  # The network, with its description; the user's code that builds it
    "Build a network by a function; it can be loaded again if a file or a package has the function."
    recorded, project = named_function(function)
    name = recorded or getattr(function, '__qualname__', type(function).__name__)
    with errors_explained(f'{name} could not be built for {len(data.classes)} classes', project):
        network = function(len(data.classes))
    if recorded is None:
        notify(
            f'{name} is no function of a file or a package: the weights of its network are saved, but kdfast cannot '
            'load them'
        )
    return with_description(network, recorded, data, project), project


def recorded_name(
    named: Name,  # Of a network
) -> tuple[str, Project | None]:
    "Return the name of a network for its description, and the user's code that builds it."
    project = project_of(named)
    where = saved_name(named.where) if project else named.where
    return str(Name(where, named.what, named.arguments)), project


# Save and load


def save_network(
    network: nn.Module,  # Without regressor and teacher
    file: Path,  # .safetensors
):
    "Save a network with its description. Raises KdfastError if its state cannot be saved."
    atomic.write(file, state.serialized(network, getattr(network, 'build_info', {})))


def load_network(
    folder: RunDir,  # A finished run
) -> nn.Module:
    "Load the network of a run, in evaluation mode. Raises KdfastError, as `load_network_file`."
    return load_network_file(folder / WEIGHTS)


def load_network_file(
    file: Path,  # Weights that kdfast wrote
) -> nn.Module:
    """Load the network of a file, in evaluation mode.

    A user's function that builds it is read from the directory `source` beside the file. It is executed only if this
    machine has trained with it or `trust_code` was called. Raises KdfastError if the function is missing or not
    trusted, if the weights do not fit, and for weights that are no longer those of the run in whose directory they are.
    """
    folder = RunDir(file.parent)
    if file.name == WEIGHTS and (folder / 'run.json').exists():
        folder.parsed(WEIGHTS, bool)
    description = read_named_description(file)
    network, tensors = rebuild(description, file), safetensors.torch.load_file(file)
    if not tensors.keys() <= network.state_dict().keys():
        network = unwrapped(network)  # a run that started from another run's network has it without its wrappers
    try:
        state.restore(network, tensors, description)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise KdfastError(
            f'{file} does not fit {description["network"]} as it is built today: {error_reason(e)}'
        ) from e
    network = unwrapped(network)
    network.build_info = {name: value for name, value in description.items() if name not in ('versions', 'extra')}
    return channels_last(network).eval()


def rebuild(
    description: dict,  # Of the network
    file: Path,  # Its weights
) -> nn.Module:
    "Build the network of a file anew. Raises KdfastError."
    named, n_classes, size = parse(description['network']), len(description['classes']), tuple(description['size'])
    if not named.is_code:
        return create_network(named, n_classes, size)
    sources = trusted_sources(description, file)
    project = saved_project(named.where, file.parent / trust.SOURCE, sources) if sources else None
    return create_network(named, n_classes, size, project)


def load_or_build(
    name: str,  # Of a network, or a run directory
    n_classes: int = 10,  # Outputs of a network that is built
    size: tuple[int, int] | None = None,  # Height and width of the images, for networks that need them
) -> nn.Module:
    "Load the network of a run, or build one by its name."
    return load_network(RunDir(Path(name))) if is_run(name) else build_network(name, n_classes, size=size)


# Trust


def trust_code(
    file: Path,  # Weights that kdfast wrote
):
    "Allow the code beside a file to run from now on. Read it first."
    trust.accept(read_description(file))


def check_trusted(
    file: Path,  # Weights that kdfast wrote
):
    "Raise KdfastError if the code that builds a file's network is missing or not trusted."
    description = read_named_description(file)
    if parse(description['network']).is_code:
        trusted_sources(description, file)


def trusted_sources(
    description: dict,  # Of the network
    file: Path,  # Its weights
) -> dict[str, bytes]:  # By name
    "Return the sources that build the network of a file. Raises KdfastError unless they may be executed."
    sources = trust.read_sources(description, file)
    trust.check(description, file)
    return sources
