"""Stage one: train the student's front on the teacher's hint."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from fastai.basics import L, Learner, defaults, patch
from fastai.callback.mixup import MixHandler
from fastai.callback.progress import ProgressCallback
from torch import Tensor, nn

from kdfast.core.errors import KdfastError, listed
from kdfast.distill.fit import FitCallback
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.regressor import regressor
from kdfast.distill.teacher import Teacher, move
from kdfast.distill.teacher_errors import computing
from kdfast.models.front import features, front, front_back
from kdfast.models.inference import as_module, infer, suited_inputs, unwrapped


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
        for cb in self.learn.cbs:
            if isinstance(cb, MixHandler) and not cb.stack_y:  # it would mix labels, which the hint replaces
                cb.stack_y, cb.old_lf = True, self.learn.loss_func

    def before_validate(self):
        if self.inference_teacher:
            self.inference_teacher.begin()

    def before_batch(self):
        "Set the hint as the target, in training and in validation."
        self.parts = {}
        teacher = self.inference_teacher
        if teacher is None:  # a prediction before the first fit
            with computing(self.xb):
                self.learn.yb = tuple(infer(self.teacher, suited_inputs(self.teacher, self.xb)))
            return
        if teacher.network is None:
            with computing(self.xb):
                features(self.teacher, self.xb)  # completes the front before a faster copy of it is tried
        self.learn.yb = tuple(teacher(self.xb))

    def after_loss(self):
        self.parts = dict(total=self.loss.detach(), fit=self.loss.detach())

    def at_rest(self) -> dict:
        "Return the attributes that a fit sets, as they are outside of one."
        return dict(inference_teacher=None)

    def leave(self):
        "Restore the teacher, and delete the gradients, also those of a fit that was interrupted."
        if self.inference_teacher:
            self.inference_teacher.leave()
            self.model.zero_grad(set_to_none=True)  # an optimizer also updates frozen parameters that have one
        self.inference_teacher = None

    def after_fit(self):
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

    Stage one has the Learner's data and settings: `opt_func`, `lr`, `wd`, `wd_bn_bias`, `moms`, `path` … It has the
    callbacks in `cbs`, but not the Learner's own, which may need its loss or labels; a warning names them.

    Raises KdfastError if a layer does not exist, if no regressor is possible, if no weight of the front trains, or if
    the teacher cannot compute the images.
    """
    xb = model_inputs(self.dls)
    with on_device(as_module(teacher), self.dls.device) as teacher:
        student_front = front(self.model.to(self.dls.device), guided)
        check_front_trains(self.model, guided, xb, held_by(self.opt), 'call unfreeze() first')
        cbs = L(kwargs.pop('cbs', None))
        warn_of_callbacks(self, cbs)
        teacher_front = front(teacher, hint)
        stage_one = learner_of_stage_one(self, model_of_stage_one(student_front, teacher_front, xb))
        self.splitter = splitter_of(self.model, front_back(self.model, guided, xb)[0])
        self.train_bn = False  # set before the fit: `freeze` freezes the front of an interrupted one, too
        self.opt = None
        stage_one.fit_one_cycle(n_epoch, lr_max, cbs=[Hint(teacher_front), *cbs], **kwargs)
        return stage_one


@contextmanager
def on_device(
    network: nn.Module,  # Any network
    device: torch.device,  # To compute on
) -> Iterator[nn.Module]:  # The network
    "Move a network to a device, and back afterwards; one that spans several devices stays there."
    came_from = move(network, device)
    try:
        yield network
    finally:
        if came_from:
            network.to(came_from)


def model_of_stage_one(
    student: nn.Module,  # The student's front
    teacher: nn.Module,  # The teacher's front
    xb: tuple,  # The inputs of a batch
) -> nn.Module:
    "Return the student's front, with a regressor if its features have another shape than the hint."
    with computing(xb):
        hint = features(teacher, xb)
    guided = features(student, xb)
    if guided.shape == hint.shape:
        return student
    return Guided(student, regressor(student, teacher, xb).to(guided))


def learner_of_stage_one(
    learn: Learner,  # Whose data and settings it has
    model: nn.Module,  # Front, with its regressor
) -> Learner:
    "Return a Learner that trains a front."
    return Learner(
        learn.dls,
        model,
        hint_loss,
        opt_func=learn.opt_func,
        lr=learn.lr,
        wd=learn.wd,
        wd_bn_bias=learn.wd_bn_bias,
        train_bn=learn.train_bn,
        moms=learn.moms,
        path=learn.path,
        model_dir=learn.model_dir,
    )


def splitter_of(
    net: nn.Module,  # The student
    front_weights: list[nn.Parameter],  # Those of its front
) -> Callable:  # Pickled by value by `Learner.export`: loading needs no kdfast
    "Return a splitter, by the names of the weights, whose first group is the front."
    inside = {id(p) for p in front_weights}
    names = {name.replace('_orig_mod.', ''): id(p) in inside for name, p in unwrapped(net).named_parameters()}

    def split(net):
        "Return the weights of the front and the others; a wrapper adds its name to theirs."
        groups, found = [[], []], set()
        for name, p in net.named_parameters():
            name = name.replace('_orig_mod.', '')
            while name not in names and name.startswith('module.'):
                name = name[len('module.') :]
            found.add(name)
            groups[0 if names.get(name) else 1].append(p)
        lost = [name for name, in_front in names.items() if in_front and name not in found]
        if lost:
            raise ValueError(f'the model has no weight {lost[0]} that fit_hint trained: set learn.splitter')
        return groups

    return split


def check_front_trains(
    net: nn.Module,  # The student
    layer: str,  # Dotted name of its guided layer
    xb: Tensor | tuple,  # The inputs of a batch
    held: set[int] = frozenset(),  # Ids of weights that a Learner's `freeze` holds
    advice: str = 'let the function that builds the network leave some that train',  # What to do
):
    "Raise KdfastError if no weight up to a layer trains: stage one would train its regressor alone."
    inside = {id(p) for p in front_back(net, layer, xb)[0]}
    names = [name for name, p in net.named_parameters() if id(p) in inside]
    if any(p.requires_grad and id(p) in inside - held for p in net.parameters()):
        return
    state = f'{listed(names)} are frozen' if names else 'it has none'
    raise KdfastError(
        f'{type(net).__name__} has no weight up to its layer {layer} that trains ({state}): {advice}, or choose '
        'another guided layer'
    )


def held_by(
    opt,  # Optimizer of a Learner, or None
) -> set[int]:
    "Return the ids of weights that `freeze` holds, with those of batch norms, which `train_bn` trains."
    n = getattr(opt, 'frozen_idx', 0)
    return {id(p) for params in opt.param_lists[:n] for p in params} if n else set()


def warn_of_callbacks(
    learn: Learner,  # With callbacks of its own
    cbs: list,  # Callbacks of stage one
):
    "Warn of callbacks that stage one does without, unless they are fastai's defaults or kdfast's."
    usual = *defaults.callbacks, ProgressCallback, FitCallback
    given = {type(cb) for cb in cbs}
    names = [type(cb).__name__ for cb in learn.cbs if not isinstance(cb, usual) and type(cb) not in given]
    if names:
        warnings.warn(
            f'fit_hint does not use the callbacks of the Learner ({listed(names)}): pass those that stage one needs, '
            'fit_hint(…, cbs=[…])',
            stacklevel=3,
        )


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
