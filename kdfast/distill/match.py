"""Add a loss between features or logits of student and teacher to the loss on labels."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
from fastai.basics import Learner
from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.core.ranges import LARGEST_WEIGHT, check_number
from kdfast.distill.fit import FitCallback
from kdfast.distill.loss_inputs import extra_inputs, owner_of, sample_indices, without_skipped_items
from kdfast.distill.loss_module import evaluation_copy, trained_with_model
from kdfast.distill.match_checks import check_loss, check_match
from kdfast.distill.student_hooks import Features
from kdfast.distill.tasks import (
    CLASS,
    Task,
    Which,
    check_same_shape,
    described,
    logits_of,
    name_of,
    teacher_choice,
)
from kdfast.distill.teacher import Teacher
from kdfast.models.feature_maps import Arranged
from kdfast.models.front import captured_name
from kdfast.models.inference import as_module, unwrapped
from kdfast.runs.options import checked_layer_pairs


class Match(FitCallback):
    """Add weight · loss(student, teacher) to the training loss: features at pairs of layers, or logits.

    `loss` is a loss of kdfast.distill.losses, or any function or module that takes the student's tensor before the
    teacher's. With a parameter `y` it also receives the labels, with `index` the indices of the images in the
    training set. A loss with `together = True` receives lists, one tensor per pair; any other loss is summed over the
    pairs. A loss that is a module is trained with the student. Validation keeps the Learner's own loss.

    Feature maps have shape (batch, channels, height, width) whatever the layout in the network; tokens become maps
    without class and other prefix tokens; vectors have shape (batch, channels). A loss with `raw = True` receives the
    layers' outputs unchanged.

    The teacher computes in evaluation mode and without gradient, on the same batch as the student. `parts` holds the
    hard, fit and total loss of the batch. `target` holds the teacher's logits of the batch (without `layers`); another
    callback may set it before. In validation a module is evaluated as a copy in evaluation mode, so that it remembers
    nothing, and a loss with `index` is not evaluated.

    Raises ValueError for wrong options, and KdfastError, before the first step, if a layer does not exist, is not
    computed once per batch, or gives neither a map nor a vector; if a loss of class logits meets other outputs, of the
    networks or of layers; if a loss that needs `y` or `index` meets MixUp or CutMix; and if a loss that is a module is
    used in several processes.
    """

    order = 3  # after Distill (2), to whose loss it adds; before GradientAccumulation (6) and MixedPrecision (10)

    def __init__(
        self,
        teacher: nn.Module | Learner,  # Trained network
        loss: Callable,  # loss(student, teacher)
        weight: float = 1.0,  # Weight of the loss; the label loss has weight 1
        layers: str | None = None,  # Pairs, TEACHER_LAYER:STUDENT_LAYER,…; default: logits
        logits: Which = None,  # Which part of the networks' output is the logits: index, name or function; default: all
    ):
        check_loss(loss)
        self.teacher = as_module(teacher)
        check_number('the weight of the loss', weight, 0, LARGEST_WEIGHT)
        self.loss_fn = loss
        self.active_loss = loss  # in validation a copy in evaluation mode; None if that is impossible
        self.weight = weight
        self.which = logits
        self.pairs = checked_layer_pairs(layers) if layers else []
        self.extra_inputs = extra_inputs(loss)
        self.inference_teacher = None
        self.parts = {}
        self.target = None
        self.features = {}  # of the student, by layer
        self.captured = None
        self.cleanup, self.joined = ExitStack(), ExitStack()
        self.optimizer = None  # that trains the loss
        self.in_forward = False  # Whether the student computes the batch

    @property
    def loss_module(self) -> nn.Module | None:
        "The module that the loss is, or a partial or method of: trained with the student, not part of it"
        owner = owner_of(self.loss_fn)
        return owner if isinstance(owner, nn.Module) else None

    @property
    def raw(self) -> bool:
        "Whether the loss receives the layers' outputs unchanged"
        return getattr(owner_of(self.loss_fn), 'raw', False)

    @property
    def captures(self) -> bool:
        "Whether the student is computing the batch, not a prediction or another callback's input"
        return self.in_forward and self.learn is not None and not self.isolated

    def before_fit(self):
        self.leave()
        check_match(self)
        teacher_layers = [captured_name(unwrapped(self.teacher), layer) for layer, _ in self.pairs]
        self.student_layers = [captured_name(unwrapped(self.model), layer) for _, layer in self.pairs]
        self.captured = Features(self.model, self.student_layers, lambda: self.captures)
        self.features = self.captured.outputs
        self.cleanup.callback(self.captured.leave)
        choose = partial(logits_of, which=teacher_choice(self.learn.cbs, self.which))
        self.inference_teacher = Teacher(self.teacher, self.model, teacher_layers, choose)
        self.arranged = Arranged(), Arranged()  # student, teacher
        self.cleanup.callback(self.inference_teacher.leave)
        if 'index' in self.extra_inputs:
            self.cleanup.enter_context(without_skipped_items(self.dls.train))
        self.joined = self.cleanup.enter_context(ExitStack())
        self.join_optimizer()

    def join_optimizer(self):
        "Let the Learner's optimizer train the loss, too."
        self.joined.close()
        self.optimizer = self.learn.opt
        if self.loss_module:
            self.joined.enter_context(trained_with_model(self.loss_module.to(self.device), self.learn))

    def before_step(self):
        if self.learn.opt is not self.optimizer:  # another callback has created one
            self.join_optimizer()

    @property
    def compares_classes(self) -> bool:
        "Whether the loss is one of logits (images, classes)"
        return getattr(owner_of(self.loss_fn), 'compares_classes', False)

    def before_train(self):
        self.inference_teacher.begin()

    def before_validate(self):
        self.inference_teacher.begin()
        if self.loss_module and 'index' not in self.extra_inputs:
            self.active_loss = evaluation_copy(self.loss_fn)

    def after_validate(self):
        self.active_loss = self.loss_fn

    def before_batch(self):
        self.parts = {}
        self.target = None
        self.check_labels()
        self.in_forward = True
        if self.pairs and not self.raw:
            self.find_layouts()
        if self.pairs:
            self.captured.begin()
        self.inference_teacher.look_at(self.model)

    def before_pred(self):
        "Ask the teacher before the student computes."
        if self.target is None and self.compares:
            self.inference_teacher.prepare(self.xb)

    def after_pred(self):
        self.in_forward = False
        self.captured.end()
        self.inference_teacher.look_away()

    def find_layouts(self):
        "Find the layouts of the layers' outputs in both networks, before the student computes."
        student_maps, teacher_maps = self.arranged
        teacher = self.inference_teacher
        for maps, net, names, xb in (
            (student_maps, unwrapped(self.model), self.student_layers, self.xb),
            (teacher_maps, teacher.original, teacher.layers, teacher.suited(self.xb)),
        ):
            maps.prepare(net, {name: net.get_submodule(name) for name in names}, (xb, {}))

    @property
    def compares(self) -> bool:
        "Whether the loss is computed: not in validation if it needs indices or cannot be copied"
        return self.training or not ('index' in self.extra_inputs or self.active_loss is None)

    def after_loss(self):
        if not self.compares:
            return
        student, teacher = self.layer_outputs() if self.pairs else self.logits()
        if self.compares_classes and self.training and self.train_iter == 0:
            for s, t in zip(student, teacher):
                Task(CLASS).check_logits(s, t)
        hard = self.loss_so_far
        with torch.autocast(hard.device.type, enabled=False):
            fit = self.compare([s.float() for s in student], [t.float() for t in teacher])
        total = hard + self.weight * fit
        self.parts = dict(total=total.detach(), fit=fit.detach(), hard=hard.detach())
        if self.training:
            self.learn.loss_grad, self.learn.loss = total, total.detach().clone()

    def layer_outputs(self):
        "Return the outputs of the student's layers and of the teacher's layers, two lists."
        student = self.captured(learning=self.training and self.weight > 0)
        teacher = self.inference_teacher(self.xb)
        if self.raw:
            return student, teacher
        student_maps, teacher_maps = self.arranged
        return (
            [student_maps(name, output) for name, output in zip(self.student_layers, student)],
            [teacher_maps(name, output) for name, output in zip(self.inference_teacher.layers, teacher)],
        )

    def logits(self):
        "Return the logits of student and teacher, two lists of one tensor each."
        pred = logits_of(self.pred, self.which)
        if self.target is None:
            self.target = check_same_shape(pred, *self.inference_teacher(self.xb))
        return [pred], [self.target]

    def compare(
        self,
        student,  # One tensor per pair of layers, or the logits
        teacher,  # The same of the teacher
    ):
        "Return the loss of two lists of tensors. Raises KdfastError if it is not a scalar."
        inputs = {
            name: self.y if name == 'y' else sample_indices(self.dl, self.iter, self.y) for name in self.extra_inputs
        }
        if getattr(owner_of(self.loss_fn), 'together', False):
            losses = [self.active_loss(student, teacher, **inputs)]
        else:
            losses = [self.active_loss(s, t, **inputs) for s, t in zip(student, teacher)]
        if all(isinstance(loss, Tensor) and loss.numel() == 1 for loss in losses):
            return sum(loss.squeeze() for loss in losses)
        raise KdfastError(
            f'the loss {name_of(self.loss_fn)} returns {described(losses[0])}, expected a scalar: '
            'take the mean over the batch'
        )

    def leave(self):
        "Remove hooks, teacher and parameters of the loss."
        self.cleanup.close()
        vars(self).update(self.at_rest())

    def at_rest(self) -> dict:
        "Return the attributes that a fit sets, as they are outside of one."
        return dict(
            inference_teacher=None,
            captured=None,
            features={},
            in_forward=False,
            active_loss=self.loss_fn,
            cleanup=ExitStack(),
            joined=ExitStack(),
            optimizer=None,
        )

    def after_fit(self):
        self.leave()
