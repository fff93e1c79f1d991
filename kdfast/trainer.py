"What a recipe is given to work with (Run), and what becomes of what it returns."
import os
import platform
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import torch
from fastai.basics import CrossEntropyLossFlat, L, Learner, accuracy, noop, set_seed
from fastai.callback.progress import ProgressCallback
from fastai.optimizer import SGD
from torch import nn

from kdfast import evaluation, identity, networks, processes, recipe as recipes, runs, signals, source, trust, upstream
from kdfast.checkpoint import Checkpoints, RunLearner, random_states_kept
from kdfast.data import Data
from kdfast.devices import device_name, repeatable
from kdfast.errors import Diverged, KdfastError, misfortune, reason
from kdfast.fit import FitCallback
from kdfast.front import LAYER, features, front, front_back
from kdfast.hint import regressor
from fastai.torch_core import default_device
from kdfast.loader import loaders
from kdfast.metrics_log import MetricsLog
from kdfast.muon import Muon
from kdfast.precision import Bfloat16, autocast_state, multiplies_bfloat16, restore_autocast
from kdfast.recipe import Recipe
from kdfast.names import is_run
from kdfast.runs import Folder
from kdfast.teacher_cache import TeacherCache

OPTIMIZERS = dict(zip(recipes.OPTIMIZERS, (SGD, Muon), strict=True))
KEPT = 'What is trained is kept: the same command goes on from there'
PACKAGES = ('kdfast', 'fastai', 'torch', 'torchvision', 'numpy')


class SameOrder(FitCallback):
    "Tell the loader the epoch: with the seed, it decides the order and the augmentation of the images, and their size where that grows."
    def before_epoch(self): self.dls.train.epoch,self.dls.train.progress = self.epoch,self.epoch/self.n_epoch


class Run:
    "One execution of a recipe: its folder, data and seed, and the runs it builds on."
    kind,keeper = RunLearner,Checkpoints
    rehearsal = False # Whether this is its trial in small, before anything is trained
    identity = None # Of its code and networks, from kdfast.identity

    def __init__(self,
        folder:Folder, # Where it is kept
        data:Data, # Its images
        seed:int, # Decides the initial weights, the order of the images and their augmentation
        runs:Path, # Where the runs it builds on are kept
        watch:tuple=(), # Functions of a run's folder, each giving a callback that watches its fits
        train:Callable|None=None, # `kdfast.training.execute.train`, for the runs that it builds on
    ):
        self.folder,self.data,self.seed,self.runs,self.watch,self.train_recipe = folder,data,seed,runs,watch,train
        self.record,self.checkpoints,self.upstream,self.caches,self.hint = MetricsLog(folder),None,[],[],None

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
        set_seed(self.seed)
        network,project = (networks.build_by if callable(name) else networks.build_for)(name, self.data, self.say)
        if project: # the user's code travels with the run; and what is trained with here may run here
            trust.keep(project.sources, self.folder.path)
            trust.accept(network.built_by)
        return network

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
        given_run = is_run(given.get('network', ''))
        folder = Folder(Path(given['network'])) if given_run else self.train(name, given)
        if given_run: check_teacher(folder)
        if problems := folder.problems(): raise KdfastError(f'{folder} is not whole ({"; ".join(problems)}): remove it, and it is trained again')
        upstream.record(self.folder, recipes.find(name).name, folder)
        self.upstream.append((name, folder))
        network = networks.load(folder)
        if given_run:
            for note in (networks.scaling(network, self.data, str(folder)), seen(folder, self.data)): self.say(note)
            network = networks.adapted(network, self.data, str(folder))
        if name == 'teacher' and hasattr(network, 'built_by'): self.caches.append(TeacherCache(folder/'outputs', network))
        return network

    def train(self, name, given):
        "The folder of a run that this one builds on, trained where it is missing"
        return self.train_recipe(recipes.find(name), self.data, self.seed, given, self.runs, self.watch, rehearsed=True)

    @property
    def teacher_sha256(self):
        "Of the weights of its teacher; of several, joined by +. None without one"
        return '+'.join(dict.fromkeys(folder.files['weights.safetensors'] for name,folder in self.upstream if name == 'teacher')) or None

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
        convolution = made if isinstance(made, nn.Linear | nn.Conv2d) else made[0]
        if self.data.grow == 1 or made is convolution and getattr(made, 'kernel_size', (1, 1)) == (1, 1): return made
        raise KdfastError(f'--grow {self.data.grow}: between these layers stands a convolution of {"×".join(map(str, convolution.kernel_size))}'
                          f'{"" if made is convolution else ", enlarged"}, which fits images of one size alone: '
                          'choose layers of equal height and width, or leave --grow out')

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
        multiplies it by the learning rate; with a momentum of 0.9 what others write as 5e-4). `fit_one_cycle` moves the momentum
        from 0.95 to 0.85 and back, whatever the optimizer was given.
        """
        settings = dict(loss_func=CrossEntropyLossFlat(), opt_func=partial(OPTIMIZERS[optimizer], mom=.9), wd=5e-3, metrics=accuracy) | kwargs
        cbs = [SameOrder(), self.record, *self.caches, *L(settings.pop('cbs', None))]
        if self.precision == 'bfloat16': cbs.append(Bfloat16())
        if processes.size > 1: cbs += together(self.dls)
        learn = self.kind(self.dls, model.to(self.dls.device, memory_format=torch.channels_last), path=self.folder.path, cbs=cbs, **settings)
        learn.checkpoints,learn.watchers = self.checkpoints,[watch(self.folder) for watch in self.watch]
        learn.add_cbs(learn.watchers)
        learn.remove_cbs(ProgressCallback)
        learn.logger = noop
        return learn


def together(dls):
    "The callbacks that make several processes one; accelerate takes its time to be imported"
    from kdfast.together import OwnRandomNumbers, Together
    return [Together(gpu=dls.device.type == 'cuda'), OwnRandomNumbers()]


def train(
    recipe:Recipe, # What to do
    data:Data, # On which images
    seed:int, # With which random numbers
    given:dict, # Arguments that are not the recipe's defaults
    kept_in:Path, # Where runs are kept
    watch:tuple=(), # Functions of a run's folder, each giving a callback that watches its fits
    rehearsed:bool=False, # Whether this has been tried in small: as part of what needs it, or of a study
) -> Folder:
    """Run `recipe`, and whatever it needs, unless that is finished already; the folder of its results.

    Before anything is trained or written, all of it is tried in small (`kdfast.rehearsal`), unless there is a checkpoint to go on from.
    Raises KdfastError, then, for whatever could not be trained, kept or loaded; Locked where another process trains the same; Diverged
    where a loss did. A run that fails keeps its folder and its checkpoints, which say so and are never taken for a result; the next
    start goes on from them.
    """
    arguments = recipe.resolve(given)
    folder = runs.folder(kept_in, data.name, recipe.folder_name(arguments), seed)
    def finished(): return processes.agreed(lambda: folder.finished)
    if not finished():
        run = Run(folder, data, seed, kept_in, watch, train)
        run.dls # too few images, or to be shared unevenly, are said here, before a folder is made
        run.identity = identity.of(recipe, arguments, data) # and a network that is none, or cannot be kept
        if not rehearsed: processes.agreed(lambda: try_first(run, recipe, arguments))
        with folder.locked():
            if not finished(): return train_alone(run, recipe, arguments)
    check_same(folder, recipe, data, arguments) # finished before, or by another process just now
    return folder


def try_first(run, recipe, arguments):
    "In small; not again where the run has begun, and where another process trains it"
    from kdfast.rehearsal import rehearse
    if not (run.folder.has_checkpoints or run.folder.held): rehearse(run, recipe, arguments)


def train_alone(run, recipe, arguments):
    "Train in a folder that no other process writes; how it went is put on record in any case"
    begin(run, recipe, arguments)
    with on_record(run), repeatable(run.dls.device):
        outcome = perform(run, recipe, arguments)
        processes.agreed(lambda: run.folder.finish(evaluation.judge(run, arguments, outcome) | dict(skipped_images=run.data.skipped)))
    return run.folder


def perform(run, recipe, arguments):
    "What `main` returns: the Learner to be judged, or a network to be kept. Raises KdfastError for anything else"
    set_seed(run.seed)
    outcome = recipe.main()(run, **arguments)
    if isinstance(outcome, Learner | nn.Module) or not run.record.epochs: return outcome
    raise KdfastError(f'{recipe.file}: main returns {type(outcome).__name__}, expected the Learner to be judged, or a network to be kept')


def begin(run, recipe, arguments):
    "Make the folder, or go on from what is there, and put on record what is about to be done"
    folder = run.folder
    facts = dict(recipe=recipe.name, arguments=arguments, data=run.data.name, data_sha256=run.data.fingerprint,
                 data_notes=list(run.data.notes), seed=run.seed, batch_size=run.dls.train.bs, precision=run.precision,
                 **run.identity, **environment())
    folder.facts = processes.agreed(lambda: folder.start(facts, recipe.source))
    trust.keep_anew(source.of_file(recipe.file).sources if 'recipe_sources' in run.identity else {}, folder.path)
    folder.set('running', images=run.data.asked) # where they were; they may have moved when it goes on
    if changed := folder.facts['changed']: run.say(f'nothing gives these weights again, for something changed while they were trained: {"; ".join(changed)}')
    run.checkpoints = run.keeper(folder, run.say)


@contextmanager
def on_record(run):
    "Say in the folder how the training ended, if not well. Its checkpoints stay, whatever it was"
    folder,autocast = run.folder,autocast_state(run.dls.device.type)
    try: yield
    except Diverged as e:
        folder.set('diverged', reason=e.message)
        raise
    except (KdfastError, OSError) as e: # once the user has mended what there is, it goes on
        folder.set('interrupted', reason=e.message if isinstance(e, KdfastError) else str(e))
        raise
    except (KeyboardInterrupt, SystemExit):
        folder.set('interrupted', reason='by a signal')
        raise
    except BaseException as e:
        words,kept = misfortune(e),[KEPT] if folder.has_checkpoints else []
        folder.set('failed', reason=words or reason(e))
        if words: raise KdfastError('. '.join([words, *kept])) from e
        for note in kept: e.add_note(note)
        raise
    finally:
        signals.training = False
        restore_autocast(autocast) # whatever a callback of the user's left


def check_same(folder, recipe, data, arguments):
    "Raise KdfastError where the finished run in `folder` is not the run that is asked for"
    was = folder.run
    if was.get('data_sha256') != data.fingerprint:
        raise KdfastError(f'{folder} was trained on other images that were also called {data.name}: keep the new runs elsewhere with --runs')
    if folder.parsed('recipe.py', bytes.decode) != recipe.source:
        raise KdfastError(f'{folder} was made by another version of {recipe.file.name}: remove that folder, rename the recipe, or use --runs')
    if was.get('arguments') != arguments: raise KdfastError(f'{folder} was made with arguments {was.get("arguments")}, asked is {arguments}: remove that folder, or use --runs')
    identity.check(folder, recipe, arguments, data, environment()['versions'])


def environment():
    return dict(versions=dict(python=platform.python_version(), **{name: version(name) for name in PACKAGES}),
                device=device_name(default_device()),
                machine=f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores', threads=torch.get_num_threads(), processes=processes.size)


# Runs that were given by name

def check_teacher(
    folder:Folder, # Of a run that is to teach
):
    "Raise KdfastError for a run that is not finished, or whose recipe leaves nothing to classify with."
    if not folder.finished: raise KdfastError(f'{folder} is {folder.status}, not finished: a teacher must be')
    if folder.result.get('valid_accuracy') is None:
        raise KdfastError(f'{folder} is no teacher: {folder.run["recipe"]} trains a part of its network and leaves the classifier new. Expected a run with a validation accuracy')


def seen(
    folder:Folder, # Of a run that teaches
    data:Data, # What its student is validated on
) -> str:
    "A note where the teacher was trained on images that are now held out; nothing where it was not, as far as the runs say."
    held,was = (data.asked or {}).get('holdout'),folder.run.get('images') or {}
    same = was.get('source') == data.asked['source'] if held and was else held and folder.data.split(',')[0] == data.name.split(',')[0]
    if not same or was.get('holdout', 0) >= held: return '' # of a class, the images of a smaller share are among those of a larger
    return f'the teacher {folder} was trained on images that --holdout {held} holds out: what it teaches there is better than it will be on new images'
