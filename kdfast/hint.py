"Learning from the teacher's inner features: the cut, the regressor and the callback of stage one."
from functools import partial

import fastai.callback.schedule # gives Learners fit_one_cycle
from fastai.basics import L, Learner, patch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kdfast.errors import KdfastError
from kdfast.fit import FitCallback
from kdfast.front import LAYER, Until, features, front, front_back, full_name # noqa: F401, which are had from here, too
from kdfast.inference import as_module, ask
from kdfast.losses import hint_loss
from kdfast.teacher import Teacher


def regressor(
    student:nn.Module, # The student's front
    teacher:nn.Module, # The teacher's front
    xb:Tensor|tuple, # Some images, to see both shapes
) -> nn.Module: # New
    """The extra matrix of a hint: a convolution from the guided features to the hint's channels, height and width.

    Romero et al. 2015, section 2.2: without padding, its kernel as large as it takes to shrink the guided features to the hint's
    height and width; 1×1 where they are equal. It is linear; the paper ends it in the hint's own non-linearity.
    Guided features that are smaller than the hint are repeated up to its size behind the convolution: the gradient is then that
    of a comparison with the hint averaged to theirs, where one size is a multiple of the other. Between vectors it is a linear layer.
    Raises KdfastError between a vector and a feature map, and from one position to several. Neither front is changed: both run in evaluation mode.
    """
    guided,hint = features(student, xb),features(teacher, xb)
    if guided.dim() == hint.dim() == 2: return nn.Linear(guided.shape[1], hint.shape[1])
    if reason := unbridged(guided, hint):
        raise KdfastError(f'no regressor maps guided features of {shape(guided)} onto a hint of {shape(hint)}: {reason}')
    sides = list(zip(guided.shape[2:], hint.shape[2:]))
    convolution = nn.Conv2d(guided.shape[1], hint.shape[1], [max(g - h, 0) + 1 for g,h in sides])
    return convolution if all(g >= h for g,h in sides) else nn.Sequential(convolution, nn.Upsample(tuple(hint.shape[2:])))


def unbridged(guided, hint):
    "Why there is no regressor between the two, or an empty string"
    if 2 in (guided.dim(), hint.dim()): return 'a vector has no positions; choose two feature maps, which are found before the pooling, or two vectors'
    if not guided.dim() == hint.dim() == 4: return 'expected feature maps or vectors; choose other layers'
    if guided[0, 0].numel() == 1 < hint[0, 0].numel(): return 'one position cannot follow several; choose a guided layer nearer to the image'
    return ''


def shape(x): return '×'.join(str(n) for n in x.shape[1:])


class Hint(FitCallback):
    """Ask for the teacher's hint in place of the label: https://arxiv.org/abs/1412.6550

    For a Learner whose model is the student's front with the regressor behind it and whose loss is `hint_loss`:
    nothing behind the guided layer is computed, in neither network. `parts` holds the batch's fit loss.
    """
    in_predictions = True # `validate` compares with the hint, too
    order = 9.5  # after MixUp (0) mixed the batch and CastToTensor (9) made it plain: the teacher sees what the student sees

    def __init__(self,
        teacher:nn.Module|Learner, # The teacher up to and including its hint layer
    ):
        self.teacher,self.inference_teacher,self.parts = as_module(teacher),None,{}

    def before_fit(self):
        self.leave()
        self.inference_teacher = Teacher(self.teacher, self.model)

    def before_train(self): self.inference_teacher.begin()

    def before_validate(self):
        if self.inference_teacher: self.inference_teacher.begin()

    def before_batch(self):
        "The hint is the target, in training and in validation"
        teacher = self.inference_teacher or partial(ask, self.teacher) # a prediction before the fit has begun
        if teacher is self.inference_teacher and teacher.network is None: features(self.teacher, teacher.suited(self.xb)) # a front is complete before a faster copy of it is tried
        self.parts,self.learn.yb = {},tuple(teacher(self.xb))

    def after_loss(self): self.parts = dict(total=self.loss.detach(), fit=self.loss.detach())

    def leave(self):
        if self.inference_teacher: self.inference_teacher.leave()
        self.inference_teacher = None

    def after_fit(self):
        "Leave no gradient behind: an optimizer steps any parameter that has one, frozen or not"
        if self.fitting: self.model.zero_grad(set_to_none=True)
        self.leave()


@patch
def fit_hint(self:Learner,
    n_epoch:int, # Epochs of stage one
    teacher:nn.Module|Learner, # Trained network
    hint:str, # Dotted name of the teacher's hint layer
    guided:str, # Dotted name of the student's guided layer
    lr_max:float|None=None, # Peak of the one-cycle schedule, the Learner's own unless given
    **kwargs # Passed to fit_one_cycle: wd, cbs …
) -> Learner: # Stage one's own Learner, for its losses
    """Stage one on any Learner: its model's front learns the teacher's hint, without labels (https://arxiv.org/abs/1412.6550).

    Where the shapes differ, a regressor is trained between them and dropped. Afterwards `freeze` holds the front still, its
    batch-norm weights among it (train_bn is off; their statistics need FreezeNorm in the fit), and `unfreeze` trains everything.
    Raises KdfastError for a layer that is not there, and where no regressor can exist.
    """
    xb,teacher = inputs(self.dls),as_module(teacher).to(self.dls.device)
    student,target = front(self.model.to(self.dls.device), guided),front(teacher, hint)
    alike = features(student, xb).shape == features(target, xb).shape
    model = student if alike else Guided(student, regressor(student, target, xb).to(self.dls.device))
    stage_one = Learner(self.dls, model, hint_loss, opt_func=self.opt_func, lr=self.lr, wd=self.wd, moms=self.moms, path=self.path, model_dir=self.model_dir)
    stage_one.fit_one_cycle(n_epoch, lr_max, cbs=[Hint(target), *L(kwargs.pop('cbs', None))], **kwargs)
    self.splitter,self.train_bn,self.opt = partial(front_back, layer=guided, xb=tree_map(lambda x: x[:2], xb)),False,None
    return stage_one


class Guided(nn.Sequential):
    "A front, which may take several inputs, and a regressor behind it."
    def forward(self, *inputs):
        student,matrix = self
        return matrix(student(*inputs))


def inputs(dls):
    "What a network is called with for a batch: all of it but the targets"
    batch = dls.one_batch()
    return tuple(batch[:getattr(dls, 'n_inp', max(len(batch) - 1, 1))])
