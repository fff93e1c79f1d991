"What a recipe is given to work with (Run), and what becomes of what it returns."
import io
import os
import platform
import sys
from collections.abc import Callable
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from fastai.basics import CrossEntropyLossFlat, L, Learner, accuracy, noop, set_seed
from fastai.callback.progress import ProgressCallback
from fastai.interpret import ClassificationInterpretation
from fastai.optimizer import SGD
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdfast import networks, processes, recipe as recipes, runs, signals
from kdfast.checkpoint import Checkpoints, RunLearner, random_states_kept
from kdfast.data import Data
from kdfast.errors import Diverged, KdfastError
from kdfast.fit import FitCallback
from kdfast.hint import LAYER, features, front, front_back, regressor
from kdfast.loader import loaders
from kdfast.metrics_log import MetricsLog
from kdfast.muon import Muon
from kdfast.precision import Bfloat16, multiplies_bfloat16, use_bfloat16
from kdfast.recipe import Recipe, is_run
from kdfast.remember import Remember
from kdfast.runs import Folder

OPTIMIZERS = dict(zip(recipes.OPTIMIZERS, (SGD, Muon), strict=True))
LOOKS = 40 # at the time that one image takes
PAIRS_SHOWN,IMAGES_SHOWN = 5,8 # most confused pairs, and images of each, that are kept to be looked at
PACKAGES = ('kdfast', 'fastai', 'torch', 'torchvision', 'numpy')


class SameOrder(FitCallback):
    "Tell the loader the epoch: with the seed, it decides the order and the augmentation of the images, and their size where that grows."
    def before_epoch(self): self.dls.train.epoch,self.dls.train.progress = self.epoch,self.epoch/self.n_epoch


class Run:
    "One execution of a recipe: its folder, data and seed, and the runs it builds on."
    kind = RunLearner

    def __init__(self,
        folder:Folder, # Where it is kept
        data:Data, # Its images
        seed:int, # Decides the initial weights, the order of the images and their augmentation
        runs:Path, # Where the runs it builds on are kept
        watch:tuple=(), # Functions of a run's folder, each giving a callback that watches its fits
    ):
        self.folder,self.data,self.seed,self.runs,self.watch = folder,data,seed,runs,watch
        self.record,self.checkpoints,self.stands_on,self.remember,self.hint = MetricsLog(folder),None,{},[],None

    @cached_property
    def dls(self):
        "fastai DataLoaders of its images, order and augmentation decided by its seed"
        return loaders(self.data, self.seed)

    @property
    def precision(self):
        "What training steps compute in: bfloat16 where the hardware multiplies it, float32 elsewhere"
        return 'bfloat16' if multiplies_bfloat16(self.dls.device) else 'float32'

    def build(self,
        name:str|Callable, # Of a network, as kdfast.networks takes it; or a function of the number of classes, such as `wide`
    ) -> nn.Module:
        "A new network, its initial weights decided by the seed alone, or those that its name asks for."
        set_seed(self.seed, reproducible=True)
        if callable(name): return networks.signed(name(len(self.data.classes)), name.__name__, self.data)
        self.keep_source(name)
        return networks.signed(networks.build(name, len(self.data.classes), self.say), name, self.data)

    def keep_source(self, name):
        "The user's file that builds the network travels with the run"
        where = Path(recipes.parts(name)[0])
        if where.suffix == '.py': runs.write(self.folder/where.name, where.read_bytes())

    def say(self,
        note:str, # One line; an empty one is not said
    ):
        "What a user should know, on stderr and on record"
        if not note: return
        self.folder.set('running', notes=[*self.folder.facts.get('notes', []), note])
        print(f'kdfast: {note}', file=sys.stderr)

    @random_states_kept() # whether it is trained now or was long ago
    def needs(self,
        name:str, # A recipe of kdfast: teacher, hint, …
        **given # Its arguments, where they are not its defaults
    ) -> nn.Module:
        """The network that this recipe trained on the same data and seed; trained first where it is missing.

        A teacher whose `network` is the folder of a run is that run's, whatever it was trained on, as long as it knows the classes.
        """
        given_run = given.get('network') if is_run(given.get('network', '')) else None
        folder = Folder(Path(given_run)) if given_run else train(recipes.find(name), self.data, self.seed, given, self.runs, self.watch)
        if problems := folder.problems(): raise KdfastError(f'{folder} is not whole ({"; ".join(problems)}): remove it, and it is trained again')
        self.stands_on[name] = dict(path=str(folder), sha256=folder.files['weights.safetensors'])
        self.folder.stand_on(name, self.stands_on[name])
        network = networks.load(folder)
        if given_run: network = networks.adapted(network, self.data, str(folder))
        if name == 'teacher' and hasattr(network, 'built_by'): self.remember = [Remember(folder/'outputs.npz', network)]
        return network

    def guide(self,
        student:nn.Module, # To be trained
        teacher:nn.Module, # Trained
        layers:str=f'{LAYER}:{LAYER}', # Names of the teacher's hint layer and the student's guided layer
        matrix:bool=False, # Put a regressor even where both have one shape
    ) -> nn.Module:
        "What stage one trains: the student's front, and behind it a regressor where its features have not the hint's shape."
        guided,hint = self.fronts(student, teacher, layers)
        shapes = [list(features(net, self.xb).shape[1:]) for net in (guided, hint)]
        matrix = matrix or shapes[0] != shapes[1]
        self.hint = dict(layers=layers, guided_shape=shapes[0], hint_shape=shapes[1], matrix=matrix)
        return nn.Sequential(guided, self.bridge(guided, hint)) if matrix else guided

    @cached_property
    def xb(self):
        "Some images, to see what networks make of them"
        return self.dls.one_batch()[0][:8]

    def fronts(self, student, teacher, layers):
        "Student and teacher, each up to its layer of the one pair"
        ((hint,guided),) = recipes.pairs(layers)
        return front(student, guided),front(teacher, hint)

    def regressor(self,
        student:nn.Module, # Its front is not changed
        teacher:nn.Module, # Another network
        layers:str, # The teacher's hint layer and the student's guided layer
    ) -> nn.Module:
        "The extra matrix between two layers, new: `kdfast.hint.regressor`. Raises KdfastError where none can exist."
        return self.bridge(*self.fronts(student, teacher, layers))

    def bridge(self, guided, hint):
        made = regressor(guided, hint, self.xb)
        if self.data.grow == 1 or made.kernel_size == (1, 1): return made
        raise KdfastError(f'--grow {self.data.grow}: between these layers stands a convolution of {"×".join(map(str, made.kernel_size))}, which fits '
                          'images of one size alone: choose layers of equal height and width, or leave --grow out')

    def channels(self,
        student:nn.Module, # A network
        teacher:nn.Module, # Another network
        layers:str, # Pairs, TEACHER_LAYER:STUDENT_LAYER,…
    ) -> tuple[list,list]: # Of the student, of the teacher
        "How many channels each of the layers gives, for losses that learn. Raises KdfastError for a layer that is not there."
        found = [self.fronts(student, teacher, ':'.join(pair)) for pair in recipes.pairs(layers)]
        return tuple([features(net, self.xb).shape[1] for net in nets] for nets in zip(*found))

    def front_back(self,
        layers:str=f'{LAYER}:{LAYER}', # The teacher's hint layer and the student's guided layer
    ):
        "Splitter for a Learner: `freeze()` then holds the student's front still."
        ((_,guided),) = recipes.pairs(layers)
        return partial(front_back, layer=guided, xb=self.xb)

    def learner(self,
        model:nn.Module, # What to train
        optimizer:str='sgd', # sgd or muon, with momentum
        **kwargs # Passed to fastai's Learner: loss_func, splitter, train_bn …
    ) -> Learner:
        """A fastai Learner on this run's images that keeps its losses in the run's folder.

        Unless told otherwise: cross-entropy on labels, SGD with momentum, weight decay 5e-3 (decoupled: fastai
        multiplies it by the learning rate; with momentum 0.9 what others write as 5e-4).
        """
        settings = dict(loss_func=CrossEntropyLossFlat(), opt_func=partial(OPTIMIZERS[optimizer], mom=.9), wd=5e-3, metrics=accuracy) | kwargs
        cbs = [SameOrder(), self.record, *self.remember, *L(settings.pop('cbs', None))]
        if self.precision == 'bfloat16': cbs.append(Bfloat16())
        if processes.size > 1: cbs.append(together(self.dls))
        learn = self.kind(self.dls, model.to(self.dls.device, memory_format=torch.channels_last), path=self.folder.path, cbs=cbs, **settings)
        learn.checkpoints,learn.watchers = self.checkpoints,[watch(self.folder) for watch in self.watch]
        learn.add_cbs(learn.watchers)
        learn.remove_cbs(ProgressCallback)
        learn.logger = noop
        return learn


def together(dls):
    "The callback that makes several processes one; accelerate takes its time to be imported"
    from kdfast.together import Together
    return Together(gpu=dls.device.type == 'cuda')


def train(
    recipe:Recipe, # What to do
    data:Data, # On which images
    seed:int, # With which random numbers
    given:dict, # Arguments that are not the recipe's defaults
    kept_in:Path, # Where runs are kept
    watch:tuple=(), # Functions of a run's folder, each giving a callback that watches its fits
) -> Folder:
    """Run `recipe`, and whatever it needs, unless that is finished already; the folder of its results.

    Raises KdfastError, before anything is written, for arguments out of range and too few images; Locked where another
    process trains the same; Diverged where a loss did. A run that fails keeps its folder, which says so and is never
    taken for a result.
    """
    arguments = recipe.resolve(given)
    folder = runs.folder(kept_in, data.name, recipe.folder_name(arguments), seed)
    def finished(): return processes.agreed(lambda: folder.finished)
    if not finished():
        run = Run(folder, data, seed, kept_in, watch)
        run.dls # too few images, or to be shared unevenly, are said here, before a folder is made
        for name in foreign(arguments): networks.probe(name, data) # and a network that is none
        with folder.locked():
            if not finished(): return train_alone(run, recipe, arguments)
    check_same(folder, recipe, data, arguments) # finished before, or by another process just now
    return folder


def foreign(arguments):
    "The names of networks among the arguments that are not kdfast's own: they may not be what they seem"
    named = [value for name,value in arguments.items() if name in recipes.NETWORK_OPTIONS and not is_run(value)]
    return [name for name in named if name not in recipes.NETWORKS]


def sources(arguments):
    "SHA-256 of the files that the named networks are made from, where there are any"
    files = {file: sha256 for name in foreign(arguments) for file,sha256 in networks.source(name).items()}
    return dict(sources=files) if files else {}


def train_alone(run, recipe, arguments):
    "Train in a folder that no other process writes; how it went is put on record in any case"
    folder = run.folder
    facts = dict(recipe=recipe.name, arguments=arguments, data=run.data.name, data_sha256=run.data.fingerprint, seed=run.seed,
                 batch_size=run.dls.train.bs, precision=run.precision, **sources(arguments), **environment())
    folder.facts = processes.agreed(lambda: folder.start(facts, recipe.source))
    folder.set('running', images=run.data.asked) # where they were; they may have moved when it goes on
    run.checkpoints = Checkpoints(folder, run.say)
    try:
        set_seed(run.seed, reproducible=True)
        outcome = recipe.main()(run, **arguments)
        processes.agreed(lambda: folder.finish(judge(run, arguments, outcome)))
    except Diverged as e:
        folder.set('diverged', reason=e.message)
        raise
    except (KeyboardInterrupt, SystemExit, OSError, KdfastError) as e: # once the user has mended what there is, it goes on from its last checkpoint
        folder.set('interrupted', reason=e.message if isinstance(e, KdfastError) else str(e) if isinstance(e, OSError) else 'by a signal')
        raise
    except BaseException as e:
        folder.set('failed', reason=f'{type(e).__name__}: {e}')
        raise
    finally:
        signals.training = False
        use_bfloat16(run.dls.device, False) # in whatever step it ended
    return folder


def check_same(folder, recipe, data, arguments):
    "Raise KdfastError where the finished run in `folder` is not the run that is asked for"
    was = folder.run
    if was.get('data_sha256') != data.fingerprint:
        raise KdfastError(f'{folder} was trained on other images that were also called {data.name}: keep the new runs elsewhere with --runs')
    if folder.parsed('recipe.py', bytes.decode) != recipe.source:
        raise KdfastError(f'{folder} was made by another version of {recipe.file.name}: remove that folder, rename the recipe, or use --runs')
    asked = dict(arguments=arguments, sources={}) | sources(arguments)
    for name,value in asked.items():
        if was.get(name, {}) != value: raise KdfastError(f'{folder} was made with {name} {was.get(name, {})}, asked is {value}: remove that folder, or use --runs')


def environment():
    return dict(versions=dict(python=platform.python_version(), **{name: version(name) for name in PACKAGES}),
                device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
                machine=f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores', threads=torch.get_num_threads(), processes=processes.size)


# Results

def judge(
    run:Run, # The run that was trained
    arguments:dict, # What its recipe was called with
    outcome:Learner|nn.Module, # The Learner to be judged; or, where there is nothing to classify, the network to keep
) -> dict:
    "The numbers of a finished run; the network, its predictions and its confusion matrix are written beside them."
    network = outcome.model if isinstance(outcome, Learner) else outcome
    epochs = run.record.epochs
    if not epochs: raise KdfastError(f'{run.folder.recipe} trained nothing: its main fits no Learner of run.learner(…)')
    last = epochs[-1]
    networks.save(network, run.folder/'weights.safetensors')
    classified = classify(run, outcome) if isinstance(outcome, Learner) else dict.fromkeys(
        ('train_accuracy', 'valid_accuracy', 'best_valid_accuracy', 'best_epoch', 'valid_loss', 'worst_pairs'))
    return dict(
        recipe=run.folder.recipe, data=run.data.name, seed=run.seed, arguments=arguments,
        params=sum(p.numel() for p in network.parameters()), macs=macs(network, run),
        bytes=(run.folder/'weights.safetensors').stat().st_size, latency=latency(network, run),
        epochs=len(epochs), seconds=round(sum(row['seconds'] for row in epochs), 1),
        train_loss=last['train_total'], soft_loss=last['train_soft'], hard_loss=last['train_hard'],
        fit_loss=fit_loss(run), hint=run.hint,
        **classified, teacher_sha256=run.stands_on.get('teacher', {}).get('sha256'))


def classify(run, learn):
    "How the final weights do on images as they are"
    valid = run.dls.valid
    logits,actual,losses = learn.get_preds(dl=valid, with_loss=True, act=noop)
    interpretation = ClassificationInterpretation(learn, valid, losses)
    confusion,predicted = interpretation.confusion_matrix(),logits.argmax(1)
    interpretation.confusion_matrix = confusion.copy # most_confused would predict everything once more, and clears the diagonal
    names = run.data.classes
    runs.write_csv(run.folder/'confusion.csv', ['actual \\ predicted', *names], ([name, *row] for name,row in zip(names, confusion)))
    worst = interpretation.most_confused(min_val=1)[:10]
    number = {name: label for label,name in enumerate(names)}
    write_confused(run.folder/'confused.npz', run.data, torch.Tensor(actual).long(), logits, [(number[a], number[b]) for a,b,_ in worst])
    write_arrays(run.folder/'predictions.npz', actual=actual, predicted=predicted, logits=halved(logits))
    plain = run.dls.train.new(run.dls.train_ds.plain(), shuffle=False, drop_last=False)
    train_logits,train_actual = learn.get_preds(dl=plain, act=noop)
    best = max((row for row in run.record.epochs if row['valid_accuracy'] is not None), key=lambda row: row['valid_accuracy'])
    return dict(
        train_accuracy=float((train_logits.argmax(1) == train_actual).double().mean()),
        valid_accuracy=float(confusion.trace() / confusion.sum()),
        best_valid_accuracy=best['valid_accuracy'], best_epoch=best['epoch'],
        valid_loss=float(losses.mean()),
        worst_pairs=[[str(a), str(b), int(n)] for a,b,n in worst])


def halved(logits):
    "In half precision, where that can hold them"
    return logits.half() if logits.abs().max() <= torch.finfo(torch.half).max else logits


def write_confused(file, data, actual, logits, pairs):
    "The images that the network is surest of and has wrong, as it saw them: a few of each of its most confused pairs"
    predicted = logits.argmax(1)
    surplus = logits.max(1).values - logits.gather(1, actual[:,None])[:,0]
    rows = []
    for a,b in pairs[:PAIRS_SHOWN]:
        of_pair = ((actual == a) & (predicted == b)).nonzero()[:,0]
        rows += of_pair[surplus[of_pair].argsort(descending=True)][:IMAGES_SHOWN].tolist()
    index = np.array(rows, int)
    write_arrays(file, images=data.shown(data.valid[0][index]), index=index, actual=actual[rows], predicted=predicted[rows])


def write_arrays(file, **arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **{name: np.asarray(tensor) for name,tensor in arrays.items()})
    runs.write(file, content.getvalue())


def fit_loss(run):
    "The last fit loss of stage one: this run's own, or that of the run it stands on; None without a stage one"
    own = [row['train_fit'] for row in run.record.epochs]
    needed = [Folder(Path(needed['path'])).result['fit_loss'] for needed in run.stands_on.values()]
    return next((fit for fit in [*reversed(own), *needed] if fit is not None), None)


def macs(network, run):
    "Multiply-adds for one image"
    with FlopCounterMode(display=False) as counter, torch.no_grad(): ready(network, run)()
    return counter.get_total_flops() // 2


def latency(network, run):
    "Seconds that one image takes, alone in its batch: the shortest of many, for what else the machine does only adds to it; with this run's threads"
    classify_one,took = ready(network, run),[]
    with torch.no_grad():
        for _ in range(LOOKS):
            began = perf_counter()
            classify_one().cpu() # a GPU is waited for
            took.append(perf_counter() - began)
    return round(min(took), 6)


def ready(network, run):
    "The network at work on one image"
    x = torch.zeros(1, 3, *run.data.shape, device=run.dls.device) # where not all of stage one's student went
    network.to(x.device).eval()
    return lambda: network(x)
