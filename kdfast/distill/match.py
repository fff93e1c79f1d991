"Learning from whatever a teacher computes, next to the labels: attention, relations, contrast, decoupled logits …"

import inspect
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial

import torch
from fastai.basics import Learner, norm_bias_params
from fastai.callback.mixup import MixHandler
from fastai.data.load import DataLoader
from torch import Tensor, nn

from kdfast.core import distributed
from kdfast.core.errors import KdfastError
from kdfast.distill.fit import FitCallback
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss
from kdfast.distill.tasks import CLASS, Which, alike, dimensions, known_task, logits_of, name_of, which_of
from kdfast.distill.teacher import Teacher
from kdfast.models.feature_maps import Arranged
from kdfast.models.front import full_name
from kdfast.models.inference import as_module, is_compiled, only, unwrapped, watched
from kdfast.runs.options import layer_pairs

OF_ONE_CLASS = kd_loss, dkd_loss, dist_loss, ls_kd_loss  # losses of logits (images, classes)


class Match(FitCallback):
    """Add weight · loss(student's, teacher's) to the training loss: of features at pairs of layers, or of logits.

    The losses of kdfast.distill.losses fit, and any function or module that takes the student's tensor before the teacher's. One with
    a parameter `y` is given the labels, too, one with `index` the places of the images in the training set; one that says
    `together = True` is given lists, a tensor a pair, any other is summed over the pairs. A loss that is a module is
    trained with the student. Validation keeps the task's own loss.
    Feature maps come as (batch, channels, height, width), whatever their layout in the network, tokens among them, without class and
    other prefix tokens; vectors as (batch, channels). A loss that says `raw = True` is given what the layers give.
    The teacher computes in evaluation mode, without gradient, of the very batch that the student sees. `parts` holds the batch's
    hard, fit and total loss; in validation a module computes it as a copy in evaluation mode, which remembers nothing of it, and
    a loss with `index` has none. `target` is, where logits are compared, the teacher's for the batch, which another callback may
    set before.
    Raises KdfastError, before the first step, for a layer that a network has not, does not compute once a batch, or
    that gives neither a feature map nor a vector; for a loss of
    kdfast.distill.losses that compares logits of classes where outputs are something else; for MixUp and its kind next to a loss that
    needs the labels of single images; and for a loss that is a module in several processes.
    """

    order = 3  # after Distill (2), whose blend it adds to; before GradientAccumulation (6) and MixedPrecision (10)

    def __init__(
        self,
        teacher: nn.Module | Learner,  # Trained network
        loss: Callable,  # loss(student's, teacher's)
        weight: float = 1.0,  # Of the loss
        layers: str | None = None,  # Pairs, TEACHER_LAYER:STUDENT_LAYER,…; logits unless given
        logits: Which = None,  # Where they are in a tuple, a dictionary or an object that a network gives: place, name, or a function of it
    ):
        self.teacher, self.measure, self.weight, self.which = as_module(teacher), loss, weight, logits
        self.pairs = layer_pairs(layers) if layers else []
        self.inference_teacher, self.parts, self.target, self.features, self.measuring = None, {}, None, {}, loss
        self.undo, self.wants, self.computing = ExitStack(), wanted(loss), False

    @property
    def trained(self):
        "The loss, where it has parameters or a memory of its own: trained with the student, kept in checkpoints, not part of the model"
        return self.measure if isinstance(self.measure, nn.Module) else None

    def before_fit(self):
        self.leave()
        self.check()
        teacher, student = (
            [full_name(unwrapped(net), pair[side]) for pair in self.pairs]
            for side, net in enumerate((self.teacher, self.model))
        )
        choose = partial(logits_of, which=which_of(self.learn.cbs, self.which))
        self.inference_teacher, self.guided, self.arranged = (
            Teacher(self.teacher, self.model, teacher, choose),
            student,
            (Arranged(), Arranged()),
        )
        self.undo.callback(self.inference_teacher.leave)
        if self.trained:
            self.undo.enter_context(trained_too(self.trained.to(self.device), self.learn))

    def check(self):
        "What can be known before the first batch"
        name = name_of(self.measure)
        if self.wants and any(isinstance(cb, MixHandler) for cb in self.learn.cbs):
            raise KdfastError(
                f'{name} needs the label of each image, and MixUp and CutMix mix images: leave one of them out'
            )
        if 'index' in self.wants and not ordered(self.dls.train):
            raise KdfastError(
                f'{name} needs to know which images a batch holds, and {type(self.dls.train).__name__} does not tell: use a DataLoader of fastai'
            )
        if self.trained and distributed.is_initialized():
            raise KdfastError(
                f'{name} is trained with the student, and several processes would each train their own: use one process'
            )
        if (
            not self.pairs
            and function_of(self.measure) in OF_ONE_CLASS
            and (task := known_task(self.loss_func))
            and task.kind != CLASS
        ):
            raise KdfastError(
                f'{name} compares logits of classes, and with the loss {name_of(self.loss_func)} outputs are {task.kind}: use Distill'
            )
        if self.pairs and isinstance(self.model, nn.DataParallel) and len(self.model.device_ids) > 1:
            raise KdfastError(
                'layers of a student in DataParallel compute in several copies: use DistributedDataParallel, learn.distrib_ctx'
            )

    def watch(self):
        "Look at the student's layers from now on; what was compiled before knows nothing of it"
        student = unwrapped(self.model)
        if is_compiled(self.model):
            torch.compiler.reset()
            self.undo.callback(torch.compiler.reset)
        self.features = self.undo.enter_context(watched(student, self.guided, lambda: self.looking))

        def forget(model, inputs):  # no method, whose copy in a copy of the model would be of all that there is
            "Another forward pass begins: the last one before `after_pred` counts"
            if not self.looking:
                return
            for outputs in self.features.values():
                outputs.clear()

        self.undo.callback(self.model.register_forward_pre_hook(forget).remove)

    @property
    def looking(self):
        "Whether the student computes for the batch, and not for a prediction or another callback"
        return self.computing and self.learn is not None and not self.isolated

    def before_train(self):
        self.inference_teacher.begin()

    def before_validate(self):
        self.inference_teacher.begin()
        if self.trained and 'index' not in self.wants:
            self.measuring = evaluation_copy(self.trained)

    def after_validate(self):
        self.measuring = self.measure

    def before_batch(self):
        self.parts, self.target, self.computing = {}, None, True
        if self.pairs and not self.raw:
            self.prepare()
        if self.pairs and not self.features:
            self.watch()

    def after_pred(self):
        self.computing = False

    @property
    def raw(self):
        "Whether the loss takes what layers give as it is"
        return getattr(self.measure, 'raw', False)

    def prepare(self):
        "Find out how the layers are laid out, in both networks, before the student computes"
        teacher = self.inference_teacher
        nets = (
            (unwrapped(self.model), self.guided, self.xb),
            (teacher.original, teacher.layers, teacher.suited(self.xb)),
        )
        for arranged, (net, names, xb) in zip(self.arranged, nets):
            arranged.prepare(net, {name: net.get_submodule(name) for name in names}, (xb, {}))

    def after_loss(self):
        if not self.training and ('index' in self.wants or self.measuring is None):
            return
        student, teacher = self.of_layers() if self.pairs else self.of_logits()
        hard = self.loss_so_far
        with torch.autocast(hard.device.type, enabled=False):
            fit = self.compare([s.float() for s in student], [t.float() for t in teacher])
        total = hard + self.weight * fit
        self.parts = dict(total=total.detach(), fit=fit.detach(), hard=hard.detach())
        if self.training:
            self.learn.loss_grad, self.learn.loss = total, total.detach().clone()

    def of_layers(self):
        student, teacher = (
            [only(self.features[name], name, 'student') for name in self.guided],
            self.inference_teacher(self.xb),
        )
        if self.raw:
            return student, teacher
        named = zip(self.arranged, (self.guided, self.inference_teacher.layers), (student, teacher))
        return [[arranged(*pair) for pair in zip(names, outputs)] for arranged, names, outputs in named]

    def of_logits(self):
        pred = logits_of(self.pred, self.which)
        if self.target is None:
            self.target = alike(pred, *self.inference_teacher(self.xb))
        if function_of(self.measure) in OF_ONE_CLASS and (pred.dim() != 2 or pred.shape[1] < 2):
            raise KdfastError(
                f'{name_of(self.measure)} compares logits (images, classes), found {dimensions(pred)}: use Distill'
            )
        return [pred], [self.target]

    def compare(self, student, teacher):
        more = {name: self.y if name == 'y' else indices(self.dl, self.iter, self.y) for name in self.wants}
        if getattr(self.measure, 'together', False):
            fits = [self.measuring(student, teacher, **more)]
        else:
            fits = [self.measuring(s, t, **more) for s, t in zip(student, teacher)]
        if all(isinstance(fit, Tensor) and fit.numel() == 1 for fit in fits):
            return sum(fit.squeeze() for fit in fits)
        found = next(dimensions(fit) if isinstance(fit, Tensor) else type(fit).__name__ for fit in fits)
        raise KdfastError(
            f'the loss {name_of(self.measure)} gives {found}, expected one number: take the mean over the batch'
        )

    def leave(self):
        "Nothing stays behind: no hook, no teacher, no parameter"
        self.undo.close()
        self.inference_teacher, self.features, self.measuring = None, {}, self.measure

    def after_fit(self):
        self.leave()


# The loss


def evaluation_copy(loss):
    "In evaluation mode; none where it cannot be copied"
    try:
        return deepcopy(loss).eval()
    except Exception:
        return None  # whatever a loss of somebody else's holds; the fit goes on without its value on validation images


def function_of(loss):
    while isinstance(loss, partial):
        loss = loss.func
    return loss


def wanted(
    loss: Callable,  # Takes the student's and the teacher's tensor, and maybe more
) -> set[str]:
    "What it has to be given besides: `y` and `index`, where it has parameters of these names behind the first two."
    try:
        parameters = inspect.signature(unwrapped(loss).forward if isinstance(loss, nn.Module) else loss).parameters
    except ValueError:
        return set()  # written in C
    return {'y', 'index'} & {*list(parameters)[2:]} - {*getattr(loss, 'keywords', ())}


@contextmanager
def trained_too(
    loss: nn.Module,  # Has parameters, or none
    learn: Learner,  # In a fit
):
    "The loss is trained like the last layers of the model: its norms and biases without weight decay, unless the Learner decays the model's."
    opt, held = learn.opt, {id(p) for p, *_ in learn.opt.all_params()}
    own = [p for p in loss.parameters() if p.requires_grad and id(p) not in held]
    kept_whole = {id(p) for p in norm_bias_params(loss)} if not learn.wd_bn_bias else {}
    opt.param_lists[-1].extend(own)
    for p in own:
        opt.state[p] = dict(do_wd=False) if id(p) in kept_whole else {}
    try:
        yield
    finally:
        mine = {id(p) for p in own}
        for params in opt.param_lists:
            params[:] = [p for p in params if id(p) not in mine]
        for state in (
            opt.state,
            getattr(getattr(opt, 'opt', None), 'state', {}),
        ):  # of OptimWrapper, and of the optimizer in it
            for p in own:
                state.pop(p, None)
        for p in own:
            p.grad = None


# Which images a batch holds


def ordered(dl):
    return hasattr(dl, 'batch_idx') or isinstance(dl, DataLoader)


def indices(
    dl,  # DataLoader of the epoch
    i: int,  # Number of the batch in it
    y: Tensor,  # Its labels
) -> Tensor:  # Where `y` is
    "Places in the data set of the images of a batch. Raises KdfastError where the DataLoader says of other images than it gave."
    if getattr(dl, 'batch_idx', None) is not None:
        places = dl.batch_idx  # kdfast's own
    else:
        places = dl._DataLoader__idxs[i * dl.bs : (i + 1) * dl.bs][
            distributed.rank_slice()
        ]  # fastai keeps the order of an epoch, but offers no way to ask for it
    if len(places) == len(y):
        return torch.as_tensor(places, device=y.device)
    raise KdfastError(
        f'{type(dl).__name__} names {len(places)} images for a batch of {len(y)}: use a loss without `index`'
    )
