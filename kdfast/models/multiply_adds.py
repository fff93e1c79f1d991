"Count the multiply-adds of products of matrices, convolutions, attention and recurrent layers."

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

# Operators that compute whole layers, whose products are not counted
FUSED = re.compile(r'rnn|lstm(?!_cell)|gru(?!_cell)|attention|transformer|mkldnn|onednn|int_mm|int4|int8|grouped_mm')


def count_multiply_adds(
    compute: Callable,  # Runs a network without gradients
) -> int:
    """Count multiply-adds: two floating-point operations each, as PyTorch's FlopCounterMode counts them.

    Layers that PyTorch has as one operator are computed by products of matrices, so that a GPU gives the same number.
    Products of single elements are not counted, nor are other operations. Raises ValueError for operators whose
    multiply-adds are unknown.
    """
    unknown = UnknownOperators()
    with without_fused_layers(), FlopCounterMode(display=False, custom_mapping=PRODUCTS) as counter, unknown:
        compute()
    if unknown.found:
        raise ValueError(f'the operator {min(unknown.found)} has unknown multiply-adds')
    return counter.get_total_flops() // 2


@contextmanager
def without_fused_layers() -> Iterator[None]:
    "Let attention, transformers and recurrent layers be computed by products of matrices."
    mha, mkldnn, cudnn = torch.backends.mha, torch.backends.mkldnn, torch.backends.cudnn
    before = mha.get_fastpath_enabled(), mkldnn.enabled, cudnn.enabled
    try:
        mha.set_fastpath_enabled(False)
        mkldnn.enabled = cudnn.enabled = False  # their flags() would also set precisions, with a warning or an error
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        fast, mkldnn.enabled, cudnn.enabled = before
        mha.set_fastpath_enabled(fast)


class UnknownOperators(TorchDispatchMode):
    "Note operators that multiply several tensors, and that nobody counts."

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        own = func.namespace in ('aten', 'prim', 'prims', 'profiler')
        if FUSED.search(func.name()) if own else takes_matrices((args, kwargs)):
            self.found.add(func.name())
        return func(*args, **(kwargs or {}))


def takes_matrices(
    inputs: object,  # Of an operator
) -> bool:
    "Return whether an operator receives several matrices, or weights in a form of its own."
    leaves = tree_leaves(inputs)
    matrices = [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 1]
    return len(matrices) > 1 or any(isinstance(x, torch.ScriptObject) for x in leaves)


# Products that FlopCounterMode leaves out: floating-point operations from the shapes of the inputs


def vector_product(
    *shapes,  # Of an added vector, if there is one, the matrix or vector, and the vector
    **_,  # Of the output, factors
) -> int:
    "Count a product of a matrix, or a vector, with a vector."
    return 2 * prod(shapes[-2])


def added_batch_product(
    added,  # Shape of the matrix that is added
    left,  # (batch, n, m)
    right,  # (batch, m, k)
    *_,  # Factors
    **__,  # Of the output
) -> int:
    "Count products of matrices that are added up."
    return 2 * prod(left) * right[-1]


def trilinear_product(
    *arguments,  # Shapes of three inputs, their additional dimensions, dimensions of the sum
    **_,  # Of the output
) -> int:
    "Count the products of all elements of three tensors, as in `nn.Bilinear`."
    shapes = [list(shape) for shape in arguments[:3]]
    for shape, new in zip(shapes, arguments[3:6]):
        for dim in new:
            shape.insert(dim, 1)
    return 2 * prod(map(max, *shapes))


aten = torch.ops.aten
PRODUCTS = {
    aten.mv: vector_product,
    aten.dot: vector_product,
    aten.vdot: vector_product,
    aten.addmv: vector_product,
    aten.addbmm: added_batch_product,
    aten._trilinear: trilinear_product,
}
