"""Knowledge distillation: train on the teacher's softened outputs."""

from collections.abc import Callable
from functools import partial

import torch
from fastai.basics import Learner
from torch import Tensor, nn

from kdfast.core.ranges import LARGEST_T, SMALLEST_T, check_number
from kdfast.distill.fit import FitCallback
from kdfast.distill.tasks import Which, check_mean, check_same_shape, logits_of, task_of, teacher_choice
from kdfast.distill.teacher import Teacher
from kdfast.models.inference import as_module


class Distill(FitCallback):
    """Train on (1 − alpha)·hard loss + alpha·soft loss (https://arxiv.org/abs/1503.02531).

    Validation keeps the Learner's own loss, so that runs with different T and alpha can be compared. The soft loss
    depends on the Learner's loss:

    - one class of several, for an image, a pixel or a token (cross-entropy): T² · KL of the softmaxes, mean over all
      of these
    - independent labels (binary cross-entropy of logits): T² · KL of the sigmoids, mean over all labels
    - numbers (squared or absolute error): the squared error, without T

    The soft loss needs no labels and includes the pixels and tokens that the Learner's loss ignores (ignore_index).

    The teacher computes in evaluation mode and without gradient, is restored after the fit, and is never part of the
    Learner's model or optimizer.

    `parts` holds the hard, soft and total loss of the batch, in training and in validation; `target` holds the
    teacher's logits of the batch, which another callback may set before.

    Raises TypeError if the teacher is not a network, ValueError if T or alpha is out of range, and KdfastError,
    before the first step, if the Learner's loss is unknown or a sum over the batch, or if the two networks do not
    return logits of the same classes; probabilities are no logits.
    """

    order = 2  # after MixUp (0), which changes the batch; before GradientAccumulation (6) and MixedPrecision (10)

    def __init__(
        self,
        teacher: nn.Module | Learner,  # Trained network
        T: float = 4.0,  # Temperature of both softmaxes, above 0
        alpha: float = 0.9,  # Weight of the soft loss, 0 to 1
        logits: Which = None,  # Which part of the networks' output is the logits: index, name or function; default: all
        task: Callable | None = None,  # A known loss for the same kind of outputs, if the Learner's own is not known
    ):
        check_number('the temperature T', T, SMALLEST_T, LARGEST_T)
        check_number('alpha, the weight of the soft loss,', alpha, 0, 1)
        self.teacher = as_module(teacher)
        self.T = T
        self.alpha = alpha
        self.which = logits
        self.like = task
        self.inference_teacher = None
        self.parts = {}
        self.target = None

    def before_fit(self):
        self.task = task_of(self.loss_func if self.like is None else self.like)
        if 0 < self.alpha < 1:
            check_mean(self.loss_func)
        choose = partial(logits_of, which=teacher_choice(self.learn.cbs, self.which))
        self.inference_teacher = Teacher(self.teacher, self.model, choose=choose)

    def before_train(self):
        self.inference_teacher.begin()

    def before_validate(self):
        self.inference_teacher.begin()

    def before_batch(self):
        self.parts = {}
        self.target = None
        self.check_labels()
        self.inference_teacher.look_at(self.model)

    def after_pred(self):
        self.inference_teacher.look_away()

    def before_pred(self):
        "Ask the teacher before the student computes."
        if len(self.yb) and self.target is None:
            self.inference_teacher.prepare(self.xb)

    def after_loss(self):
        "Blend the soft loss into the training loss."
        if not len(self.yb):
            return
        pred = logits_of(self.pred, self.which)
        if self.target is None:
            self.target = check_same_shape(pred, *self.inference_teacher(self.xb))
        if self.training and self.train_iter == 0:  # of the fit; on a GPU it waits for the outputs
            self.task.check_logits(pred, self.target)
        hard = self.loss_so_far
        soft = self.task.soft_loss(pred, self.target, self.T)
        precise = torch.promote_types(hard.dtype, soft.dtype)  # the network or autocast may use half precision
        total = blend(hard.to(precise), soft.to(precise), self.alpha)
        self.parts = dict(total=total.detach(), soft=soft.detach(), hard=hard.detach())
        if self.training:
            self.learn.loss_grad, self.learn.loss = total, total.detach().clone()

    def at_rest(self) -> dict:
        "Return the attributes that a fit sets, as they are outside of one."
        return dict(inference_teacher=None)

    def leave(self):
        "Restore the teacher."
        if self.inference_teacher:
            self.inference_teacher.leave()
        self.inference_teacher = None

    def after_fit(self):
        self.leave()


def blend(
    hard: Tensor,  # Loss on labels
    soft: Tensor,  # Loss on the teacher's outputs
    alpha: float,  # Weight of the soft loss, 0 to 1
) -> Tensor:
    "Return (1 − alpha)·hard + alpha·soft. A loss of weight 0 has no influence, even if it is NaN."
    if alpha in (0, 1):
        return soft if alpha else hard
    return torch.lerp(hard, soft, alpha)
