"Learning from the teacher's softened outputs."

from collections.abc import Callable
from functools import partial

import torch
from fastai.basics import Learner
from torch import nn

from kdfast.distill.fit import FitCallback
from kdfast.distill.tasks import Which, alike, logits_of, task_of, which_of
from kdfast.distill.teacher import Teacher
from kdfast.models.inference import as_module


class Distill(FitCallback):
    """Learn from the teacher's softened outputs: https://arxiv.org/abs/1503.02531

    Training minimises (1−alpha)·hard + alpha·soft; validation keeps the task's own loss, so that runs with different T and alpha
    compare. The Learner's loss tells what the outputs are, and so what soft is:

    - one class of several, for an image, a pixel or a token (cross-entropy): T² · KL of the softmaxes, mean over all of these
    - labels that are right or wrong each by itself (binary cross-entropy of logits): T² · KL of the sigmoids, mean over all labels
    - numbers (squared or absolute error): the squared error; T has no meaning

    The teacher computes in evaluation mode, takes no gradient, is afterwards as it was, and is never part of the Learner's model or
    optimizer. `parts` holds the batch's hard, soft and total loss, training or validation; `target` the teacher's logits for it,
    which another callback may set before.
    Raises TypeError for a teacher that is no network, ValueError for T or alpha out of range, and KdfastError, before the first step,
    for a loss that is not known, and where the two networks do not give logits of the same classes.
    """

    order = 2  # after MixUp (0) mixed the batch; before GradientAccumulation (6) and MixedPrecision (10)

    def __init__(
        self,
        teacher: nn.Module | Learner,  # Trained network that gives the soft targets
        T: float = 4.0,  # Temperature of both softmaxes, above 0
        alpha: float = 0.9,  # Share of the soft loss, 0 to 1
        logits: Which = None,  # Where they are in a tuple, a dictionary or an object that a network gives: place, name, or a function of it
        task: Callable | None = None,  # A loss that takes such outputs as the Learner's, where that is one of your own
    ):
        if not T > 0:
            raise ValueError(f'the temperature T must be above 0, found {T}')
        if not 0 <= alpha <= 1:
            raise ValueError(f'alpha, the share of the soft loss, must lie in 0 … 1, found {alpha}')
        self.teacher, self.T, self.alpha, self.which, self.like = as_module(teacher), T, alpha, logits, task
        self.inference_teacher, self.parts, self.target = None, {}, None

    def before_fit(self):
        self.task = task_of(self.loss_func if self.like is None else self.like)
        self.inference_teacher = Teacher(
            self.teacher, self.model, choose=partial(logits_of, which=which_of(self.learn.cbs, self.which))
        )

    def before_train(self):
        self.inference_teacher.begin()

    def before_validate(self):
        self.inference_teacher.begin()

    def before_batch(self):
        self.parts, self.target = {}, None

    def after_loss(self):
        "Blend the soft loss into the training loss"
        if not len(self.yb):
            return
        pred = logits_of(self.pred, self.which)
        if self.target is None:
            self.target = alike(pred, *self.inference_teacher(self.xb))
        hard, soft = self.loss_so_far, self.task.soft_loss(pred, self.target, self.T)
        precise = torch.promote_types(hard.dtype, soft.dtype)  # whatever the network and the user's autocast compute in
        total = torch.lerp(hard.to(precise), soft.to(precise), self.alpha)
        self.parts = dict(total=total.detach(), soft=soft.detach(), hard=hard.detach())
        if self.training:
            self.learn.loss_grad, self.learn.loss = total, total.detach().clone()

    def leave(self):
        if self.inference_teacher:
            self.inference_teacher.leave()
        self.inference_teacher = None

    def after_fit(self):
        self.leave()
