"""Run: what a recipe receives to build networks, load other runs and create Learners."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from fastai.basics import L, Learner, noop, set_seed
from fastai.callback.progress import ProgressCallback
from torch import nn

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.core.notes import say
from kdfast.data.class_weights import class_weights
from kdfast.data.dataloaders import loaders
from kdfast.data.dataset import Data
from kdfast.data.unlabeled import with_unlabeled
from kdfast.distill.cuda_graphs.replay import CudaGraphs
from kdfast.distill.losses.features import feature_loss, hint_loss
from kdfast.models.adapt import adapt_teacher, scaling_note
from kdfast.models.as_given import as_given
from kdfast.models.channels_last import channels_last
from kdfast.models.frozen import frozen_network
from kdfast.models.random_states import random_states_kept
from kdfast.models.saved import build_by, build_for, load_network
from kdfast.runs import trust
from kdfast.runs.needs import asked_by_frozen, needed_run
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir
from kdfast.runs.upstream import record_upstream
from kdfast.training.checkpoints import Checkpoints
from kdfast.training.given_teacher import check_teacher, held_out_note
from kdfast.training.learner import RunLearner, SeededOrder, distributed_callbacks
from kdfast.training.losses import check_loss
from kdfast.training.metrics_log import MetricsLog
from kdfast.training.precision import Bfloat16, precision_on
from kdfast.training.run_layers import RunLayers
from kdfast.training.settings import chosen_in, learner_arguments
from kdfast.training.teacher_cache import TeacherCache
from kdfast.training.weighted_loss import ClassWeights


class Run(RunLayers):
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
        settings: dict | None = None,  # Those of kdfast.runs.options.SETTINGS that are not defaults
    ):
        self.folder = folder
        self.data = data
        self.seed = seed
        self.runs = runs
        self.watch = watch
        self.train_recipe = train
        self.settings = settings or {}
        self.metrics_log = MetricsLog(folder, data.several)
        self.checkpoints = None
        self.upstream = []  # (recipe name, run directory) of each run that it depends on
        self.teacher_caches = []  # TeacherCache of each teacher
        self.given = None  # trained network that is used as it is
        self.stage_one = None  # layers and shapes of stage one

    @cached_property
    def dls(self):
        "fastai DataLoaders of its images; the seed determines order and augmentation"
        return loaders(self.data, self.seed)

    @property
    def precision(self):
        "Precision of training steps: float32 or bfloat16"
        return precision_on(self.dls.device, self.settings.get('precision', 'auto'))

    @cached_property
    def class_weights(self):
        "Weights of the classes in the loss on labels, by class; empty if there are none"
        return class_weights(self.settings.get('class_weights', 'none'), self.data)

    def build(
        self,
        name: str
        | Callable,  # Network, as for kdfast.models.build; or a function of the number of classes, such as `wide`
    ) -> nn.Module:
        "Build a network; its initial weights depend only on the seed, unless its name includes weights."
        set_seed(self.seed)
        network, project = (build_by if callable(name) else build_for)(name, self.data, self.say)
        self.save_code(network, project)
        return network

    def as_given(
        self,
        name: str,  # Of a trained network, with its weights: NAME@FILE or NAME@pretrained
    ) -> Learner:
        "Return a Learner of a trained classifier. Raises KdfastError for other classes."
        given = as_given(name, self.data)
        self.say(given.note)
        self.given = given.network
        self.save_code(given.network, given.project)
        return self.learner(given.adapted)

    def save_code(
        self,
        network,  # That was built
        project,  # The user's code that built it; None for other networks
    ):
        "Save the user's code that builds a network in the run, and trust it: this process already ran it."
        if project:
            trust.save_sources(project.sources, self.folder.path)
            trust.accept(network.build_info)

    def say(
        self,
        note: str,  # One line; an empty one is ignored
    ):
        "Print a note to stderr and save it in run.json."
        if not note:
            return
        self.folder.set_status('running', notes=[*self.folder.record.get('notes', []), note])
        say(note)

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
        trained = needed_run(given, self.settings)
        given_run = trained is None
        folder = RunDir(Path(given['network'])) if given_run else self.train(name, trained)
        if given_run:
            check_teacher(folder)
        if problems := folder.problems():
            raise KdfastError(f'{folder} is damaged ({"; ".join(problems)}): delete it and run the command again')
        record_upstream(self.folder, find_recipe(name).name, folder)
        self.upstream.append((name, folder))
        network = load_network(folder)
        if given_run:
            self.say(held_out_note(folder, self.data))
        self.say(scaling_note(network, self.data, str(folder)))
        network = adapt_teacher(network, self.data, str(folder))
        if name == 'teacher' and (hasattr(network, 'build_info') or not given_run):
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

    def frozen(
        self,
        name: str,  # Network with weights, a run directory, or a network to train on labels first
        optimizer: str = 'sgd',  # Optimizer of that training
    ) -> nn.Module:
        "Return a network whose features are wanted, for this run's images. Raises KdfastError."
        asked = asked_by_frozen(name, optimizer)
        return self.needs(asked[0], **asked[1]) if asked else frozen_network(name, self.data)

    def add_unlabeled(
        self,
        path: str,  # Directory or archive of images; empty for none
    ):
        "Train the next Learner also on images without labels, whose labels are 0. Raises KdfastError."
        if path:
            self.dls = loaders(with_unlabeled(self.data, path), self.seed)

    def learner(
        self,
        model: nn.Module,  # Model to train
        optimizer: str | None = None,  # sgd, muon or adamw, with momentum; default: the setting, else sgd
        **kwargs,  # Passed to fastai's Learner: loss_func, splitter, train_bn …
    ) -> Learner:
        """Create a fastai Learner on this run's images that saves its losses in the run directory.

        Defaults: cross-entropy on labels (binary cross-entropy if images have several), SGD with momentum, weight decay
        5e-3. fastai multiplies the decay by the learning rate; with momentum 0.9 it equals 5e-4 in libraries that add
        it to the gradient. `fit_one_cycle` moves the momentum from 0.95 to 0.85 and back, regardless of the
        optimizer's own value.

        Raises KdfastError if a setting of the run is given here as well, and for a loss that does not fit the labels.
        """
        arguments = learner_arguments(self.settings, optimizer, kwargs, self.data.several)
        check_loss(arguments['loss_func'], self.data)
        cbs = [SeededOrder(), self.metrics_log, *self.teacher_caches, *L(arguments.pop('cbs', None))]
        if self.class_weights and arguments['loss_func'] not in (hint_loss, feature_loss):  # which have no labels
            cbs.append(ClassWeights(list(self.class_weights.values())))
        if self.precision == 'bfloat16':
            cbs.append(Bfloat16())
        if distributed.size > 1:
            cbs += distributed_callbacks(self.dls)
        model = channels_last(model.to(self.dls.device))
        learn = self.learner_class(self.dls, model, path=self.folder.path, cbs=cbs, **arguments)
        learn.chosen = chosen_in(self.settings)
        learn.checkpoints = self.checkpoints
        learn.watchers = [watch(self.folder) for watch in self.watch]
        if self.dls.device.type == 'cuda' and distributed.size == 1:
            learn.watchers.append(CudaGraphs(self.say))  # does not change weights, and is in no checkpoint
        learn.add_cbs(learn.watchers)
        learn.remove_cbs(ProgressCallback)
        learn.logger = noop
        return learn
