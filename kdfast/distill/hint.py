"Learning from the teacher's inner features: the cut, the regressor and the callback of stage one."

from functools import partial

from fastai.basics import L, Learner, patch
from torch import nn
from torch.utils._pytree import tree_map

from kdfast.distill.fit import FitCallback
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.regressor import regressor
from kdfast.distill.teacher import Teacher
from kdfast.models.front import features, front, front_back
from kdfast.models.inference import as_module, ask


class Hint(FitCallback):
    """Ask for the teacher's hint in place of the label: https://arxiv.org/abs/1412.6550

    For a Learner whose model is the student's front with the regressor behind it and whose loss is `hint_loss`:
    nothing behind the guided layer is computed, in neither network. `parts` holds the batch's fit loss.
    """

    in_predictions = True  # `validate` compares with the hint, too
    order = 9.5  # after MixUp (0) mixed the batch and CastToTensor (9) made it plain: the teacher sees what the student sees

    def __init__(
        self,
        teacher: nn.Module | Learner,  # The teacher up to and including its hint layer
    ):
        self.teacher, self.inference_teacher, self.parts = as_module(teacher), None, {}

    def before_fit(self):
        self.leave()
        self.inference_teacher = Teacher(self.teacher, self.model)

    def before_train(self):
        self.inference_teacher.begin()

    def before_validate(self):
        if self.inference_teacher:
            self.inference_teacher.begin()

    def before_batch(self):
        "The hint is the target, in training and in validation"
        teacher = self.inference_teacher or partial(ask, self.teacher)  # a prediction before the fit has begun
        if teacher is self.inference_teacher and teacher.network is None:
            features(self.teacher, teacher.suited(self.xb))  # a front is complete before a faster copy of it is tried
        self.parts, self.learn.yb = {}, tuple(teacher(self.xb))

    def after_loss(self):
        self.parts = dict(total=self.loss.detach(), fit=self.loss.detach())

    def leave(self):
        if self.inference_teacher:
            self.inference_teacher.leave()
        self.inference_teacher = None

    def after_fit(self):
        "Leave no gradient behind: an optimizer steps any parameter that has one, frozen or not"
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
    lr_max: float | None = None,  # Peak of the one-cycle schedule, the Learner's own unless given
    **kwargs,  # Passed to fit_one_cycle: wd, cbs …
) -> Learner:  # Stage one's own Learner, for its losses
    """Stage one on any Learner: its model's front learns the teacher's hint, without labels (https://arxiv.org/abs/1412.6550).

    Where the shapes differ, a regressor is trained between them and dropped. Afterwards `freeze` holds the front still, its
    batch-norm weights among it (train_bn is off; their statistics need FreezeNorm in the fit), and `unfreeze` trains everything.
    Raises KdfastError for a layer that is not there, and where no regressor can exist.
    """
    xb, teacher = hint_inputs(self.dls), as_module(teacher).to(self.dls.device)
    student, target = front(self.model.to(self.dls.device), guided), front(teacher, hint)
    alike = features(student, xb).shape == features(target, xb).shape
    model = student if alike else Guided(student, regressor(student, target, xb).to(self.dls.device))
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
    stage_one.fit_one_cycle(n_epoch, lr_max, cbs=[Hint(target), *L(kwargs.pop('cbs', None))], **kwargs)
    self.splitter, self.train_bn, self.opt = (
        partial(front_back, layer=guided, xb=tree_map(lambda x: x[:2], xb)),
        False,
        None,
    )
    return stage_one


class Guided(nn.Sequential):
    "A front, which may take several inputs, and a regressor behind it."

    def forward(self, *inputs):
        student, matrix = self
        return matrix(student(*inputs))


def hint_inputs(dls):
    "What a network is called with for a batch: all of it but the targets"
    batch = dls.one_batch()
    return tuple(batch[: getattr(dls, 'n_inp', max(len(batch) - 1, 1))])
