"The state of a module as plain tensors and JSON, and back: tied and odd tensors, versions, extra state."

import json
from collections import OrderedDict

import safetensors.torch
import torch
from torch import nn

from kdfast.core.errors import KdfastError

EXTRA = '_extra_state'  # what PyTorch calls it


def packed(
    module: nn.Module,
) -> tuple[dict, dict]:  # Tensors that share no memory, each contiguous; what else the state holds, as JSON
    "The whole state of a module. Raises KdfastError for what a file of tensors and JSON cannot hold."
    state, seen = module.state_dict(), set()
    extra = {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}
    versions = {name: entry for name, entry in getattr(state, '_metadata', {}).items() if entry != {'version': 1}}
    for name, value in (extra | versions).items():
        check_plain(name, value)
    tensors = {name: alone(name, value, seen) for name, value in state.items() if name not in extra}
    return tensors, dict(versions=versions) | (dict(extra=extra) if extra else {})


def alone(name, tensor, seen):
    "The tensor by itself: contiguous, and in memory that none of those before it is in"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = 'quantized' if tensor.is_quantized else 'meta' if tensor.is_meta else tensor.layout
        raise KdfastError(f'{name} of its state is a {kind} tensor, which cannot be saved: expected a dense one')
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    memory = tensor.untyped_storage().data_ptr()
    if memory in seen:
        tensor = tensor.clone()
    seen.add(memory)
    return tensor


def check_plain(name, value):
    try:
        same = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        same = False
    if not same:
        raise KdfastError(
            f'{name} of its state holds a {type(value).__name__}, which cannot be saved: expected tensors, or what JSON can hold'
        )


def restore(
    module: nn.Module,  # Of the same structure
    tensors: dict,  # From `packed`
    more: dict | None = None,  # From `packed`; without it, everything is taken to be of today's versions
):
    "Load a state, whole. Raises RuntimeError, as PyTorch does, where it is another module's."
    spread_out(module)
    now = getattr(module.state_dict(), '_metadata', {})
    state = OrderedDict(tensors | (more or {}).get('extra', {}))
    versions = (more or {}).get('versions')
    state._metadata = now if versions is None else {name: versions.get(name, {'version': 1}) for name in now}
    module.load_state_dict(state)


def spread_out(module):
    "Give buffers that were expanded memory of their own, element by element: nothing can be copied into them otherwise"
    for m in module.modules():
        m._buffers.update(
            {
                name: b.clone()
                for name, b in m._buffers.items()
                if b is not None
                and b.layout == torch.strided
                and any(n > 1 and not step for n, step in zip(b.shape, b.stride()))
            }
        )


def serialized(
    module: nn.Module,
    facts: dict,  # What the file says of it
) -> bytes:
    "A safetensors file of its state. Raises KdfastError for a state that such a file cannot hold."
    tensors, more = packed(module)
    metadata = dict(
        built_by=json.dumps(facts | more)
    )  # one entry: safetensors writes several in any order, and equal networks would differ in their SHA-256
    try:
        return safetensors.torch.save(tensors, metadata)
    except KeyError as e:
        raise KdfastError(f'its state holds tensors of {e}, which cannot be saved as safetensors') from e
