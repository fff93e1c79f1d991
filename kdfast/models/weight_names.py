"Match names in a state dict to a network's: wrappers, prefixes, old names, auxiliary heads."

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.core.suggest import short_list

WRAPPERS = {'_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'}  # modules that torch adds around others
OLD_DENSENET = re.compile(r'(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)')  # names in torchvision's oldest weights
AUXILIARY = ('aux', 'AuxLogits')  # names of torchvision's heads that are used in training alone


def is_tensor(
    value: object,  # Of a state dict, which may hold extra state
) -> bool:
    "Return whether a value is a tensor."
    return isinstance(value, Tensor)


def same(
    key: str,  # Of a state dict
) -> str:
    "Return a key unchanged."
    return key


def select(
    state: dict,  # State dict
    wanted: Callable,  # Whether to keep a key
    rename: Callable = same,  # From old to new keys
) -> OrderedDict:
    "Select and rename entries of a state dict; its metadata stays."
    selected = OrderedDict((rename(key), value) for key, value in state.items() if wanted(key))
    if hasattr(state, '_metadata'):
        selected._metadata = state._metadata
    return selected


def match_names(
    own: dict,  # State dict of the network
    state: dict,  # State dict to load
    name: str,  # Of the network, for the error
) -> tuple[OrderedDict, list[str]]:  # State dict with the network's names; messages for the user
    "Remove names of wrappers and a common prefix. Raises KdfastError if several networks could be meant."
    plain = {without_wrappers(key): key for key in own}
    state = rename_all(state, without_wrappers)
    counts = Counter(prefix for key in state for prefix, rest in splits(key) if rest in plain)
    best = [prefix for prefix, n in counts.items() if n == max(counts.values())]
    if len(best) > 1 and '' not in best and 2 * counts[best[0]] >= len(own):
        raise KdfastError(
            f'the weights of {name} are of several such networks ({", ".join(best)}): save the one that is meant'
        )
    prefix = best[0] if len(best) == 1 else ''
    left_out = [key for key in state if not key.startswith(prefix)]
    inside = select(state, lambda key: key.startswith(prefix))
    inside = rename_all(inside, lambda key: key.removeprefix(prefix))
    notes = [f'{short_list(left_out)} left out, only {prefix} is loaded'] if left_out else []
    return select(inside, lambda key: True, lambda key: plain.get(key, key)), notes


def rename_all(
    state: dict,  # State dict
    rename: Callable,  # From old to new keys
) -> OrderedDict:
    "Rename the tensors of a state dict, and the modules in its metadata."
    new = select(state, lambda key: True, rename)
    if type(getattr(state, '_metadata', None)) is OrderedDict:
        new._metadata = OrderedDict((rename(f'{key}.')[:-1], entry) for key, entry in state._metadata.items())
    return new


def without_wrappers(
    key: str,  # Of a state dict
) -> str:
    "Remove the names of torch's wrappers."
    return '.'.join(part for part in key.split('.') if part not in WRAPPERS)


def splits(
    key: str,  # Of a state dict
) -> Iterator[tuple[str, str]]:
    "Yield (prefix, rest) for each dot of a key."
    parts = key.split('.')
    for i in range(len(parts)):
        yield ''.join(f'{part}.' for part in parts[:i]), '.'.join(parts[i:])


def rename_as_torchvision(
    network: nn.Module,  # To fill
    state: dict,  # State dict
) -> dict:
    "Rename keys of torchvision's oldest DenseNets, and resize its transformers' position embeddings."
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    own = network.state_dict()

    def new_name(key):
        old = OLD_DENSENET.fullmatch(key) if key not in own else None
        return ''.join(old.groups()) if old else key

    state = select(state, lambda key: True, new_name)
    if not isinstance(network, VisionTransformer) or 'encoder.pos_embedding' not in state:
        return state
    return interpolate_embeddings(network.image_size, network.patch_size, state)


def without_auxiliary(
    network: nn.Module,  # To fill
    state: dict,  # State dict
) -> tuple[dict, list[str]]:  # State dict; the keys that were removed
    "Remove auxiliary heads if the network was built without them."
    if getattr(network, 'aux_logits', None) is not False:
        return state, []
    auxiliary = [key for key in state if key.startswith(AUXILIARY)]
    return select(state, lambda key: key not in auxiliary), auxiliary
