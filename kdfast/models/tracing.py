"""Tell whether a network computes the same layers for any input, by `torch.fx`, without running it."""

import warnings
from collections.abc import Callable
from threading import get_ident

import torch
from torch import nn
from torch.fx import Node, Proxy, Tracer

from kdfast.models.inference import evaluating


def has_fixed_path(
    network: nn.Module,  # Any network; what its forward pass assigns to it may remain
    n_inputs: int,  # How many tensors it receives
    never_leaves: tuple[type, ...],  # Modules of these classes may not be inside of others that are not traced
) -> bool:
    """Return whether no decision in a network's forward pass depends on values or shapes of its inputs.

    Modules of `torch.nn` are not traced. Hooks are not run, but for kdfast's own: a network with others on modules that
    are traced is not known to have a fixed path.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad(), evaluating(network):
            warnings.simplefilter('ignore')
            Path(network, n_inputs, never_leaves).trace(network)
    except Exception:  # any error of a user's network, on inputs without values
        return False
    return True


def mark_ends_pass(
    hook: Callable,  # Forward hook or forward pre-hook of kdfast that raises an exception to end a network's pass
) -> Callable:  # The hook
    "Let a hook end the pass also when the network is traced."
    vars(hook)['ends_pass'] = True
    return hook


def ends_pass(
    hook: Callable,  # Any hook
) -> bool:
    "Return whether a hook is one of `mark_ends_pass`."
    return getattr(hook, 'ends_pass', False) is True


class OwnHook:
    "Base class of kdfast's own hooks that compute the same for any values."


def is_own(
    hook: Callable,  # Any hook
) -> bool:
    "Return whether a hook is kdfast's own."
    return isinstance(hook, OwnHook) or ends_pass(hook)


class Unknown(Proxy):
    "A value that is not known: decisions that depend on it raise an error, also by a dictionary."

    __hash__ = None

    def __getattr__(self, name):
        return self.tracer.create_proxy('call_function', getattr, (), {})


class Path(Tracer):
    "Follow a network's forward pass; the operations are not recorded."

    def __init__(
        self,
        network: nn.Module,  # Its root
        n_inputs: int,  # How many tensors it receives
        never_leaves: tuple[type, ...],  # See `has_fixed_path`
    ):
        super().__init__()
        self.n_inputs, self.never_leaves = n_inputs, never_leaves
        self.members, self.thread = {id(m) for m in network.modules()}, get_ident()

    def proxy(
        self,
        node: Node,  # Of the graph
    ) -> Unknown:
        "Return an unknown value."
        return Unknown(node, self)

    def create_args_for_root(
        self,
        root_fn: Callable,  # The network's forward
        is_module: bool,  # True
        concrete_args: object = None,  # None
    ) -> tuple[Callable, list]:
        "Call the network itself, not its class's forward, with as many inputs as it receives."
        inputs = [self.create_proxy('placeholder', f'input{i}', (), {}) for i in range(self.n_inputs)]
        return self.root, inputs

    def create_arg(
        self,
        a: object,  # An argument of an operation
    ) -> object:
        "Return nothing: what operations receive is of no interest, and tensors would be stored in the network."
        return type(a)() if type(a) in (tuple, dict) else None

    def getattr(
        self,
        attr: str,  # Name of a parameter, buffer or module
        attr_val: object,  # Its value
        parameter_proxy_cache: dict,  # Not used
    ) -> object:
        "Return an unknown value for a weight: methods of a tensor take no unknown sizes."
        if isinstance(attr_val, nn.Parameter) and get_ident() == self.thread:
            return self.create_proxy('get_attr', '', (), {})
        return attr_val

    def call_module(
        self,
        m: nn.Module,  # Any module, in another thread that of another network, too
        forward: Callable,  # Computes it
        args: tuple,  # Its inputs
        kwargs: dict,  # Its inputs by name
    ) -> object:
        "Compute a module and run kdfast's hooks that end the pass."
        if get_ident() != self.thread:
            return forward(*args, **kwargs)
        for key, hook in m._forward_pre_hooks.items():
            if ends_pass(hook):
                hook(m, args, *([kwargs] if key in m._forward_pre_hooks_with_kwargs else []))
        output = self.compute(m, forward, args, kwargs)
        for hook in filter(ends_pass, m._forward_hooks.values()):
            hook(m, args, output)
        return output

    def compute(
        self,
        m: nn.Module,  # Any module
        forward: Callable,  # Computes it
        args: tuple,  # Its inputs
        kwargs: dict,  # Its inputs by name
    ) -> object:
        "Compute a module, or return an unknown value for a module of `torch.nn`."
        if id(m) in self.members and self.is_leaf_module(m, ''):
            return self.create_proxy('call_module', '', (), {})
        if not all(map(is_own, [*m._forward_hooks.values(), *m._forward_pre_hooks.values()])):
            raise ValueError('hooks are not run')
        return forward(*args, **kwargs)

    def is_leaf_module(
        self,
        m: nn.Module,  # Of the network
        module_qualified_name: str,  # Not used
    ) -> bool:
        "Return whether a module's own code is that of torch.nn, and no batch norm is inside."
        inside = (module for module in m.modules() if module is not m)
        return (
            super().is_leaf_module(m, module_qualified_name)
            and 'forward' not in vars(m)
            and not any(isinstance(module, self.never_leaves) for module in inside)
        )
