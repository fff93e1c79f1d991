"What a recipe is given to work with (Run), and what becomes of what it returns."

import sys
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from fastai.basics import CrossEntropyLossFlat, L, Learner, accuracy, noop, set_seed
from fastai.callback.progress import ProgressCallback
from fastai.optimizer import SGD
from torch import nn

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.core.names import is_run
from kdfast.data.dataloaders import loaders
from kdfast.data.dataset import Data
from kdfast.distill.fit import FitCallback
from kdfast.distill.regressor import regressor
from kdfast.models.adapt import adapt_teacher, scaling_note
from kdfast.models.front import LAYER, features, front, front_back
from kdfast.models.saved import build_by, build_for, load_network
from kdfast.runs import trust
from kdfast.runs.options import OPTIMIZERS, layer_pairs
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream import record_upstream
from kdfast.training.checkpoints import Checkpoints
from kdfast.training.given_teacher import check_teacher, held_out_note
from kdfast.training.learner import RunLearner
from kdfast.training.metrics_log import MetricsLog
from kdfast.training.muon import Muon
from kdfast.training.precision import Bfloat16, multiplies_bfloat16
from kdfast.training.random_states import random_states_kept
from kdfast.training.teacher_cache import TeacherCache

OPTIMIZERS = dict(zip(OPTIMIZERS, (SGD, Muon), strict=True))


class SeededOrder(FitCallback):
    "Tell the loader the epoch: with the seed, it decides the order and the augmentation of the images, and their size where that grows."

    def before_epoch(self):
        self.dls.train.epoch, self.dls.train.progress = self.epoch, self.epoch / self.n_epoch


class Run:
    "One execution of a recipe: its folder, data and seed, and the runs it builds on."

    kind, keeper = RunLearner, Checkpoints
    rehearsal = False  # Whether this is its trial in small, before anything is trained
    identity = None  # Of its code and networks, from kdfast.training.identity

    def __init__(
        self,
        folder: RunDir,  # Where it is kept
        data: Data,  # Its images
        seed: int,  # Decides the initial weights, the order of the images and their augmentation
        runs: Path,  # Where the runs it builds on are kept
        watch: tuple = (),  # Functions of a run's folder, each giving a callback that watches its fits
        train: Callable | None = None,  # `kdfast.training.execute.train`, for the runs that it builds on
    ):
        self.folder, self.data, self.seed, self.runs, self.watch, self.train_recipe = (
            folder,
            data,
            seed,
            runs,
            watch,
            train,
        )
        self.record, self.checkpoints, self.upstream, self.caches, self.hint = MetricsLog(folder), None, [], [], None

    @cached_property
    def dls(self):
        "fastai DataLoaders of its images, order and augmentation decided by its seed"
        return loaders(self.data, self.seed)

    @property
    def precision(self):
        "What training steps compute in: bfloat16 where the hardware multiplies it, float32 elsewhere"
        return 'bfloat16' if multiplies_bfloat16(self.dls.device) else 'float32'

    def build(
        self,
        name: str
        | Callable,  # Of a network, as kdfast.models.build takes it; or a function of the number of classes, such as `wide`
    ) -> nn.Module:
        "A new network, its initial weights decided by the seed alone, or those that its name asks for."
        set_seed(self.seed)
        network, project = (build_by if callable(name) else build_for)(name, self.data, self.say)
        if project:  # the user's code travels with the run; and what is trained with here may run here
            trust.save_sources(project.sources, self.folder.path)
            trust.accept(network.built_by)
        return network

    def say(
        self,
        note: str,  # One line; an empty one is not said
    ):
        "What a user should know, on stderr and on record"
        if not note:
            return
        self.folder.set_status('running', notes=[*self.folder.record.get('notes', []), note])
        print(f'kdfast: {note}', file=sys.stderr)

    @random_states_kept()  # whether it is trained now or was long ago
    def needs(
        self,
        name: str,  # A recipe of kdfast: teacher, hint, …
        **given,  # Its arguments, where they are not its defaults
    ) -> nn.Module:
        """The network that this recipe trained on the same data and seed; trained first where it is missing.

        A teacher whose `network` is the folder of a run is that run's, whatever it was trained on, as long as it knows the classes.
        """
        given_run = is_run(given.get('network', ''))
        folder = RunDir(Path(given['network'])) if given_run else self.train(name, given)
        if given_run:
            check_teacher(folder)
        if problems := folder.problems():
            raise KdfastError(f'{folder} is not whole ({"; ".join(problems)}): remove it, and it is trained again')
        record_upstream(self.folder, find_recipe(name).name, folder)
        self.upstream.append((name, folder))
        network = load_network(folder)
        if given_run:
            for note in (scaling_note(network, self.data, str(folder)), held_out_note(folder, self.data)):
                self.say(note)
            network = adapt_teacher(network, self.data, str(folder))
        if name == 'teacher' and hasattr(network, 'built_by'):
            self.caches.append(TeacherCache(folder / 'outputs', network))
        return network

    def train(self, name, given):
        "The folder of a run that this one builds on, trained where it is missing"
        return self.train_recipe(find_recipe(name), self.data, self.seed, given, self.runs, self.watch, rehearsed=True)

    @property
    def teacher_sha256(self):
        "Of the weights of its teacher; of several, joined by +. None without one"
        return (
            '+'.join(
                dict.fromkeys(
                    folder.files['weights.safetensors'] for name, folder in self.upstream if name == 'teacher'
                )
            )
            or None
        )

    def guide(
        self,
        student: nn.Module,  # To be trained
        teacher: nn.Module,  # Trained
        layers: str = f'{LAYER}:{LAYER}',  # Names of the teacher's hint layer and the student's guided layer
        matrix: bool = False,  # Put a regressor even where both have one shape
    ) -> nn.Module:
        "What stage one trains: the student's front, and behind it a regressor where its features have not the hint's shape."
        guided, hint = self.fronts(student, teacher, layers)
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
        ((hint, guided),) = layer_pairs(layers)
        return front(student, guided), front(teacher, hint)

    def regressor(
        self,
        student: nn.Module,  # Its front is not changed
        teacher: nn.Module,  # Another network
        layers: str,  # The teacher's hint layer and the student's guided layer
    ) -> nn.Module:
        "The extra matrix between two layers, new: `kdfast.distill.regressor.regressor`. Raises KdfastError where none can exist."
        return self.bridge(*self.fronts(student, teacher, layers))

    def bridge(self, guided, hint):
        made = regressor(guided, hint, self.xb)
        convolution = made if isinstance(made, nn.Linear | nn.Conv2d) else made[0]
        if self.data.grow == 1 or made is convolution and getattr(made, 'kernel_size', (1, 1)) == (1, 1):
            return made
        raise KdfastError(
            f'--grow {self.data.grow}: between these layers stands a convolution of {"×".join(map(str, convolution.kernel_size))}'
            f'{"" if made is convolution else ", enlarged"}, which fits images of one size alone: '
            'choose layers of equal height and width, or leave --grow out'
        )

    def channels(
        self,
        student: nn.Module,  # A network
        teacher: nn.Module,  # Another network
        layers: str,  # Pairs, TEACHER_LAYER:STUDENT_LAYER,…
    ) -> tuple[list, list]:  # Of the student, of the teacher
        "How many channels each of the layers gives, for losses that learn. Raises KdfastError for a layer that is not there."
        found = [self.fronts(student, teacher, ':'.join(pair)) for pair in layer_pairs(layers)]
        return tuple([features(net, self.xb).shape[1] for net in nets] for nets in zip(*found))

    def front_back(
        self,
        layers: str = f'{LAYER}:{LAYER}',  # The teacher's hint layer and the student's guided layer
    ):
        "Splitter for a Learner: `freeze()` then holds the student's front still."
        ((_, guided),) = layer_pairs(layers)
        return partial(front_back, layer=guided, xb=self.xb)

    def learner(
        self,
        model: nn.Module,  # What to train
        optimizer: str = 'sgd',  # sgd or muon, with momentum
        **kwargs,  # Passed to fastai's Learner: loss_func, splitter, train_bn …
    ) -> Learner:
        """A fastai Learner on this run's images that keeps its losses in the run's folder.

        Unless told otherwise: cross-entropy on labels, SGD with momentum, weight decay 5e-3 (decoupled: fastai
        multiplies it by the learning rate; with a momentum of 0.9 what others write as 5e-4). `fit_one_cycle` moves the momentum
        from 0.95 to 0.85 and back, whatever the optimizer was given.
        """
        settings = (
            dict(
                loss_func=CrossEntropyLossFlat(),
                opt_func=partial(OPTIMIZERS[optimizer], mom=0.9),
                wd=5e-3,
                metrics=accuracy,
            )
            | kwargs
        )
        cbs = [SeededOrder(), self.record, *self.caches, *L(settings.pop('cbs', None))]
        if self.precision == 'bfloat16':
            cbs.append(Bfloat16())
        if distributed.size > 1:
            cbs += distributed_callbacks(self.dls)
        learn = self.kind(
            self.dls,
            model.to(self.dls.device, memory_format=torch.channels_last),
            path=self.folder.path,
            cbs=cbs,
            **settings,
        )
        learn.checkpoints, learn.watchers = self.checkpoints, [watch(self.folder) for watch in self.watch]
        learn.add_cbs(learn.watchers)
        learn.remove_cbs(ProgressCallback)
        learn.logger = noop
        return learn


def distributed_callbacks(dls):
    "The callbacks that make several processes one; accelerate takes its time to be imported"
    from kdfast.training.together import OwnRandomNumbers, Together

    return [Together(gpu=dls.device.type == 'cuda'), OwnRandomNumbers()]
