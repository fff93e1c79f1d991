"Any network by its name: kdfast's own, torchvision's, timm's, a function in a file or a package. Built, filled with weights, kept, loaded."
import difflib
import importlib
import importlib.util
import json
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from kdfast import models, runs
from kdfast.data import Data, presized
from kdfast.errors import KdfastError
from kdfast.recipe import is_run, parts
from kdfast.runs import Folder

PRETRAINED = 'pretrained'


# A name becomes a network

def build(
    name:str, # wide, torchvision:resnet18, timm:resnet50@pretrained, models.py:tiny@tiny.safetensors, package.module:function
    n_classes:int, # Outputs
    said:Callable=lambda note: None, # Is told what a user should know
) -> nn.Module:
    """A new network of that name, filled with the weights behind its @, where there are any.

    A function of a file or a package is called with the number of classes. Weights are those of the library
    (@pretrained) or of a file, .safetensors or a state dict that torch saved (loaded with weights_only). A classifier for
    other classes is left new. Raises KdfastError where there is no such network, or the weights are not its own.
    """
    where,what,weights = parts(name)
    try: network = made(where, what, n_classes)
    except (ImportError, TypeError, ValueError, RuntimeError) as e: raise KdfastError(f'{name} could not be built for {n_classes} classes: {e}') from e
    if not isinstance(network, nn.Module): raise KdfastError(f'{name} gave {type(network).__name__}, expected an nn.Module')
    if weights: said(fill(network, published(where, what) if weights == PRETRAINED else state_of(Path(weights)), name))
    return network


def made(where, what, n_classes):
    "The network as its library or function makes it"
    if where == 'torchvision':
        from torchvision.models import get_model, list_models
        check_listed(what, list_models(), where)
        return get_model(what, weights=None, num_classes=n_classes)
    if where == 'timm':
        timm = import_timm()
        check_listed(what.partition('.')[0], timm.list_models(), where)
        return timm.create_model(what, num_classes=n_classes)
    return function(where, what)(n_classes)


def import_timm():
    try: import timm
    except ImportError as e: raise KdfastError("timm:NAME needs a package that is not installed: pip install 'kdfast[timm]'") from e
    return timm


def published(where, what):
    "The weights that the network's library offers"
    from torchvision.models import get_model_weights
    get = dict(torchvision=lambda: get_model_weights(what).DEFAULT.get_state_dict(check_hash=True),
               timm=lambda: import_timm().create_model(what, pretrained=True).state_dict()).get(where)
    if not get: raise KdfastError(f'{what} comes with no weights: name a file behind the @')
    try: return get()
    except (OSError, RuntimeError) as e: raise KdfastError(f'the weights of {where}:{what} could not be fetched ({e}): go online once, or name a file behind the @') from e


def check_listed(what, names, where):
    "Raise KdfastError, with the nearest names, where the library has no such network"
    if what not in names: raise KdfastError(f'{where} has no network {what}; {near(what, names)}')


def function(where, what):
    "The function that is called so, in kdfast.models, a file or a package"
    module = models if not where else from_file(Path(where)) if where.endswith('.py') else importlib.import_module(where)
    factory = getattr(module, what, None)
    if not callable(factory):
        raise KdfastError(f'{where or "kdfast"} has no function {what}; ' + near(what, [name for name,value in vars(module).items() if callable(value)]))
    return factory


def from_file(file):
    if not file.is_file(): raise KdfastError(f'no file {file}')
    spec = importlib.util.spec_from_file_location(f'kdfast.users.{file.stem}', file)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent)) # what it imports may lie beside it
    try: spec.loader.exec_module(module)
    except SyntaxError as e: raise KdfastError(f'{file}, line {e.lineno}: {e.msg}') from e
    finally: sys.path.remove(str(file.parent))
    return module


def near(name, names):
    "What may have been meant"
    found = difflib.get_close_matches(name, names, n=3)
    return f'did you mean {", ".join(found)}?' if found else f'there are {listing(names)}'


# Weights

def state_of(
    file:Path, # .safetensors, or what torch.save made of a state dict
) -> dict:
    "The tensors of a file of weights; nothing of it is ever unpickled but tensors. Raises KdfastError."
    try:
        if file.suffix == '.safetensors': return safetensors.torch.load_file(file)
        state = torch.load(file, map_location='cpu', weights_only=True)
    except FileNotFoundError as e: raise KdfastError(f'no file of weights {file}') from e
    except Exception as e: # what a broken file makes of its reader is not documented
        raise KdfastError(f'{file} holds no plain state dict ({str(e).splitlines()[0]}): expected .safetensors, or what torch.save(network.state_dict(), …) wrote') from e
    for name in ('state_dict', 'model'): # what other trainers put it in
        if isinstance(state, dict) and isinstance(state.get(name), dict): state = state[name]
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()): raise KdfastError(f'{file} holds no plain state dict')
    return {name.removeprefix('module.'): tensor for name,tensor in state.items()} # DataParallel's prefix


def fill(network, state, name):
    "Load the tensors that fit; a last layer for another number of classes is left new, anything else that does not fit is refused"
    own = network.state_dict()
    missing,unknown = sorted(own.keys() - state.keys()),sorted(state.keys() - own.keys())
    if missing or unknown:
        raise KdfastError(f'the weights of {name} are not of this network: it has {listing(missing)} that they have not, they have {listing(unknown)} that it has not')
    classifier = list(own)[-1].rpartition('.')[0]
    other = [key for key in own if own[key].shape != state[key].shape]
    for key in other:
        if key.rpartition('.')[0] != classifier or own[key].shape[1:] != state[key].shape[1:]:
            raise KdfastError(f'the weights of {name} are not of this network: {key} is {size(state[key])}, expected {size(own[key])}')
    network.load_state_dict({key: tensor for key,tensor in state.items() if key not in other}, strict=False)
    return f'{name}: {", ".join(other)} {"are" if len(other) > 1 else "is"} for {len(state[other[0]])} classes and left new' if other else ''


def listing(names): return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '') or 'nothing'


def size(tensor): return '×'.join(map(str, tensor.shape))


def source(
    name:str, # Of a network
) -> dict[str,str]:
    "SHA-256 of each file that the name leads to, so that a run can say what it was made of."
    where,_,weights = parts(name)
    return {file: runs.sha256(file) for file in (where, weights) if file and Path(file).is_file()}


def probe(
    name:str, # Of a network
    data:Data, # What it is for
):
    "Raise KdfastError, before anything is written, where the name gives no network that classifies such images."
    network = build(name, len(data.classes))
    for height,width in {data.shape_at(0), data.shape}: look(network, name, height, width, len(data.classes))


def look(network, name, height, width, n_classes):
    try:
        with torch.no_grad():
            for training in (False, True): found = network.train(training)(torch.zeros(2, 3, height, width)) # some give more while they train
    except Exception as e: raise KdfastError(f'{name} cannot see images of {width}×{height}: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ""}') from e
    if not isinstance(found, torch.Tensor) or found.shape != (2, n_classes):
        said = size(found) if isinstance(found, torch.Tensor) else type(found).__name__
        raise KdfastError(f'{name} gives {said} for two images, expected 2×{n_classes}: logits, a column a class')


# Networks on disk

def signed(
    network:nn.Module,
    name:str, # That built it
    data:Data, # What it is for
) -> nn.Module:
    "The network, which now knows what it takes to build it again and to show it an image."
    where,what,_ = parts(name)
    name = f'{Path(where).name if where.endswith(".py") else where}:{what}' if where else what
    network.built_by = dict(network=name, classes=data.classes, mean=data.mean, std=data.std, size=list(data.shape),
                            presized=presized(data.size) if data.size else None, **(dict(range=list(data.range)) if data.range else {}))
    return network


def save(
    network:nn.Module,
    file:Path, # .safetensors
):
    "The network alone: no regressor, no teacher; with what it takes to build it again."
    state = {name: tensor.contiguous() for name,tensor in network.state_dict().items()}
    built_by = json.dumps(getattr(network, 'built_by', {})) # one entry: safetensors writes several in any order, and equal networks would differ in their SHA-256
    runs.write(file, safetensors.torch.save(state, dict(built_by=built_by)))


def built_by(
    file:Path, # .safetensors
) -> dict:
    "What a file of weights says of its network: its name, the classes, the normalisation and the size of the images. Raises KdfastError."
    try:
        with safetensors.safe_open(file, 'pt') as f: return json.loads((f.metadata() or {}).get('built_by', '{}'))
    except (safetensors.SafetensorError, ValueError) as e: raise KdfastError(f'{file} is no file of weights: {e}') from e


def load(
    folder:Folder, # A finished run
) -> nn.Module:
    "The network of a run, in evaluation mode. Raises KdfastError where what built it is not there any more."
    return load_file(folder/'weights.safetensors')


def load_file(
    file:Path, # Weights that kdfast wrote
) -> nn.Module:
    "The network of a file, in evaluation mode; a function of a user's file is looked for beside it."
    facts = built_by(file)
    if 'network' not in facts: raise KdfastError(f'{file} does not say what network it holds: kdfast has not written it')
    where,what,_ = parts(facts['network'])
    name = f'{file.parent/where}:{what}' if where.endswith('.py') else facts['network']
    network = build(name, len(facts['classes']))
    network.load_state_dict(safetensors.torch.load_file(file))
    network.built_by = facts
    return network.to(memory_format=torch.channels_last).eval()


def any_network(
    name:str, # Of a network, or the folder of a run
    n_classes:int=10, # Outputs, of what is built
) -> nn.Module:
    "A run's network as it was trained, any other as it is built."
    return load(Folder(Path(name))) if is_run(name) else build(name, n_classes)


# A teacher that was trained on something else

class Renormalise(nn.Module):
    "Images as normalised with one mean and spread become images as normalised with another."
    def __init__(self, mean, std, to_mean, to_std):
        super().__init__()
        channels = [torch.tensor(values).view(3, 1, 1) for values in (mean, std, to_mean, to_std)]
        mean,std,to_mean,to_std = channels
        self.register_buffer('scale', std/to_std)
        self.register_buffer('shift', (mean - to_mean)/to_std)

    def forward(self, x): return x*self.scale + self.shift


class Reorder(nn.Module):
    "Columns of the logits, in another order."
    def __init__(self, order):
        super().__init__()
        self.register_buffer('order', torch.tensor(order))

    def forward(self, logits): return logits[:, self.order]


def adapted(
    network:nn.Module, # Knows what it was trained on
    data:Data, # What it is to be asked of
    name:str, # For the error
) -> nn.Module:
    """The network, so that it understands images of `data` and gives its classes in their order.

    Raises KdfastError where it does not know one of the classes.
    """
    facts = network.built_by
    unknown = [c for c in data.classes if c not in facts['classes']]
    if unknown:
        raise KdfastError(f'the teacher {name} does not know {listing(unknown)}: it was trained on {listing(facts["classes"])}; {data.name} has {listing(data.classes)}')
    if [facts[k] for k in ('classes', 'mean', 'std')] == [data.classes, data.mean, data.std]: return network
    order = [facts['classes'].index(c) for c in data.classes]
    return nn.Sequential(OrderedDict(normalise=Renormalise(data.mean, data.std, facts['mean'], facts['std']), network=network, classes=Reorder(order))).eval()
