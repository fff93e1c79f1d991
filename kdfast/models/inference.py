"Run networks for inference, whatever they are wrapped in, and leave them as they were."

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from fastai.basics import Learner
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kdfast.core.errors import KdfastError

PARALLEL = nn.DataParallel, nn.parallel.DistributedDataParallel


def identity(
    input: object,  # Any value; called as by batch norms, whose forward this replaces
) -> object:
    "Return the argument."
    return input


def as_module(
    network: nn.Module | Learner,  # A network, or the Learner that holds it
) -> nn.Module:
    "Return the network. Raises TypeError for anything that is neither a module nor a Learner."
    if isinstance(network, Learner):
        return network.model
    if isinstance(network, nn.Module):
        return network
    kind = f'the function {network.__name__}; call it first' if hasattr(network, '__name__') else type(network).__name__
    raise TypeError(f'the teacher must be an nn.Module or a Learner, found {kind}')


# Wrapped networks


def unwrapped(
    network: nn.Module,  # Possibly wrapped by torch.compile, DataParallel or DistributedDataParallel
) -> nn.Module:
    "Return the network without its wrappers."
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
    "Return whether any part was compiled: hooks that are registered later may then not be called."
    return any(
        '_orig_mod' in m._modules or m._compiled_call_impl is not None or is_script(m) for m in network.modules()
    )


def is_script(
    module: nn.Module,  # Any module
) -> bool:
    "Return whether a module is of TorchScript: it runs no Python code, and calls no hooks."
    return isinstance(module, torch.jit.ScriptModule)


def has_fixed_mode(
    network: nn.Module,  # Any network
) -> bool:
    "Return whether a part was recorded, as by torch.export: it keeps the mode that it had then."
    return any(is_script(m) or isinstance(m, torch.fx.GraphModule) for m in network.modules())


def uncompiled(
    network: nn.Module,  # Any network
) -> AbstractContextManager:
    "Return a context in which compiled networks run eagerly, so that all hooks are called."
    return torch.compiler.set_stance('force_eager') if is_compiled(network) else nullcontext()


# Inference


def infer(
    network: nn.Module,  # Any network
    xb: tuple,  # Its inputs
    layers: list[str] = (),  # Layers whose outputs to return
    choose: Callable = identity,  # Selects what to return of the network's output if there are no layers
) -> list:  # Outputs of the layers, or the network's output alone
    """Run a network in evaluation mode without gradients.

    Raises KdfastError if a layer does not compute exactly once.
    """
    with torch.no_grad(), evaluating(network):
        if not layers:
            return [choose(network(*xb))]
        with uncompiled(network), watched(network, layers) as outputs:
            network(*xb)
        return [only(outputs[name], name, 'teacher') for name in layers]


@contextmanager
def evaluating(
    network: nn.Module,  # Any network
) -> Iterator[nn.Module]:
    "Switch a network to evaluation mode, and each module back to its own mode afterwards."
    modes = {module: is_training(module) for module in network.modules()}
    if any(modes.values()):
        switch_to_evaluation(network)
    try:
        yield network
    finally:
        for module, training in modes.items():
            if is_training(module) != training:
                module.training = training


def is_training(
    module: nn.Module,  # Any module
) -> bool:
    "Return whether a module is in training mode; a frozen module of TorchScript has no modes."
    return getattr(module, 'training', False)


def switch_to_evaluation(
    network: nn.Module,  # Any network
):
    "Switch a network to evaluation mode, but for exported parts, which cannot be switched."
    try:
        network.eval()
    except NotImplementedError:
        for child in network.children():
            switch_to_evaluation(child)
        network.training = False


@contextmanager
def watched(
    network: nn.Module,  # Any network
    layers: list[str],  # Dotted names
    active: Callable = lambda: True,  # Whether to capture outputs at this moment
) -> Iterator[dict[str, list[Tensor]]]:  # By name, an output for each time that the layer computes
    "Capture the outputs of layers, as copies: a later layer may overwrite them in place."
    outputs = {name: [] for name in layers}

    def capture(name, output):
        if active():
            outputs[name].append(copied(output, name))

    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: capture(name, output)
        )
        for name in outputs
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def first_input(
    args: tuple,  # Positional arguments of a layer
    kwargs: dict,  # Its keyword arguments
) -> object:  # None if it has none
    "Return the first argument of a layer, whether its network gives it by position or by keyword."
    return next(iter((*args, *kwargs.values())), None)


def copied(
    output: object,  # Of a layer
    layer: str,  # Its name
) -> Tensor:
    "Copy the output of a layer. Raises KdfastError if it is no tensor."
    if isinstance(output, Tensor):
        return output.clone()
    raise KdfastError(f'layer {layer} gives {type(output).__name__}, expected a tensor: choose another')


def only(
    outputs: list,  # Of a layer, for one batch
    layer: str,  # Its name
    role: str,  # Teacher, student or the class of the network, for the error
) -> object:
    "Return the single output of a layer. Raises KdfastError if there is none, or more than one."
    if len(outputs) == 1:
        return outputs[0]
    if outputs:
        problem = f'computes its layer {layer} {len(outputs)} times for a batch'
    else:
        problem = f'does not compute its layer {layer} for a batch'
    raise KdfastError(f'the {role} {problem}, expected once: choose another layer')


def tensors(
    network: nn.Module,  # Any network
) -> list[Tensor]:
    "Return all parameters and buffers."
    return [*network.parameters(), *network.buffers()]


def suited_inputs(
    net: nn.Module,  # Any network
    xb: Tensor | tuple,  # Images, or the inputs of a network with several
) -> tuple:
    "Return inputs on the device of a network, and in its precision."
    device = next((t.device for t in tensors(net)), torch.device('cpu'))
    inputs = tuple(xb) if isinstance(xb, tuple | list) else (xb,)
    return in_precision(tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, inputs), precision_of(net))


def precision_of(
    network: nn.Module,  # Any network
) -> torch.dtype | None:
    "Return the type of a network's floating-point numbers; None if it has none or several."
    types = {t.dtype for t in tensors(network) if t.is_floating_point()}
    return types.pop() if len(types) == 1 else None


def in_precision(
    xb: tuple,  # Inputs of a network
    precision: torch.dtype | None,  # From `precision_of`; None converts nothing
) -> tuple:
    "Return the inputs with their floating-point numbers of this type."
    if precision is None:
        return xb
    return tree_map(lambda x: x.to(precision) if isinstance(x, Tensor) and x.is_floating_point() else x, xb)


def versions(
    values: Iterable,  # Any; only tensors count
) -> list[tuple[int, int]]:
    "Return id and version of each tensor; a version counts in-place writes."
    return [(id(t), t._version) for t in values if isinstance(t, Tensor) and not t.is_inference()]


def copies(
    xb: tuple,  # Inputs of a network
) -> tuple:
    "Copy the tensors among the inputs, so that the network may overwrite them."
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, xb)
