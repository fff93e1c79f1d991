"Convert the state of a module to plain tensors and JSON, and back."

import json
from collections import OrderedDict

import safetensors.torch
import torch
from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.models.inference import is_script


def tensors_and_json(
    module: nn.Module,  # Any module
) -> tuple[dict, dict]:  # Contiguous tensors that share no memory; the rest of the state, as JSON
    "Return the whole state of a module. Raises KdfastError if it cannot be kept."
    if any(is_script(m) for m in module.modules()):
        raise KdfastError(
            'it is of TorchScript, which checkpoints cannot hold: use the network as it was before torch.jit.script or '
            'torch.jit.trace'
        )
    state = module.state_dict()
    extra = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    versions = {name: entry for name, entry in getattr(state, '_metadata', {}).items() if entry != {'version': 1}}
    for name, value in (extra | versions).items():
        check_plain(name, value)
    seen = set()
    tensors = {name: without_shared_memory(name, value, seen) for name, value in state.items() if name not in extra}
    return tensors, dict(versions=versions) | (dict(extra=extra) if extra else {})


def without_shared_memory(
    name: str,  # Of the tensor, for the error
    tensor: Tensor,  # Of a state dict
    seen: set[int],  # Addresses of the memory of earlier tensors; the tensor's is added
) -> Tensor:
    "Return a contiguous tensor that shares no memory with earlier ones. Raises KdfastError."
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = 'quantized' if tensor.is_quantized else 'meta' if tensor.is_meta else tensor.layout
        raise KdfastError(f'{name} of its state is a {kind} tensor, which cannot be saved: expected a dense one')
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    memory = tensor.untyped_storage().data_ptr()
    if memory in seen:
        tensor = tensor.clone()
    seen.add(memory)
    return tensor


def check_plain(
    name: str,  # Of the value, for the error
    value: object,  # Of a state dict
):
    "Raise KdfastError unless JSON holds a value exactly."
    try:
        same = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        same = False
    if not same:
        raise KdfastError(
            f'{name} of its state holds a {type(value).__name__}, which cannot be saved: expected tensors, or what '
            'JSON can hold'
        )


def restore(
    module: nn.Module,  # Of the same structure
    tensors: dict,  # Returned by `tensors_and_json`
    more: dict
    | None = None,  # Returned by `tensors_and_json`; without it, all modules are assumed to have their current versions
):
    "Load a whole state. Raises RuntimeError, as PyTorch does, if it is another module's."
    materialize_expanded_buffers(module)
    current = getattr(module.state_dict(), '_metadata', {})
    state = OrderedDict(tensors | (more or {}).get('extra', {}))
    versions = (more or {}).get('versions')
    if versions is None:
        state._metadata = current
    else:
        state._metadata = {name: versions.get(name, {'version': 1}) for name in current}
    module.load_state_dict(state)


def materialize_expanded_buffers(
    module: nn.Module,  # Changed in place
):
    "Replace expanded buffers by copies: tensors whose elements share memory cannot be written to."
    for m in module.modules():
        for name, b in list(m._buffers.items()):
            if b is not None and is_expanded(b):
                m._buffers[name] = b.clone()


def is_expanded(
    tensor: Tensor,  # Any tensor
) -> bool:
    "Return whether elements of a tensor share memory, as after `expand`."
    if tensor.layout != torch.strided:
        return False
    return any(n > 1 and not step for n, step in zip(tensor.shape, tensor.stride()))


def serialized(
    module: nn.Module,  # Any module
    description: dict,  # Of the network, for the file's metadata
) -> bytes:
    "Return a module's state as a safetensors file. Raises KdfastError if such a file cannot hold it."
    tensors, more = tensors_and_json(module)
    # A single entry: safetensors writes several in any order, and equal networks would differ in their SHA-256
    metadata = dict(built_by=json.dumps(description | more))
    try:
        return safetensors.torch.save(tensors, metadata)
    except KeyError as e:
        raise KdfastError(f'its state holds tensors of {e}, which cannot be saved as safetensors') from e
