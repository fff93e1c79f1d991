"""The same network for less work: a batch norm that alone reads what a convolution gives becomes part of that convolution.

Which batch norm reads what is observed on a batch, not guessed from the network's structure; and a copy takes the place of its
original only after it gave the same for that batch.
"""

import sys
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

from kdfast.models.inference import ask, copies, is_compiled, tensors

TOLERANCE = 1e-4  # of the largest value: how far a copy may be from its original, in float32
NORMS = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}  # a subclass may compute anything
HOOKS = '_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks'


def faster(
    network: nn.Module,  # Any network; stays as it is
    xb: tuple,  # A batch of what it is called with
    layers: list[str] = (),  # Layers whose outputs are wanted
    choose: Callable = lambda output: (
        output
    ),  # Gives, of the network's output, what is wanted where there are no layers
) -> nn.Module:  # A copy, or the network itself
    "A network that gives the same in evaluation mode, for less work where there is one. One line on stderr tells why a copy is not used."
    if is_compiled(network) or not plain(network) or not all(map(is_exact, [*tensors(network), *tree_leaves(xb)])):
        return network
    with (
        torch.autocast('cpu', enabled=False),
        torch.autocast('cuda', enabled=False),
    ):  # rounding would hide what a copy has wrong
        with Readers(network) as readers:
            expected = ask(network, copies(xb), layers, choose)
        if not (pairs := readers.pairs()):
            return network
        try:
            copy = deepcopy(network)
        except Exception as e:  # whatever a network of somebody else's holds
            return as_given(network, f'it cannot be copied ({type(e).__name__})')
        for pair in pairs:
            fold(*map(copy.get_submodule, pair))
        off = difference(ask(copy, copies(xb), layers, choose), expected)
    if off <= TOLERANCE:
        return copy.eval()
    return as_given(
        network,
        f'with folded batch norms it differs by {off:.1e} of its largest output'
        if isfinite(off)
        else 'its outputs cannot be compared',
    )


def folded(
    network: nn.Module,  # Any network; stays as it is
) -> Callable:  # Takes a batch, gives the network's output
    "What the network gives in evaluation mode, without gradient, and for less work where that gives the same for the first batch."
    found = []

    def compute(*xb):
        if not found:
            found.append(faster(network, xb))
        return ask(found[0], xb)[0]

    return compute


def as_given(network, reason):
    print(f'kdfast: the teacher {type(network).__name__} is used as it is: {reason}', file=sys.stderr)
    return network


def plain(network):
    "Convolutions and batch norms, by name, that compute what their weights say and nothing else"
    kinds = *NORMS, *NORMS.values()
    return {name: m for name, m in network.named_modules() if type(m) in kinds and is_plain(m)}


def is_plain(m):
    if 'forward' in vars(m) or any(getattr(m, hooks) for hooks in HOOKS):
        return False  # pruning and the old weight_norm are hooks
    own = [t for name in ('weight', 'bias') if (t := getattr(m, name)) is not None]
    return all(isinstance(t, nn.Parameter) and t.dtype in (torch.float32, torch.float64) for t in own)


def is_exact(x):
    "Whether it has values, which comparing needs, in no half precision, which would hide what a copy has wrong"
    return not (
        isinstance(x, Tensor) and (x.is_meta or isinstance(x, FakeTensor) or x.dtype in (torch.float16, torch.bfloat16))
    )


class Readers(TorchFunctionMode):
    "Observes, while a network computes, what reads the outputs of its convolutions."

    def __init__(
        self,
        network: nn.Module,  # In evaluation mode while it computes
    ):
        super().__init__()
        self.modules = plain(network)
        self.outputs, self.runs, self.reads, self.source = {}, Counter(), Counter(), {}

    def __enter__(self):
        self.hooks = [
            m.register_forward_hook(self.gave(name))
            if type(m) in NORMS
            else m.register_forward_pre_hook(self.takes(name))
            for name, m in self.modules.items()
        ]
        return super().__enter__()

    def __exit__(self, *exception):
        for hook in self.hooks:
            hook.remove()
        return super().__exit__(*exception)

    def gave(self, name):
        def hook(conv, inputs, output):
            self.runs[name] += 1
            self.outputs[id(output)] = name, ref(output)

        return hook

    def takes(self, name):
        def hook(norm, inputs):
            self.runs[name] += 1
            if not norm.training and norm.running_mean is not None:
                self.source[name] = self.convolution(inputs[0])

        return hook

    def convolution(self, tensor):
        "Whose output this is; None where it is no convolution's"
        name, output = self.outputs.get(id(tensor), (None, lambda: None))
        return name if output() is tensor else None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if any(isinstance(o, Tensor) for o in tree_leaves(result)):  # else it is a shape, a device …
            for o in tree_leaves((args, kwargs)):
                self.reads[self.convolution(o)] += isinstance(o, Tensor)
        return result

    def pairs(self) -> list[tuple[str, str]]:
        "Names of convolutions and of the batch norms that alone read them, once each."
        once = [
            (conv, norm)
            for norm, conv in self.source.items()
            if conv and self.runs[conv] == self.runs[norm] == self.reads[conv] == 1
        ]
        return [pair for pair in once if NORMS[type(self.modules[pair[0]])] is type(self.modules[pair[1]])]


def fold(
    conv: nn.Module,  # A convolution, which from now on gives what `norm` gave
    norm: nn.Module,  # The batch norm that reads it, which from now on changes nothing
):
    "Make the two one, in place."
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    norm.forward = unchanged


def unchanged(x):
    return x


def difference(
    found: list,  # What the copy gives
    expected: list,  # What the original gives
) -> float:
    "The largest difference as a share of the largest value; infinite where they cannot be compared."
    pairs = list(zip(tree_leaves(found), tree_leaves(expected)))
    if not pairs or not all(isinstance(o, Tensor) and o.is_floating_point() for pair in pairs for o in pair):
        return float('inf')
    if any(f.shape != e.shape or not e.isfinite().all() for f, e in pairs):
        return float('inf')
    return max(
        float((f - e).abs().max() / e.abs().max().clamp(min=torch.finfo(e.dtype).tiny)) for f, e in pairs if e.numel()
    )
