"""Stage one: train the student's front on the teacher's hint."""

from functools import partial

from fastai.basics import L, Learner, patch
from torch import nn
from torch.utils._pytree import tree_map

from kdfast.distill.fit import FitCallback
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.regressor import regressor
from kdfast.distill.teacher import Teacher
from kdfast.models.front import features, front, front_back
from kdfast.models.inference import as_module, infer


class Hint(FitCallback):
    """Replace the target by the teacher's hint (https://arxiv.org/abs/1412.6550).

    For a Learner whose model is the student's front, followed by the regressor, and whose loss is `hint_loss`.
    Nothing after the hint layer and the guided layer is computed. `parts` holds the hint loss of the batch, as `fit`
    and `total`.
    """

    in_predictions = True  # `validate` also compares with the hint
    order = 9.5  # after MixUp (0) mixes and CastToTensor (9) converts the batch: teacher and student get the same input

    def __init__(
        self,
        teacher: nn.Module | Learner,  # The teacher up to and including its hint layer
    ):
        self.teacher = as_module(teacher)
        self.inference_teacher = None
        self.parts = {}

    def before_fit(self):
        self.leave()
        self.inference_teacher = Teacher(self.teacher, self.model)

    def before_train(self):
        self.inference_teacher.begin()

    def before_validate(self):
        if self.inference_teacher:
            self.inference_teacher.begin()

    def before_batch(self):
        "Set the hint as the target, in training and in validation."
        teacher = self.inference_teacher or partial(infer, self.teacher)  # a prediction before the first fit
        if teacher is self.inference_teacher and teacher.network is None:
            features(self.teacher, teacher.suited(self.xb))  # completes the front before a faster copy of it is tried
        self.parts = {}
        self.learn.yb = tuple(teacher(self.xb))

    def after_loss(self):
        self.parts = dict(total=self.loss.detach(), fit=self.loss.detach())

    def leave(self):
        "Restore the teacher."
        if self.inference_teacher:
            self.inference_teacher.leave()
        self.inference_teacher = None

    def after_fit(self):
        "Delete the gradients: an optimizer also updates frozen parameters that have one."
        if self.fitting:
            self.model.zero_grad(set_to_none=True)
        self.leave()


@patch
def fit_hint(
    self: Learner,
    n_epoch: int,  # Epochs of stage one
    teacher: nn.Module | Learner,  # Trained network
    hint: str,  # Dotted name of the teacher's hint layer
    guided: str,  # Dotted name of the student's guided layer
    lr_max: float | None = None,  # Peak of the one-cycle schedule; default: the Learner's own
    **kwargs,  # Passed to fit_one_cycle: wd, cbs …
) -> Learner:  # The Learner of stage one, with its losses
    """Train the front of this Learner's model on the teacher's hint, without labels.

    Stage one of FitNets (https://arxiv.org/abs/1412.6550). If the shapes differ, a regressor is trained between them
    and then dropped. Afterwards `freeze` freezes the front, including its batch-norm weights (`train_bn` is set to
    False; the running statistics need FreezeNorm in the fit), and `unfreeze` trains the whole model.
    Raises KdfastError if a layer does not exist, or if no regressor is possible.
    """
    xb = model_inputs(self.dls)
    teacher = as_module(teacher).to(self.dls.device)
    student_front = front(self.model.to(self.dls.device), guided)
    teacher_front = front(teacher, hint)
    if features(student_front, xb).shape == features(teacher_front, xb).shape:
        model = student_front
    else:
        model = Guided(student_front, regressor(student_front, teacher_front, xb).to(self.dls.device))
    stage_one = Learner(
        self.dls,
        model,
        hint_loss,
        opt_func=self.opt_func,
        lr=self.lr,
        wd=self.wd,
        moms=self.moms,
        path=self.path,
        model_dir=self.model_dir,
    )
    stage_one.fit_one_cycle(n_epoch, lr_max, cbs=[Hint(teacher_front), *L(kwargs.pop('cbs', None))], **kwargs)
    self.splitter = partial(front_back, layer=guided, xb=tree_map(lambda x: x[:2], xb))
    self.train_bn = False
    self.opt = None
    return stage_one


class Guided(nn.Sequential):
    "A front, followed by a regressor; it takes the inputs of the front, one or several."

    def forward(self, *inputs):
        student_front, layer = self
        return layer(student_front(*inputs))


def model_inputs(
    dls,  # DataLoaders
) -> tuple:
    "Return the inputs of the model for one batch: everything but the targets."
    batch = dls.one_batch()
    return tuple(batch[: getattr(dls, 'n_inp', max(len(batch) - 1, 1))])
