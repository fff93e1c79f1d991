"""Faster inference copies of networks: fold batch norms into the convolutions that they read.

A batch norm is folded if nothing else reads the output of the convolution. This is observed on a batch, not inferred
from the network's structure, and only for networks whose layers do not depend on the input (`tracing`). A copy replaces
its original only if both return the same outputs for that batch.
"""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from math import isfinite
from weakref import ref

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from kdfast.core.notes import say
from kdfast.models.autocast import without_autocast
from kdfast.models.held import Watch
from kdfast.models.inference import copies, first_input, identity, infer, is_compiled, tensors
from kdfast.models.tracing import has_fixed_path

TOLERANCE = 1e-4  # largest difference between copy and original, relative to the largest output, in float32
NORMS = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}  # these classes, no subclasses
HOOKS = '_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks'


def faster(
    network: nn.Module,  # Any network; stays unchanged
    xb: tuple,  # A batch of its inputs
    layers: list[str] = (),  # Layers whose outputs are used
    choose: Callable = identity,  # Selects what is used of the network's output if there are no layers
) -> nn.Module:  # A copy, or the network itself
    """Return a network with the same outputs in evaluation mode at less cost, if there is one.

    If a copy is rejected, the reason is printed to stderr.
    """
    if is_compiled(network) or not plain_modules(network):
        return network
    if not all(map(is_comparable, [*tensors(network), *xb])):
        return network
    try:
        copy = deepcopy(network)
    except Exception as e:  # a user's network may raise anything
        return rejected(network, f'it cannot be copied ({type(e).__name__})')
    with without_autocast():  # rounding would hide differences
        watch = Watch(copy)
        with Readers(copy) as readers:
            expected = infer(copy, copies(xb), layers, choose)
        if not (pairs := readers.pairs()):
            return network
        if not has_fixed_path(copy, len(xb), (*NORMS, *NORMS.values())):
            return rejected(network, 'torch.fx cannot trace it, so its layers may depend on the input')
        if not watch.same:
            return rejected(network, 'its forward pass changes its buffers or attributes')
        for conv, norm in pairs:
            fold(copy.get_submodule(conv), copy.get_submodule(norm))
        error = relative_difference(infer(copy, copies(xb), layers, choose), expected)
    if error <= TOLERANCE:
        return copy.eval()
    if isfinite(error):
        return rejected(network, f'with folded batch norms it differs by {error:.1e} of its largest output')
    return rejected(network, 'its outputs cannot be compared')


def folded(
    network: nn.Module,  # Any network; stays unchanged
) -> Callable:  # From a batch to the network's output
    "Return an inference function; it uses a faster copy if that equals the network on the first batch."
    found = []

    def compute(*xb):
        if not found:
            found.append(faster(network, xb))
        return infer(found[0], xb)[0]

    return compute


def rejected(
    network: nn.Module,  # The original
    reason: str,  # Why it has no faster copy
) -> nn.Module:
    "Print why a network is used unchanged, and return it."
    say(f'the teacher {type(network).__name__} is used as it is: {reason}')
    return network


def plain_modules(
    network: nn.Module,  # Any network
) -> dict[str, nn.Module]:  # By dotted name
    "Return the convolutions and batch norms that compute what their weights define and nothing else."
    kinds = *NORMS, *NORMS.values()
    return {name: m for name, m in network.named_modules() if type(m) in kinds and is_plain(m)}


def is_plain(
    m: nn.Module,  # A convolution or a batch norm
) -> bool:
    "Return whether a module has no hooks (as pruning adds), no forward of its own and plain parameters."
    if 'forward' in vars(m) or any(getattr(m, hooks) for hooks in HOOKS):
        return False
    parameters = [t for name in ('weight', 'bias') if (t := getattr(m, name)) is not None]
    return all(isinstance(t, nn.Parameter) and t.dtype in (torch.float32, torch.float64) for t in parameters)


def is_comparable(
    x: object,  # A weight or an input
) -> bool:
    "Return whether it is a tensor with values; half precision would hide differences."
    return isinstance(x, Tensor) and not (
        x.is_meta or isinstance(x, FakeTensor) or x.dtype in (torch.float16, torch.bfloat16)
    )


class Readers(TorchFunctionMode):
    "Observe what reads the outputs of a network's convolutions."

    def __init__(
        self,
        network: nn.Module,  # In evaluation mode while it computes
    ):
        super().__init__()
        self.modules = plain_modules(network)
        self.outputs = {}  # name of a convolution and a reference to its output, by id of the output
        self.calls = Counter()  # of each module
        self.reads = Counter()  # of each convolution's output
        self.source = {}  # name of the convolution that a batch norm reads

    def __enter__(self):
        self.hooks = [
            m.register_forward_hook(self.record_output(name))
            if type(m) in NORMS
            else m.register_forward_pre_hook(self.record_input(name), with_kwargs=True)
            for name, m in self.modules.items()
        ]
        return super().__enter__()

    def __exit__(self, *exception):
        for hook in self.hooks:
            hook.remove()
        return super().__exit__(*exception)

    def record_output(
        self,
        name: str,  # Of a convolution
    ) -> Callable:
        "Return the forward hook of a convolution."

        def hook(conv, inputs, output):
            self.calls[name] += 1
            self.outputs[id(output)] = name, ref(output)

        return hook

    def record_input(
        self,
        name: str,  # Of a batch norm
    ) -> Callable:
        "Return the forward pre-hook of a batch norm."

        def hook(norm, args, kwargs):
            self.calls[name] += 1
            if not norm.training and norm.running_mean is not None:
                self.source[name] = self.convolution(first_input(args, kwargs))

        return hook

    def convolution(
        self,
        tensor: object,  # Any value
    ) -> str | None:
        "Return the convolution that a tensor is the output of; None for any other value."
        name, output = self.outputs.get(id(tensor), (None, lambda: None))
        return name if output() is tensor else None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if any(isinstance(o, Tensor) for o in tree_leaves(result)):  # not a shape or a device
            for o in tree_leaves((args, kwargs)):
                self.reads[self.convolution(o)] += isinstance(o, Tensor)
        return result

    def pairs(self) -> list[tuple[str, str]]:
        "Return the names of convolutions and of the batch norms that alone read them, each called once."
        once = [
            (conv, norm)
            for norm, conv in self.source.items()
            if conv and self.calls[conv] == self.calls[norm] == self.reads[conv] == 1
        ]
        return [pair for pair in once if NORMS[type(self.modules[pair[0]])] is type(self.modules[pair[1]])]


def fold(
    conv: nn.Module,  # A convolution, which then returns what `norm` has returned
    norm: nn.Module,  # The batch norm that reads it, which then returns its input
):
    "Fold a batch norm into a convolution, in place."
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    norm.forward = identity


def relative_difference(
    found: list,  # Outputs of the copy
    expected: list,  # Outputs of the original
) -> float:
    "Return the largest difference relative to the largest value; infinity if not comparable."
    pairs = list(zip(tree_leaves(found), tree_leaves(expected)))
    if not pairs or not all(isinstance(o, Tensor) and o.is_floating_point() for pair in pairs for o in pair):
        return float('inf')
    if any(f.shape != e.shape or not e.isfinite().all() for f, e in pairs):
        return float('inf')
    return max(
        float((f - e).abs().max() / e.abs().max().clamp(min=torch.finfo(e.dtype).tiny)) for f, e in pairs if e.numel()
    )
