"Read weights from files of PyTorch, torchvision, timm, fastai or Lightning; unpickle only tensors."

import json
import re
from collections import Counter, OrderedDict
from pathlib import Path

import safetensors
import torch

from kdfast.core.errors import KdfastError

AVERAGED = ('state_dict_ema', 'model_ema', 'ema_state_dict', 'ema')  # keys of averaged weights, which timm prefers, too
HOLDERS = (*AVERAGED, 'state_dict', 'model_state_dict', 'model', 'net', 'network', 'module', 'params', 'weights')
OPAQUE = 'numpy.', 'functools.partial'  # classes whose objects are created without a state
UNKNOWN_CLASS = re.compile(r'Unsupported global: GLOBAL ([\w.]+) ')  # in errors of torch.load
REASON = re.compile(r'(Trying|Unsupported|Can only|Only) .+')  # in errors of torch.load


class Ignored:
    "Stand in for any class of a checkpoint: its objects become empty dictionaries, it is not imported."

    def __new__(cls, *args):
        return Counter()  # torch.load sets the items of this class and OrderedDict, and the state of this class alone


class Opaque:
    "Stand in for classes of a checkpoint whose objects need `__setstate__`; the state is ignored."

    def __new__(cls, *args):
        return object.__new__(cls)

    def __setstate__(self, state):
        pass


class Versions(dict):
    "Versions of modules, as `_metadata` of a state dict; modules that are not listed have version 1."

    def get(
        self,
        name: str,  # Of a module
        default: object = None,  # Ignored
    ) -> dict:
        "Return the entry of a module."
        return super().get(name, dict(version=1))


def read(
    file: Path,  # .safetensors, or a state dict or checkpoint written by torch.save
) -> tuple[OrderedDict, str]:  # State dict, with `_metadata` if the file has it; a message for the user, may be empty
    "Read the state dict of a file. Raises KdfastError if there is none."
    if not file.is_file():
        raise KdfastError(f'no file of weights {file}')
    if file.suffix == '.safetensors':
        tensors, more = read_safetensors(file)
        state = OrderedDict(tensors | more.get('extra', {}))
        if 'versions' in more:
            state._metadata = Versions(more['versions'])
        return state, ''
    state, key = find_state(read_checkpoint(file))
    if state is None:
        raise no_state(file)
    return state, f'{file}: averaged weights ({key}) are used' if key in AVERAGED else ''


def read_safetensors(
    file: Path,  # .safetensors
) -> tuple[dict, dict]:  # Tensors by name; kdfast's description of the network, if it wrote the file
    "Read a safetensors file. Raises KdfastError if it is damaged."
    try:
        with safetensors.safe_open(file, 'pt') as f:
            description = (f.metadata() or {}).get('built_by', '{}')
            return {name: f.get_tensor(name) for name in f.keys()}, dict(json.loads(description))
    except (safetensors.SafetensorError, ValueError, TypeError) as e:
        raise KdfastError(f'{file} is no file of weights: {e}') from e


def read_checkpoint(
    file: Path,  # Written by torch.save
) -> object:
    "Read tensors and plain values of a checkpoint; all other objects are ignored. Raises KdfastError."
    ignored = set()
    while True:
        try:
            stand_ins = [(Opaque if name.startswith(OPAQUE) else Ignored, name) for name in ignored]
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(file, map_location='cpu', weights_only=True)
        except Exception as e:  # torch.load documents no exceptions for damaged files
            unknown = UNKNOWN_CLASS.search(str(e))
            names = {unknown[1], f'builtins.{unknown[1]}'} if unknown else set()  # torch omits the module builtins
            if not names - ignored:
                raise no_state(file, f' ({reason_of(e)})') from e
            ignored |= names


def reason_of(
    error: Exception,  # Of torch.load
) -> str:
    "Return the first sentence about what is wrong with a file, without advice to load it unsafely."
    text = str(error) or type(error).__name__
    if 'TorchScript' in text:
        return 'it is a TorchScript archive; save torch.jit.load(…).state_dict()'
    found = REASON.search(text)
    return (found[0] if found else text.splitlines()[0]).partition('. ')[0]


def no_state(
    file: Path,  # Of weights
    reason: str = '',  # In parentheses
) -> KdfastError:
    "Return the error for a file without a state dict."
    return KdfastError(
        f'{file} holds no plain state dict{reason}: expected .safetensors, or what '
        'torch.save(network.state_dict(), …) wrote'
    )


def find_state(
    found: object,  # Content of a checkpoint
) -> tuple[dict | None, str]:  # State dict, None if there is none; the key that holds it
    "Find the state dict in a checkpoint."
    if not isinstance(found, dict):
        return None, ''
    if is_state_dict(found):
        return found, ''
    for key in HOLDERS:
        state, inner_key = find_state(found.get(key))
        if state is not None:
            return state, inner_key or key
    return None, ''


def is_state_dict(
    found: dict,  # In a checkpoint
) -> bool:
    "Return whether a dictionary holds tensors and extra state alone."
    if not found or not all(isinstance(name, str) for name in found):
        return False
    return all(isinstance(value, torch.Tensor) or name.endswith('_extra_state') for name, value in found.items())
