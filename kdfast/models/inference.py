"Ask a network for what it computes, whatever it is wrapped in, and leave it as it was."

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from fastai.basics import Learner
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kdfast.core.errors import KdfastError

PARALLEL = nn.DataParallel, nn.parallel.DistributedDataParallel


def as_module(
    network: nn.Module | Learner,  # A network, or the Learner that holds it
    role: str = 'teacher',  # What it is called in the error
) -> nn.Module:
    "The network itself. Raises TypeError for anything that is neither a network nor a Learner."
    if isinstance(network, Learner):
        return network.model
    if isinstance(network, nn.Module):
        return network
    kind = f'the function {network.__name__}; call it first' if hasattr(network, '__name__') else type(network).__name__
    raise TypeError(f'the {role} must be an nn.Module or a Learner, found {kind}')


# Wrapped networks


def unwrapped(
    network: nn.Module,  # Compiled by torch.compile, inside of DataParallel …, or as it was made
) -> nn.Module:
    "The network as it was made."
    while True:
        if '_orig_mod' in network._modules:
            network = network._orig_mod
        elif isinstance(network, PARALLEL):
            network = network.module
        else:
            return network


def is_compiled(
    network: nn.Module,  # Any network
) -> bool:
    "Whether it, or a part of it, was compiled, by torch.compile or Module.compile: hooks that come later may not be called."
    return any('_orig_mod' in m._modules or m._compiled_call_impl is not None for m in network.modules())


def uncompiled(
    network: nn.Module,  # Any network
):
    "While this lasts, compiled networks compute as they were written, so that all hooks are called."
    return torch.compiler.set_stance('force_eager') if is_compiled(network) else nullcontext()


# Asking a network


def ask(
    network: nn.Module,  # Any network
    xb: tuple,  # What it is called with
    layers: list[str] = (),  # Layers whose outputs are wanted
    choose: Callable = lambda output: (
        output
    ),  # Gives, of the network's output, what is wanted where there are no layers
) -> list:  # Outputs of the layers; or, alone, of the network
    "What a network gives in evaluation mode, without gradient."
    with torch.no_grad(), evaluating(network):
        if not layers:
            return [choose(network(*xb))]
        with uncompiled(network), watched(network, layers) as seen:
            network(*xb)
        return [only(seen[name], name, 'teacher') for name in layers]


@contextmanager
def evaluating(
    network: nn.Module,  # Any network
) -> Iterator[nn.Module]:
    "In evaluation mode; afterwards every module is in the mode that it was in."
    modes = {module: module.training for module in network.modules()}
    if any(modes.values()):
        network.eval()
    try:
        yield network
    finally:
        for module, training in modes.items():
            if module.training != training:
                module.training = training


@contextmanager
def watched(
    network: nn.Module,  # Any network
    layers: list[str],  # Dotted names
    active: Callable = lambda: True,  # Whether to look at this moment
) -> Iterator[dict]:  # Lists by name: an output for each time that the layer computes
    "What layers of a network give, as it is then: a layer behind may overwrite it in place."
    seen = {name: [] for name in layers}

    def keep(name, output):
        if active():
            seen[name].append(copied(output, name))

    hooks = [
        network.get_submodule(name).register_forward_hook(lambda module, inputs, output, name=name: keep(name, output))
        for name in seen
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def copied(output, layer):
    if isinstance(output, Tensor):
        return output.clone()
    raise KdfastError(f'layer {layer} gives {type(output).__name__}, expected a tensor: choose another')


def only(
    outputs: list,  # What a layer gave for a batch
    layer: str,  # Its name
    role: str,  # Whose layer it is
):
    "The one output of a layer. Raises KdfastError where there is none, or several."
    if len(outputs) == 1:
        return outputs[0]
    often = (
        f'computes its layer {layer} {len(outputs)} times for a batch'
        if outputs
        else f'does not compute its layer {layer} for a batch'
    )
    raise KdfastError(f'the {role} {often}, expected once: choose another layer')


def tensors(
    network: nn.Module,  # Any network
) -> list[Tensor]:
    "Its weights and buffers."
    return [*network.parameters(), *network.buffers()]


def copies(
    xb: tuple,  # What a network is called with
) -> tuple:
    "The same, which the network may write into."
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, xb)
