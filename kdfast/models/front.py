"Cut a network after one of its layers, and find the parameters that the layer's output depends on."

import difflib
from collections import OrderedDict

import torch
from fastai.basics import params
from torch import Tensor, nn

from kdfast.core.errors import KdfastError, reason, resource_failure
from kdfast.models.feature_maps import Arranged
from kdfast.models.folding import HOOKS
from kdfast.models.inference import copied, copies, is_script, only, suited_inputs, uncompiled, unwrapped
from kdfast.models.noise import trial
from kdfast.models.tracing import OwnHook, mark_ends_pass
from kdfast.models.undone import Remembers

SIMILAR = 0.75  # of names of layers: layer5 and layer4, but not stage2 and start.2
LAYER = 'stage2'  # of kdfast's own networks: hint layer and guided layer end the middle stage
WRAPPERS = ('network', 'module', 'model', '_orig_mod')  # attributes that kdfast, torch and trainers keep a network in


def front(
    net: nn.Module,  # Any network
    layer: str = LAYER,  # Dotted name of its hint or guided layer
) -> nn.Module:
    """Cut a network after a layer. Modules are shared, not copied; later ones are not computed.

    The output is a feature map (batch, channels, height, width), whatever the layout in the network, without class and
    other prefix tokens, or a vector (batch, channels). Raises KdfastError, with similar names, if the network has no
    such layer; and, when it is called, for a layer whose output is neither a map nor a vector, or that does not compute
    once per image.
    """
    net = unwrapped(net)
    layer = full_name(net, layer)
    cut = sequential_part(net, layer.split('.')) or TruncatedModel(net, captured_name(net, layer))
    cut.register_forward_hook(AsMap(layer), with_kwargs=True)
    return cut


def sequential_part(
    net: nn.Module,  # Any module
    path: list[str],  # Parts of a layer's dotted name
) -> nn.Module | None:  # None if the layer is not inside nested nn.Sequential modules
    "Return the modules of a Sequential up to and including a layer."
    if type(net) is not nn.Sequential or 'forward' in vars(net) or any(getattr(net, hooks) for hooks in HOOKS):
        return None
    name, *inner = path
    names = list(net._modules)  # named_children leaves out modules that occur again
    last = sequential_part(net._modules[name], inner) if inner else net._modules[name]
    if last is None:
        return None
    before = {other: net._modules[other] for other in names[: names.index(name)]}
    return nn.Sequential(OrderedDict(before | {name: last}))


def full_name(
    net: nn.Module,  # A network, possibly wrapped
    layer: str,  # Dotted name, as `kdfast layers` prints it
) -> str:
    "Return the name of a layer including wrappers. Raises KdfastError, with similar names."
    modules = dict(list(net.named_modules(remove_duplicate=False))[1:])
    plain = {plain_name(name): name for name in reversed(modules)}
    if found := layer if layer in modules else plain.get(plain_name(layer)):
        return found
    near = difflib.get_close_matches(layer, list(plain), n=3, cutoff=SIMILAR)
    hint = f'did you mean {", ".join(near)}? ' if near else ''
    raise KdfastError(f'{type(net).__name__} has no layer {layer}; {hint}kdfast layers NETWORK lists its layers')


def captured_name(
    net: nn.Module,  # A network, possibly wrapped
    layer: str,  # Dotted name, as `kdfast layers` prints it
) -> str:
    "Return the name of a layer whose output hooks can capture. Raises KdfastError, as `full_name`."
    name = full_name(net, layer)
    if is_script(dict(net.named_modules(remove_duplicate=False))[name]):
        raise KdfastError(
            f'layer {layer} is of TorchScript, which shows no outputs of layers: use the network as it was before '
            'torch.jit.script or torch.jit.trace'
        )
    return name


def plain_name(
    name: str,  # Dotted name of a layer
) -> str:
    "Remove the names of wrappers at the start, and torch.compile's anywhere."
    parts = [part for part in name.split('.') if part != '_orig_mod']
    while len(parts) > 1 and parts[0] in WRAPPERS:
        del parts[0]
    return '.'.join(parts)


class TruncatedModel(Remembers, nn.Module):
    """Stop the forward pass of a network after one of its layers and return the layer's output.

    The first forward pass is complete, to check that the layer computes once, and that the network can be stopped.
    """

    def __init__(
        self,
        net: nn.Module,  # Shared, not copied
        layer: str,  # Dotted name
    ):
        super().__init__()
        self.net = net
        self.layer = layer
        self.checked = False

    def forward(
        self,
        *inputs,  # Of the network
        **kwargs,  # Of the network
    ) -> Tensor:
        "Run the network up to the layer. Raises KdfastError if the layer does not compute once."
        if self.checked:
            return self.compute(inputs, kwargs)
        again = copies((inputs, kwargs))
        output = self.compute(inputs, kwargs, stop=False)
        self.check_stops(*again)
        self.checked = True
        return output

    def compute(
        self,
        inputs,  # Of the network
        kwargs,  # Of the network
        stop=True,  # Whether to stop after the layer
    ):
        "Return the layer's output."
        outputs = []

        def record(module, inputs, output):
            outputs.append(output if stop else copied(output, self.layer))  # a later layer may overwrite it
            if stop:
                raise StopForward

        hook = self.net.get_submodule(self.layer).register_forward_hook(mark_ends_pass(record))
        try:
            with uncompiled(self.net):
                self.net(*inputs, **kwargs)
        except Exception as e:  # StopForward, or a failure of a later part, which is not needed
            if not outputs or isinstance(e, KdfastError):
                raise
        finally:
            hook.remove()
        return only(outputs, self.layer, type(self.net).__name__)

    def check_stops(
        self,
        inputs,  # Of the network, to which it may write
        kwargs,  # Of the network, to which it may write
    ):
        "Raise KdfastError if a pass fails after another was stopped."
        try:
            with trial(self.net):
                for _ in range(2):
                    self.compute(*copies((inputs, kwargs)))
        except Exception as e:  # networks of users may raise anything
            if isinstance(e, KdfastError) or resource_failure(e):
                raise
            raise KdfastError(
                f'{type(self.net).__name__} cannot be stopped after its layer {self.layer}, because the next forward '
                f'pass fails ({reason(e)}): let its forward leave nothing behind when an exception ends it'
            ) from e


class StopForward(Exception):
    "Signal that the layer has computed, so that later modules need not."


class AsMap(OwnHook):
    "Convert the output of a front to a feature map, as its forward hook."

    def __init__(
        self,
        layer: str,  # Of the front, for errors
    ):
        self.layer = layer
        self.arranged = Arranged()
        self.preparing = False

    def __call__(self, cut, args, kwargs, output):
        if self.preparing:
            return output
        self.preparing = True
        try:
            self.arranged.prepare(cut, {self.layer: cut}, (args, kwargs))
        finally:
            self.preparing = False
        return self.arranged(self.layer, output)


def features(
    net: nn.Module,  # A front
    xb: Tensor | tuple,  # Images, or the inputs of a network with several
) -> Tensor:
    "Compute the features of a batch in evaluation mode, without gradients."
    with trial(net):
        return net(*suited_inputs(net, xb))


def front_back(
    net: nn.Module,  # A network
    layer: str = LAYER,  # Dotted name of its guided layer
    xb: Tensor | tuple | None = None,  # An image or two; needed unless the network is an nn.Sequential
) -> list[list[nn.Parameter]]:
    """Split parameters for a Learner: those that the guided features depend on, and all others.

    `freeze()` then freezes the front and trains the back.
    """
    cut = front(net, layer)
    truncated = isinstance(cut, TruncatedModel)
    if truncated and xb is None:
        raise KdfastError(f'front_back needs an image, xb, to find the parameters that layer {layer} depends on')
    used = {id(p) for p in (used_parameters(cut, xb) if truncated else cut.parameters())}
    return [[p for p in params(net) if (id(p) in used) == inside] for inside in (True, False)]


def used_parameters(
    net: nn.Module,  # A front
    xb: Tensor | tuple,  # Images, or the inputs of a network with several
) -> list[nn.Parameter]:
    "Return the parameters that the output of a network depends on, including frozen ones."
    own = [p for p in net.parameters() if p.is_floating_point()]
    frozen = [p for p in own if not p.requires_grad]
    gradients = []
    with trial(net), torch.enable_grad():
        try:
            for p in frozen:
                p.requires_grad = True
            output = net(*suited_inputs(net, xb))
            if output.requires_grad:
                gradients = torch.autograd.grad(output.float().square().sum(), own, allow_unused=True)
        finally:
            for p in frozen:
                p.requires_grad = False
    return [p for p, gradient in zip(own, gradients) if gradient is not None]
