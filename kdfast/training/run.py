"""Run: what a recipe receives to build networks, load other runs and create Learners."""

import sys
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from fastai.basics import CrossEntropyLossFlat, L, Learner, accuracy, noop, set_seed
from fastai.callback.progress import ProgressCallback
from torch import nn

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.core.names import is_run
from kdfast.data.dataloaders import loaders
from kdfast.data.dataset import Data
from kdfast.distill.cuda_graphs.replay import CudaGraphs
from kdfast.distill.fit import FitCallback
from kdfast.distill.regressor import regressor
from kdfast.models.adapt import adapt_teacher, scaling_note
from kdfast.models.front import LAYER, features, front, front_back
from kdfast.models.saved import build_by, build_for, load_network
from kdfast.runs import trust
from kdfast.runs.options import layer_pairs
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream import record_upstream
from kdfast.training.checkpoints import Checkpoints
from kdfast.training.given_teacher import check_teacher, held_out_note
from kdfast.training.learner import RunLearner, distributed_callbacks
from kdfast.training.metrics_log import MetricsLog
from kdfast.training.optimizers import optimizer_named
from kdfast.training.precision import Bfloat16, multiplies_bfloat16
from kdfast.training.random_states import random_states_kept
from kdfast.training.teacher_cache import TeacherCache


class SeededOrder(FitCallback):
    """Set epoch and progress of the training DataLoader at the start of each epoch.

    Epoch and seed determine the order and the augmentation of the images; the progress determines their size in
    progressive resizing.
    """

    def before_epoch(self):
        self.dls.train.epoch = self.epoch
        self.dls.train.progress = self.epoch / self.n_epoch


class Run:
    "One execution of a recipe: its run directory, data and seed, and the runs that it depends on."

    learner_class = RunLearner  # class of its Learners
    checkpoints_class = Checkpoints  # class of its checkpoints
    rehearsal = False  # Whether this is the rehearsal on a few images
    identity = None  # of its code and networks, from kdfast.training.identity

    def __init__(
        self,
        folder: RunDir,  # Its run directory
        data: Data,  # Its images
        seed: int,  # Seed of the initial weights, the order of the images and their augmentation
        runs: Path,  # Directory of the runs that it depends on
        watch: tuple = (),  # Functions of a RunDir that return a callback for its fits, such as progress output
        train: Callable | None = None,  # kdfast.training.execute.train, for the runs that it depends on
    ):
        self.folder = folder
        self.data = data
        self.seed = seed
        self.runs = runs
        self.watch = watch
        self.train_recipe = train
        self.metrics_log = MetricsLog(folder)
        self.checkpoints = None
        self.upstream = []  # (recipe name, run directory) of each run that it depends on
        self.teacher_caches = []  # TeacherCache of each teacher
        self.stage_one = None  # layers and shapes of stage one

    @cached_property
    def dls(self):
        "fastai DataLoaders of its images; the seed determines order and augmentation"
        return loaders(self.data, self.seed)

    @property
    def precision(self):
        "Precision of training steps: bfloat16 if the hardware has instructions for it, else float32"
        return 'bfloat16' if multiplies_bfloat16(self.dls.device) else 'float32'

    def build(
        self,
        name: str
        | Callable,  # Network, as for kdfast.models.build; or a function of the number of classes, such as `wide`
    ) -> nn.Module:
        "Build a network; its initial weights depend only on the seed, unless its name includes weights."
        set_seed(self.seed)
        network, project = (build_by if callable(name) else build_for)(name, self.data, self.say)
        if project:  # save the user's code in the run, and trust it: this process already ran it
            trust.save_sources(project.sources, self.folder.path)
            trust.accept(network.build_info)
        return network

    def say(
        self,
        note: str,  # One line; an empty one is ignored
    ):
        "Print a note to stderr and save it in run.json."
        if not note:
            return
        self.folder.set_status('running', notes=[*self.folder.record.get('notes', []), note])
        print(f'kdfast: {note}', file=sys.stderr)

    @random_states_kept()  # the same random numbers follow whether the run is trained now or was finished before
    def needs(
        self,
        name: str,  # Recipe, such as teacher or hint
        **given,  # Arguments of the recipe that differ from its defaults
    ) -> nn.Module:
        """Return the network of a run with the same data and seed; train the run first if needed.

        If `network` is a run directory, returns the network of that run, adapted to the data: it may be trained on
        other data that has the same classes.

        Raises KdfastError if the run is damaged, not finished, or not a classifier.
        """
        given_run = is_run(given.get('network', ''))
        folder = RunDir(Path(given['network'])) if given_run else self.train(name, given)
        if given_run:
            check_teacher(folder)
        if problems := folder.problems():
            raise KdfastError(f'{folder} is damaged ({"; ".join(problems)}): delete it and run the command again')
        record_upstream(self.folder, find_recipe(name).name, folder)
        self.upstream.append((name, folder))
        network = load_network(folder)
        if given_run:
            for note in (scaling_note(network, self.data, str(folder)), held_out_note(folder, self.data)):
                self.say(note)
            network = adapt_teacher(network, self.data, str(folder))
        if name == 'teacher' and hasattr(network, 'build_info'):
            self.teacher_caches.append(TeacherCache(folder / 'outputs', network))
        return network

    def train(
        self,
        name,  # Of a recipe
        given,  # Its arguments
    ):
        "Return the run directory of a run that this one depends on; train the run if it is not finished."
        return self.train_recipe(find_recipe(name), self.data, self.seed, given, self.runs, self.watch, rehearsed=True)

    @property
    def teacher_sha256(self):
        "SHA-256 of the teacher's weights; of several teachers, joined by +; None without a teacher"
        hashes = [folder.files['weights.safetensors'] for name, folder in self.upstream if name == 'teacher']
        return '+'.join(dict.fromkeys(hashes)) or None

    def guide(
        self,
        student: nn.Module,  # Network to train
        teacher: nn.Module,  # Trained network
        layers: str = f'{LAYER}:{LAYER}',  # The teacher's hint layer and the student's guided layer
        matrix: bool = False,  # Add a regressor even if the shapes already match
    ) -> nn.Module:
        "Return the model of stage one: the student's front, followed by a regressor if the shapes differ."
        guided, hint = self.fronts(student, teacher, layers)
        shapes = [list(features(net, self.xb).shape[1:]) for net in (guided, hint)]
        matrix = matrix or shapes[0] != shapes[1]
        self.stage_one = dict(layers=layers, guided_shape=shapes[0], hint_shape=shapes[1], matrix=matrix)
        return nn.Sequential(guided, self.bridge(guided, hint)) if matrix else guided

    @cached_property
    def xb(self):
        "A few images, to compute the shapes of layers"
        return self.dls.one_batch()[0][:8]

    def fronts(
        self,
        student,  # Network
        teacher,  # Network
        layers,  # TEACHER_LAYER:STUDENT_LAYER
    ):
        "Return the fronts of student and teacher for one pair of layers."
        ((hint, guided),) = layer_pairs(layers)
        return front(student, guided), front(teacher, hint)

    def regressor(
        self,
        student: nn.Module,  # The student, not changed
        teacher: nn.Module,  # The teacher, not changed
        layers: str,  # The teacher's hint layer and the student's guided layer
    ) -> nn.Module:
        "Return a new regressor between two layers. Raises KdfastError if none is possible."
        return self.bridge(*self.fronts(student, teacher, layers))

    def bridge(
        self,
        guided,  # Front of the student
        hint,  # Front of the teacher
    ):
        "Return a regressor between two fronts. Raises KdfastError if it does not fit progressive resizing."
        layer = regressor(guided, hint, self.xb)
        convolution = layer if isinstance(layer, nn.Linear | nn.Conv2d) else layer[0]
        if self.data.grow == 1 or layer is convolution and getattr(layer, 'kernel_size', (1, 1)) == (1, 1):
            return layer
        raise KdfastError(
            f'--grow {self.data.grow}: the regressor between these layers is a convolution of '
            f'{"×".join(map(str, convolution.kernel_size))}{"" if layer is convolution else ", enlarged"}, '
            'which fits images of one size only: choose layers of equal height and width, or omit --grow'
        )

    def channels(
        self,
        student: nn.Module,  # The student
        teacher: nn.Module,  # The teacher
        layers: str,  # Pairs, TEACHER_LAYER:STUDENT_LAYER,…
    ) -> tuple[list, list]:  # Of the student, of the teacher
        "Return the numbers of channels of the layers. Raises KdfastError if a layer does not exist."
        found = [self.fronts(student, teacher, ':'.join(pair)) for pair in layer_pairs(layers)]
        return tuple([features(net, self.xb).shape[1] for net in nets] for nets in zip(*found))

    def front_back(
        self,
        layers: str = f'{LAYER}:{LAYER}',  # The teacher's hint layer and the student's guided layer
    ):
        "Return a splitter for a Learner, with which `freeze()` freezes the student's front."
        ((_, guided),) = layer_pairs(layers)
        return partial(front_back, layer=guided, xb=self.xb)

    def learner(
        self,
        model: nn.Module,  # Model to train
        optimizer: str = 'sgd',  # A module of kdfast.training.optimizers
        **kwargs,  # Passed to fastai's Learner: loss_func, splitter, train_bn …
    ) -> Learner:
        """Create a fastai Learner on this run's images that saves its losses in the run directory.

        Defaults: cross-entropy on labels, SGD with momentum, weight decay 5e-3. fastai multiplies the decay by the
        learning rate; with momentum 0.9 it equals 5e-4 in libraries that add it to the gradient. `fit_one_cycle`
        moves the momentum from 0.95 to 0.85 and back, regardless of the optimizer's own value.
        """
        settings = dict(loss_func=CrossEntropyLossFlat(), wd=5e-3, metrics=accuracy)
        settings |= dict(opt_func=partial(optimizer_named(optimizer), mom=0.9)) | kwargs
        cbs = [SeededOrder(), self.metrics_log, *self.teacher_caches, *L(settings.pop('cbs', None))]
        if self.precision == 'bfloat16':
            cbs.append(Bfloat16())
        if distributed.size > 1:
            cbs += distributed_callbacks(self.dls)
        model = model.to(self.dls.device, memory_format=torch.channels_last)
        learn = self.learner_class(self.dls, model, path=self.folder.path, cbs=cbs, **settings)
        learn.checkpoints = self.checkpoints
        learn.watchers = [watch(self.folder) for watch in self.watch]
        if self.dls.device.type == 'cuda' and distributed.size == 1:
            learn.watchers.append(CudaGraphs(self.say))  # does not change weights, and is in no checkpoint
        learn.add_cbs(learn.watchers)
        learn.remove_cbs(ProgressCallback)
        learn.logger = noop
        return learn
