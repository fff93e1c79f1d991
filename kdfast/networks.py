"Any network by its name: kdfast's own, torchvision's, timm's, a function in a file or a package. Built, checked, saved, loaded."
import functools
import importlib
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.nn.parameter import is_lazy

from kdfast import models, source, state, trust, weights, writing
from kdfast.data import Data, presized
from kdfast.errors import KdfastError
from kdfast.names import LIBRARIES, PRETRAINED, Name, is_run, parse
from kdfast.probe import examine, look, structure
from kdfast.runs import Folder
from kdfast.source import explained, listing, near
from kdfast.weights import import_timm, unwrapped

AUXILIARY = ('googlenet', 'inception_v3') # of torchvision: in training they give more than logits, unless told not to
SIZES = dict(timm=('img_size',), torchvision=('image_size', 'input_size')) # arguments of networks for one size of images


# A name becomes a network

def build(
    name:str, # wide, torchvision:resnet18, timm:resnet50@pretrained, models.py:tiny(width=16)@tiny.safetensors, package.module:function
    n_classes:int, # Outputs
    said:Callable=lambda note: None, # Is told what a user should know
    size:tuple[int,int]|None=None, # Height and width of the images; needed by networks that are made for one size
) -> nn.Module:
    """A new network of that name, filled with the weights behind its @, where there are any.

    A function of a file or a package is called with the number of classes and the arguments of the name. Weights are those of
    the library (@pretrained) or of a file, which is never unpickled but for tensors. A classifier for other classes is left new.
    Raises KdfastError where there is no such network, or the weights are not its own.
    """
    named = fitted(name, n_classes, size)
    network = made(named, n_classes, size)
    if named.weights and lazy(network): raise KdfastError(f'{named} is lazy: weights can be loaded where the size of images is known')
    if named.weights: said(fill(network, named, n_classes, size))
    return network


def lazy(network): return any(is_lazy(t) for t in (*network.parameters(), *network.buffers()))


def made(named, n_classes, size, project=None):
    "The network as its library or function makes it; what is lazy in it has seen an image"
    doing = f'{named} could not be built for {n_classes} classes'
    with explained(doing, None): project = project or project_of(named)
    with explained(doing, project): network = maker(named, project)(n_classes, **named.keywords)
    if not isinstance(network, nn.Module): network = getattr(network, 'model', network) # of a fastai Learner
    if not isinstance(network, nn.Module): raise KdfastError(f'{named} gave {type(network).__name__}, expected an nn.Module')
    if size and lazy(network):
        modes = {module: module.training for module in network.modules()}
        look(network, str(named), [(False, 2)], size)
        for module,training in modes.items(): module.training = training
    return network


def maker(named, project):
    "What builds it, given the number of classes"
    where,what = named.where,named.what
    if where == 'torchvision':
        from torchvision.models import get_model, list_models
        check_listed(what, list_models(), where)
        return lambda n_classes, **given: get_model(what, weights=None, num_classes=n_classes, **given)
    if where == 'timm':
        timm = import_timm()
        check_listed(what.partition('.')[0], timm.list_models(), where)
        return lambda n_classes, **given: timm.create_model(what, num_classes=n_classes, **given)
    if project: return project.function(what)
    return source.function(importlib.import_module(where) if where else models, what, where or 'kdfast')


def check_listed(what, names, where):
    "Raise KdfastError, with the nearest names, where the library has no such network"
    if what not in names: raise KdfastError(f'{where} has no network {what}; {near(what, names)}')


def project_of(named):
    "The user's code that builds it; None where a library or an installed package does"
    return source.of_file(named.where) if named.is_file else source.of_package(named.where) if named.is_code else None


def fill(network, named, n_classes, size):
    "Weights from the name's library or file"
    bare = Name(named.where, named.what, named.arguments)
    def fill_from(found): return weights.fill(network, found, str(named), lambda: made(bare, n_classes + 1, size))
    if named.weights == PRETRAINED: return fill_from(weights.published(bare))
    found,note = weights.read(Path(named.weights))
    try: filled = fill_from(found)
    except KdfastError:
        converted = weights.as_timm_reads(bare, found) if named.where == 'timm' else None
        if converted is None: raise
        filled = fill_from(converted)
    return '; '.join(filter(None, (note, filled)))


# Networks for one size of images, and those with auxiliary heads

def fitted(
    name:str, # Of a network
    n_classes:int, # Outputs
    size:tuple[int,int]|None, # Height and width of the images
) -> Name:
    "The name, with the arguments that its library needs for logits alone, and to take images of that size."
    named = parse(name)
    if named.where == 'torchvision' and named.what.removeprefix('quantized_') in AUXILIARY:
        more = dict(transform_input=True) if named.weights == PRETRAINED else {} # so that images are as the weights have seen them
        named = named.having(**dict(aux_logits=False, init_weights=True) | more | named.keywords)
    return named if size is None or named.where not in LIBRARIES else for_size(str(named), n_classes, tuple(size))


@functools.cache
def for_size(name, n_classes, size):
    "As it is if it takes such images, or says for which it is; else for images of that size, if its library can do so"
    named,arguments = parse(name),SIZES[parse(name).where]
    if any(argument in named.keywords for argument in arguments) or takes(made(named, n_classes, None), size): return named
    side = size[0] if size[0] == size[1] else size
    candidates = [named.having(**{argument: value}) for argument in arguments for value in dict.fromkeys((side, size))]
    built = [(candidate, network) for candidate in candidates if (network := tried(candidate, n_classes)) is not None]
    return next((candidate for candidate,network in built if takes(network, size)), built[0][0] if built else named)


def tried(named, n_classes):
    try: return made(named, n_classes, None)
    except KdfastError: return None # it has no such argument


def takes(network, size):
    try: look(network, '', [(False, 2)], size)
    except KdfastError: return False
    return True


# Before training

def probe(
    name:str, # Of a network
    data:Data, # What it is for
) -> str: # A digest of its structure
    "Raise KdfastError, before anything is written, where the network cannot be built and filled, trained on the data, or kept."
    n_classes,size = len(data.classes),tuple(data.shape)
    named = fitted(name, n_classes, size)
    with torch.random.fork_rng([]): return examine(build(str(named), n_classes, size=size), made(named, n_classes, size), name, data)


def structure_of(name, data):
    "The digest that `probe` gives"
    return structure(made(fitted(name, len(data.classes), data.shape), len(data.classes), tuple(data.shape)))


# Networks on disk

def build_for(
    name:str, # Of a network
    data:Data, # What it is for
    said:Callable=lambda note: None, # Is told what a user should know
) -> tuple[nn.Module,source.Project|None]: # And the user's code that builds it
    "The network, which knows what it takes to build it again and to show it an image."
    with torch.random.fork_rng([]): # weights follow from the seed, whatever was built or loaded before
        named = fitted(name, len(data.classes), data.shape)
        called,project = recorded(named)
    return signed(build(str(named), len(data.classes), said, data.shape), called, data, project),project


def build_by(
    function:Callable, # Of the number of classes, such as `wide`
    data:Data, # What it is for
    said:Callable=lambda note: None, # Is told what a user should know
) -> tuple[nn.Module,source.Project|None]: # And the user's code that builds it
    "What a function gives, which knows how to build it again, if the function can be found again."
    called,project = source.named(function)
    name = called or getattr(function, '__qualname__', type(function).__name__)
    with explained(f'{name} could not be built for {len(data.classes)} classes', project): network = function(len(data.classes))
    if called is None: said(f'{name} is no function of a file or a package: the weights of what it builds are kept, but kdfast cannot load them')
    return signed(network, called, data, project),project


def recorded(named):
    "The name that files of weights have for it, and the sources that build it"
    project = project_of(named)
    return str(Name(source.called(named.where) if project else named.where, named.what, named.arguments)),project


def signed(
    network:nn.Module,
    name:str|None, # That builds it; of a file beside its weights, where a user's own code does
    data:Data, # What it is for
    project:source.Project|None=None, # The user's code that builds it
) -> nn.Module:
    "The network, which now knows what it takes to build it again and to show it an image."
    network.built_by = dict(**dict(network=name) if name else {}, classes=data.classes, mean=data.mean, std=data.std, size=list(data.shape),
                            presized=presized(data.size) if data.size else None, **dict(range=list(data.range)) if data.range else {},
                            **dict(source=project.hashes) if project else {})
    return network


def save(
    network:nn.Module,
    file:Path, # .safetensors
):
    "The network alone: no regressor, no teacher; with what it takes to build it again. Raises KdfastError for what cannot be kept."
    writing.write(file, state.serialized(network, getattr(network, 'built_by', {})))


def built_by(
    file:Path, # .safetensors
) -> dict:
    "What a file of weights says of its network: its name, the classes, the normalization and the size of the images. Raises KdfastError."
    try:
        with safetensors.safe_open(file, 'pt') as f: text = (f.metadata() or {}).get('built_by', '{}')
    except (safetensors.SafetensorError, OSError) as e: raise KdfastError(f'{file} is no file of weights: {e}') from e
    return facts_from(text, file)


def facts_from(text, file):
    "What kdfast wrote of a network beside it; it may have no name. Raises KdfastError for anything else"
    try:
        facts = json.loads(text)
        size,colors,files,versions = facts['size'],[float(n) for n in (*facts['mean'], *facts['std'])],dict(facts.get('source', {})),dict(facts.get('versions', {}))
        right = (len(size) == 2 and all(isinstance(n, int) and 0 < n < 2**16 for n in size) and len(colors) == 6 and isinstance(facts.get('extra', {}), dict)
                 and all(isinstance(entry, dict) for entry in versions.values())
                 and all(isinstance(name, str) for name in (facts.get('network', ''), *facts['classes'], *files, *files.values())))
    except (KeyError, TypeError, ValueError): right = False
    if right: return facts
    raise KdfastError(f'{file} does not say what network it holds: it was not written by kdfast, or by a recipe that does not build it with run.build')


def load(
    folder:Folder, # A finished run
) -> nn.Module:
    "The network of a run, in evaluation mode. Raises KdfastError where what built it is not there, or may not run."
    return load_file(folder/'weights.safetensors')


def load_file(
    file:Path, # Weights that kdfast wrote
) -> nn.Module:
    """The network of a file, in evaluation mode.

    A user's function that builds it is looked for in the directory `source` beside it, and runs only where it was trained with on
    this machine, or `trust_code` was called for it. Raises KdfastError.
    """
    facts = named_facts(file)
    network = rebuilt(facts, file)
    try: state.restore(network, safetensors.torch.load_file(file), facts)
    except (RuntimeError, ValueError, KeyError) as e: raise KdfastError(f'{file} does not fit {facts["network"]} as it is built today: {source.reason(e)}') from e
    network = unwrapped(network)
    network.built_by = {name: value for name,value in facts.items() if name not in ('versions', 'extra')}
    return network.to(memory_format=torch.channels_last).eval()


def trust_code(
    file:Path, # Weights that kdfast wrote
):
    "The code that came with a file, and builds its network, may run from now on. Read it first."
    trust.accept(built_by(file))


def check_trusted(
    file:Path, # Weights that kdfast wrote
):
    "Raise KdfastError where the network of a file could not be built: what builds it is not there, or may not run."
    facts = named_facts(file)
    if parse(facts['network']).is_code: trusted(facts, file)


def named_facts(file):
    facts = built_by(file)
    if 'network' in facts: return facts
    raise KdfastError(f'{file} does not name what builds its network: its recipe built it by no function of a file or a package')


def trusted(facts, file):
    "The sources that build the network of a file, which may run"
    sources = trust.read(facts, file)
    trust.check(facts, file)
    return sources


def rebuilt(facts, file):
    "The network that a file of weights names, new"
    named,size = parse(facts['network']),tuple(facts['size'])
    if not named.is_code: return made(named, len(facts['classes']), size)
    sources = trusted(facts, file)
    project = source.kept(named.where, file.parent/trust.SOURCE, sources) if sources else None
    return made(named, len(facts['classes']), size, project)


def any_network(
    name:str, # Of a network, or the folder of a run
    n_classes:int=10, # Outputs, of what is built
    size:tuple[int,int]|None=None, # Height and width of the images, where it is built for one size
) -> nn.Module:
    "A run's network as it was trained, any other as it is built."
    return load(Folder(Path(name))) if is_run(name) else build(name, n_classes, size=size)


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


class Scale(nn.Module):
    "Images at the size that the network was trained on; smoothed where they become smaller."
    def __init__(self, size):
        super().__init__()
        self.size = tuple(size)

    def forward(self, x): return x if x.shape[-2:] == self.size else interpolate(x, self.size, mode='bilinear', antialias=True)


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
    """The network, so that it understands images of `data`, at the size that it knows, and gives its classes in their order.

    Raises KdfastError where it does not know one of the classes.
    """
    facts = network.built_by
    unknown = [c for c in data.classes if c not in facts['classes']]
    if unknown:
        raise KdfastError(f'the teacher {name} does not know {listing(unknown)}: it was trained on {listing(facts["classes"])}; {data.name} has {listing(data.classes)}')
    parts = OrderedDict()
    if facts['size'] != list(data.shape): parts['scale'] = Scale(facts['size'])
    if [facts[k] for k in ('mean', 'std')] != [data.mean, data.std]: parts['normalise'] = Renormalise(data.mean, data.std, facts['mean'], facts['std'])
    parts['network'] = network
    if facts['classes'] != data.classes: parts['classes'] = Reorder([facts['classes'].index(c) for c in data.classes])
    return nn.Sequential(parts).eval() if len(parts) > 1 else network


def scaling(
    network:nn.Module, # Knows what it was trained on
    data:Data, # What it is to be asked of
    name:str, # For the note
) -> str: # Nothing where sizes are equal
    "A note where the teacher is shown images at another size than the student."
    (height,width),own = network.built_by['size'],data.shape
    return '' if [height, width] == list(own) else f'the teacher {name} was trained on images of {width}×{height}, and is shown them scaled to that; the student sees {own[1]}×{own[0]}'
