"A network up to one of its layers: what that gives as a feature map, and which parameters it depends on."

import difflib
from collections import OrderedDict

import torch
from fastai.basics import params
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kdfast.core.errors import KdfastError
from kdfast.models.feature_maps import Arranged
from kdfast.models.folding import HOOKS
from kdfast.models.inference import copied, only, tensors, uncompiled, unwrapped
from kdfast.models.noise import trying

LAYER = 'stage2'  # of kdfast's own networks: hint and guided layer both close the middle stage
WRAPPERS = (
    'network',
    'module',
    'model',
    '_orig_mod',
)  # what a network may be called inside another: by kdfast, DataParallel, many trainers, torch.compile


def front(
    net: nn.Module,  # Any network
    layer: str = LAYER,  # Dotted name of its hint or guided layer
) -> nn.Module:
    """The network up to and including that layer; the modules are shared, not copied, and nothing behind it is computed.

    Gives feature maps as (batch, channels, height, width), whatever their layout in the network, without class and other prefix tokens,
    and vectors as (batch, channels). Raises KdfastError, with the nearest names, where the network has no such layer; and when it is
    called, for a layer that gives neither map nor vector, or is not computed once for an image.
    """
    net = unwrapped(net)
    layer = full_name(net, layer)
    cut = part(net, layer.split('.')) or Until(net, layer)
    cut.register_forward_hook(AsMap(layer), with_kwargs=True)
    return cut


def part(net, path):
    "The modules of a Sequential up to a place in it; None where that is in a module of another kind"
    if type(net) is not nn.Sequential or 'forward' in vars(net) or any(getattr(net, hooks) for hooks in HOOKS):
        return None
    place, *inner = path
    names = list(net._modules)  # named_children would leave out a module that occurs again
    last = part(net._modules[place], inner) if inner else net._modules[place]
    before = names[: names.index(place)]
    return (
        nn.Sequential(OrderedDict({name: net._modules[name] for name in before} | {place: last}))
        if last is not None
        else None
    )


def full_name(
    net: nn.Module,  # A network, or one that wraps it
    layer: str,  # Dotted name, as `kdfast layers` gives it
) -> str:
    "The name of the layer in `net`, with its wrappers. Raises KdfastError, with the nearest names, for a layer that is not there."
    names = [name for name, _ in net.named_modules(remove_duplicate=False)][1:]
    if layer in names:
        return layer
    plain = {bare(name): name for name in reversed(names)}
    if bare(layer) in plain:
        return plain[bare(layer)]
    near = difflib.get_close_matches(layer, list(plain), n=3)
    raise KdfastError(
        f'{type(net).__name__} has no layer {layer}; '
        + (f'did you mean {", ".join(near)}?' if near else 'kdfast layers lists what it has')
    )


def bare(name):
    "Without the names of wrappers before it, and without torch.compile's anywhere"
    parts = [part for part in name.split('.') if part != '_orig_mod']
    while len(parts) > 1 and parts[0] in WRAPPERS:
        del parts[0]
    return '.'.join(parts)


class Until(nn.Module):
    "A network that ends with one of its layers, in the middle of its own forward pass; the first pass goes on, to see that the layer computes once."

    def __init__(
        self,
        net: nn.Module,  # Shared, not copied
        layer: str,  # Dotted name
    ):
        super().__init__()
        self.net, self.layer, self.once = net, layer, False

    def forward(self, *inputs, **kwargs):
        seen = []

        def reached(module, inputs, output):
            seen.append(output if self.once else copied(output, self.layer))  # a layer behind may overwrite it in place
            if self.once:
                raise Reached

        hook = self.net.get_submodule(self.layer).register_forward_hook(reached)
        try:
            with uncompiled(self.net):
                self.net(*inputs, **kwargs)
        except Exception as e:  # also whatever a part of the network that is not needed does with such an input
            if not seen or isinstance(e, KdfastError):
                raise
        finally:
            hook.remove()
        output = only(seen, self.layer, type(self.net).__name__)
        self.once = True
        return output


class Reached(Exception):
    "The layer was reached: what is behind it need not be computed."


class AsMap:
    "A front's forward hook: what it gives as a feature map."

    def __init__(
        self,
        layer: str,  # For the error
    ):
        self.layer, self.arranged, self.looking = layer, Arranged(), False

    def __call__(self, cut, args, kwargs, output):
        if self.looking:
            return output
        self.looking = True
        try:
            self.arranged.prepare(cut, {self.layer: cut}, (args, kwargs))
        finally:
            self.looking = False
        return self.arranged(self.layer, output)


def features(
    net: nn.Module,  # A front
    xb: Tensor | tuple,  # Some images, or the inputs of a network that takes several
) -> Tensor:
    "What `net` makes of `xb`, without moving its batch-norm statistics."
    with trying(net):
        return net(*given(net, xb))


def given(net, xb):
    "The inputs where the network is"
    device = next((t.device for t in tensors(net)), torch.device('cpu'))
    return tree_map(
        lambda x: x.to(device) if isinstance(x, Tensor) else x, tuple(xb) if isinstance(xb, tuple | list) else (xb,)
    )


def front_back(
    net: nn.Module,  # A network
    layer: str = LAYER,  # Dotted name of its guided layer
    xb: Tensor | tuple | None = None,  # An image or two; needed where the network is no nn.Sequential
) -> list:
    "Splitter for a Learner: `freeze()` then holds the front still, every parameter that the guided features depend on, and trains the back."
    cut = front(net, layer)
    if isinstance(cut, Until) and xb is None:
        raise KdfastError(f'front_back needs an image, xb, to see what layer {layer} depends on')
    used = {id(p) for p in (depends_on(cut, xb) if isinstance(cut, Until) else cut.parameters())}
    return [[p for p in params(net) if (id(p) in used) == inside] for inside in (True, False)]


def depends_on(net, xb):
    "The parameters that change what `net` makes of `xb`, frozen ones among them"
    own = [p for p in net.parameters() if p.is_floating_point()]
    frozen = [p for p in own if not p.requires_grad]
    with trying(net), torch.enable_grad():
        try:
            for p in frozen:
                p.requires_grad = True
            output = net(*given(net, xb))
            gradients = (
                torch.autograd.grad(output.float().square().sum(), own, allow_unused=True)
                if output.requires_grad
                else []
            )
        finally:
            for p in frozen:
                p.requires_grad = False
    return [p for p, gradient in zip(own, gradients) if gradient is not None]
