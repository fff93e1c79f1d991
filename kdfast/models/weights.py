"Weights from elsewhere: files as PyTorch, torchvision, timm, fastai and Lightning write them, and what libraries publish."

import json
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path

import safetensors
import torch
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.core.names import Name
from kdfast.core.source import short_list

AVERAGED = (
    'state_dict_ema',
    'model_ema',
    'ema_state_dict',
    'ema',
)  # what trainers call an average over steps, which timm prefers, too
HOLDERS = (*AVERAGED, 'state_dict', 'model_state_dict', 'model', 'net', 'network', 'module', 'params', 'weights')
WRAPPERS = {'_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'}  # modules that torch puts around others
PARALLEL = nn.DataParallel, nn.parallel.DistributedDataParallel
DENSENET = re.compile(
    r'(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)'
)  # torchvision's own names, until PyTorch had no dots in them
AUXILIARY = ('aux', 'AuxLogits')  # what torchvision calls a head that only training looks at
FIXED = {
    'aux_logits',
    'init_weights',
    'image_size',
    'input_size',
}  # arguments that torchvision decides where it loads weights
OPAQUE = 'numpy.', 'functools.partial'
UNKNOWN = re.compile(r'Unsupported global: GLOBAL ([\w.]+) ')
REASON = re.compile(r'(Trying|Unsupported|Can only|Only) .+')  # of torch.load


# Files


class Ignored:
    "In place of every object in a checkpoint that is not tensors: an empty dictionary. Nothing of it is imported or called."

    def __new__(cls, *args):
        return Counter()  # torch fills those, and OrderedDicts; with the state of objects Counters alone


class Opaque:
    "The same, of what sets its state itself"

    def __new__(cls, *args):
        return object.__new__(cls)

    def __setstate__(self, state):
        pass


def read(
    file: Path,  # .safetensors, or what torch.save made of a state dict, or of a checkpoint that holds one
) -> tuple[OrderedDict, str]:  # With `_metadata` where the file has it; and what a user should know
    "The state dict of a file; nothing of it is ever unpickled but tensors. Raises KdfastError."
    if not file.is_file():
        raise KdfastError(f'no file of weights {file}')
    if file.suffix == '.safetensors':
        tensors, more = read_safetensors(file)
        state = OrderedDict(tensors | more.get('extra', {}))
        if 'versions' in more:
            state._metadata = Versions(more['versions'])
        return state, ''
    state, held_in = state_in(checkpoint(file))
    if state is None:
        raise no_state(file)
    return state, f'{file}: averaged weights ({held_in}) are taken' if held_in in AVERAGED else ''


class Versions(dict):
    "Of the modules that are not at their first version"

    def get(self, name, default=None):
        return super().get(name, dict(version=1))


def read_safetensors(file):
    "Tensors; and what kdfast wrote beside them, if it has written the file"
    try:
        with safetensors.safe_open(file, 'pt') as f:
            return {name: f.get_tensor(name) for name in f.keys()}, dict(
                json.loads((f.metadata() or {}).get('built_by', '{}'))
            )
    except (safetensors.SafetensorError, ValueError, TypeError) as e:
        raise KdfastError(f'{file} is no file of weights: {e}') from e


def checkpoint(file):
    "What torch saved, with everything ignored that is neither tensors nor plain data"
    ignored = set()
    while True:
        try:
            stand_ins = [(Opaque if name.startswith(OPAQUE) else Ignored, name) for name in ignored]
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(file, map_location='cpu', weights_only=True)
        except Exception as e:  # what a broken file makes of its reader is not documented
            unknown = UNKNOWN.search(str(e))
            names = {unknown[1], f'builtins.{unknown[1]}'} if unknown else set()  # torch leaves the module builtins out
            if not names - ignored:
                reason = REASON.search(str(e))
                raise no_state(
                    file, f' ({reason[0] if reason else (str(e) or type(e).__name__).splitlines()[0]})'
                ) from e
            ignored |= names


def no_state(file, reason=''):
    return KdfastError(
        f'{file} holds no plain state dict{reason}: expected .safetensors, or what torch.save(network.state_dict(), …) wrote'
    )


def state_in(found):
    "(state dict, what held it) in a checkpoint; None where there is none"
    if not isinstance(found, dict):
        return None, ''
    if (
        found
        and all(isinstance(name, str) for name in found)
        and all(isinstance(t, torch.Tensor) or name.endswith('_extra_state') for name, t in found.items())
    ):
        return found, ''
    for name in HOLDERS:
        state, held_in = state_in(found.get(name))
        if state is not None:
            return state, held_in or name
    return None, ''


# Into a network


def fill(
    network: nn.Module,
    state: dict,  # From `read`, or another network's state dict
    name: str,  # Of the network, for the note and the error
    for_others: Callable,  # Builds the same network for another number of classes
) -> str:  # What a user should know
    """Load weights by their names; a prefix that all of them have is left out. A classifier for other classes is left new.

    Raises KdfastError, naming the keys, for weights of another network.
    """
    network = unwrapped(network)
    own = network.state_dict()
    state, notes = named_as(own, renamed(network, state), name)
    state, aux = without_auxiliary(network, state)
    unlike = [key for key in own if key in state and tensor(own[key]) and own[key].shape != state[key].shape]
    for key in own:
        check_kind(name, key, own[key], state.get(key))
    missing, unknown = load(network, kept(state, lambda key: key not in unlike), name)
    missing = [key for key in own if key in missing and key not in unlike]
    heads = classifiers(own, for_others().state_dict()) if unlike or missing else {}
    others = [key for key in unlike if not is_head(heads.get(key), state[key].shape)]
    absent = [key for key in missing if key not in heads]
    if absent or unknown:
        raise KdfastError(
            f'the weights of {name} are not of this network: it has {short_list(absent)} that they have not, they have {short_list(unknown)} that it has not'
        )
    if others:
        raise KdfastError(
            f'the weights of {name} are not of this network: {others[0]} is {size(state[others[0]])}, expected {size(own[others[0]])}'
        )
    if aux:
        notes.append(f'auxiliary heads ({short_list(aux)}) are left out')
    if unlike:
        notes.append(
            f'{", ".join(unlike)} {"are" if len(unlike) > 1 else "is"} for {classes(heads[unlike[0]], state[unlike[0]].shape)} classes and left new'
        )
    if missing:
        notes.append(f'{", ".join(missing)} {"are" if len(missing) > 1 else "is"} not among the weights and left new')
    return f'{name}: {"; ".join(notes)}' if notes else ''


def unwrapped(network):
    "The network inside of what torch.compile or DataParallel put around it"
    while inner := network._modules.get('_orig_mod') or isinstance(network, PARALLEL) and network.module:
        network = inner
    return network


def tensor(value):
    return isinstance(value, torch.Tensor)


def kept(state, wanted, rename=lambda key: key):
    "Some of a state, with its metadata"
    some = OrderedDict((rename(key), value) for key, value in state.items() if wanted(key))
    if hasattr(state, '_metadata'):
        some._metadata = state._metadata
    return some


def named_as(own, state, name):
    "The state, by the names that its network has for it: without wrappers, and without a prefix; and notes"
    plain = {plain_name(key): key for key in own}
    state = relabelled(state, plain_name)
    counts = Counter(prefix for key in state for prefix, rest in splits(key) if rest in plain)
    best = [prefix for prefix, n in counts.items() if n == max(counts.values())]
    if len(best) > 1 and '' not in best and 2 * counts[best[0]] >= len(own):
        raise KdfastError(
            f'the weights of {name} are of several such networks ({", ".join(best)}): save the one that is meant'
        )
    prefix = best[0] if len(best) == 1 else ''
    left_out = [key for key in state if not key.startswith(prefix)]
    inside = relabelled(kept(state, lambda key: key.startswith(prefix)), lambda key: key.removeprefix(prefix))
    return kept(inside, lambda key: True, lambda key: plain.get(key, key)), [
        f'{short_list(left_out)} left out, what begins with {prefix} is taken'
    ] if left_out else []


def relabelled(state, rename):
    "With other names of tensors and, in its metadata, of modules"
    new = kept(state, lambda key: True, rename)
    if type(getattr(state, '_metadata', None)) is OrderedDict:
        new._metadata = OrderedDict((rename(f'{key}.')[:-1], entry) for key, entry in state._metadata.items())
    return new


def plain_name(key):
    return '.'.join(part for part in key.split('.') if part not in WRAPPERS)


def splits(key):
    "(prefix, rest) at each dot"
    parts = key.split('.')
    for i in range(len(parts)):
        yield ''.join(f'{part}.' for part in parts[:i]), '.'.join(parts[i:])


def renamed(network, state):
    "As torchvision renames what it published, and fits embeddings of positions to another size of images"
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    own = network.state_dict()
    state = kept(
        state,
        lambda key: True,
        lambda key: ''.join(found.groups()) if key not in own and (found := DENSENET.fullmatch(key)) else key,
    )
    if not isinstance(network, VisionTransformer) or 'encoder.pos_embedding' not in state:
        return state
    return interpolate_embeddings(network.image_size, network.patch_size, state)


def without_auxiliary(network, state):
    "The state without heads that the network was built without; their names"
    if getattr(network, 'aux_logits', None) is not False:
        return state, []
    aux = [key for key in state if key.startswith(AUXILIARY)]
    return kept(state, lambda key: key not in aux), aux


def check_kind(name, key, own, found):
    "Whole numbers or complex ones are no weights of a network of floating-point ones: load_state_dict would take them"
    if tensor(own) and tensor(found) and own.is_floating_point() and not found.is_floating_point():
        raise KdfastError(
            f'the weights of {name} are not of this network: {key} holds {found.dtype}, expected {own.dtype}'
        )


def load(network, state, name):
    "The keys that are missing and those that are unknown, as PyTorch finds them; statistics that old versions did not keep are not missing"
    versions = (
        [state._metadata] if hasattr(state, '_metadata') else [None, getattr(network.state_dict(), '_metadata', None)]
    )
    found, error = [], None
    for version in versions:
        state._metadata = version
        if version is None:
            del state._metadata
        try:
            missing, unknown = network.load_state_dict(state, strict=False)
        except (RuntimeError, ValueError, KeyError, AttributeError) as e:
            error = e  # of that version there are none
        else:
            found.append(({key for key in missing if not key.endswith('num_batches_tracked')}, unknown))
        if found and not any(found[-1]):
            break
    if not found:
        raise KdfastError(
            f'the weights of {name} are not of this network: {str(error).strip().splitlines()[-1]}'
        ) from error
    return min(found, key=lambda pair: len(pair[0]) + len(pair[1]))


def classifiers(own, other):
    "Of each tensor whose shape is another for other classes: (size, whether it varies) of each dimension"
    return {
        key: [(n, n != m) for n, m in zip(own[key].shape, other[key].shape)]
        for key in own
        if key in other
        and tensor(own[key])
        and own[key].shape != other[key].shape
        and own[key].dim() == other[key].dim()
    }


def is_head(dimensions, shape):
    return (
        dimensions is not None
        and len(dimensions) == len(shape)
        and all(varies or n == m for (n, varies), m in zip(dimensions, shape))
    )


def classes(dimensions, shape):
    return next(m for (_, varies), m in zip(dimensions, shape) if varies)


def size(tensor):
    return '×'.join(map(str, tensor.shape))


# What libraries publish


def published(
    name: Name,  # Of a network of torchvision or timm
) -> dict:
    "The weights that the network's library offers, as its own code loads them. Raises KdfastError."
    try:
        if name.where == 'timm':
            return import_timm().create_model(name.what, pretrained=True, **name.keywords).state_dict()
        if name.where == 'torchvision':
            from torchvision.models import get_model, get_model_weights

            given = {key: value for key, value in name.arguments if key not in FIXED}
            return get_model(name.what, weights=get_model_weights(name.what).DEFAULT, **given).state_dict()
    except (OSError, RuntimeError, ValueError) as e:
        raise KdfastError(
            f'the weights of {name.where}:{name.what} could not be fetched ({e}): go online once, or name a file behind the @'
        ) from e
    raise KdfastError(f'{name.what} comes with no weights: name a file behind the @')


def import_timm():
    try:
        import timm
    except ImportError as e:
        raise KdfastError("timm:NAME needs a package that is not installed: pip install 'kdfast[timm]'") from e
    return timm


def as_timm_reads(
    name: Name,  # Of a network of timm
    state: dict,  # Not by its names, but as its authors or an older timm wrote it
) -> dict | None:  # None where timm does not know it, either
    "The state of a network of as many classes that timm has filled, renaming and resizing what it knows."
    timm = import_timm()
    config = timm.models.get_pretrained_cfg(name.what) or timm.models.get_pretrained_cfg(name.what.partition('.')[0])
    heads = (
        [config.classifier]
        if isinstance(getattr(config, 'classifier', None), str)
        else getattr(config, 'classifier', None) or []
    )
    rows = [
        len(state[key])
        for key in (*(f'{head}.weight' for head in heads), list(state)[-1])
        if key in state and state[key].dim()
    ]
    for n_classes in dict.fromkeys([*rows, getattr(config, 'num_classes', 1000)]):
        overlay = dict(source='', state_dict=dict(state), num_classes=n_classes, label_offset=0)
        try:
            return timm.create_model(
                name.what, pretrained=True, num_classes=n_classes, pretrained_cfg_overlay=overlay, **name.keywords
            ).state_dict()
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError, AssertionError):
            pass  # each of its readers says in its own way that it is none of theirs
    return None
