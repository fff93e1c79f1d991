"Learning from the teacher's inner features: the cut, the regressor and the callback of stage one."
import torch
from fastai.basics import Callback, Learner, params
from torch import nn

from kdfast.distill import as_module, folded
from kdfast.errors import KdfastError

GUIDED = 3  # stem, stage1, stage2: hint and guided layer both close the middle stage


def front(
    net:nn.Sequential, # A network of named stages
) -> nn.Sequential:
    "The network up to and including its hint or guided layer; the modules are shared, not copied."
    return net[:GUIDED]


def back(
    net:nn.Sequential, # A network of named stages
) -> nn.Sequential:
    "The network behind its hint or guided layer; the modules are shared, not copied."
    return net[GUIDED:]


def front_back(
    net:nn.Sequential, # A network of named stages
) -> list:
    "Splitter for a Learner: `freeze()` then holds the front still and trains the back."
    return [params(front(net)), params(back(net))]


def regressor(
    student:nn.Module, # The student's front
    teacher:nn.Module, # The teacher's front
    xb:torch.Tensor, # Some images, to see both shapes
) -> nn.Conv2d:
    """The extra matrix of a hint: a 1×1 convolution from the guided features to the hint's channels.

    Romero et al. 2015, section 2.2. Raises KdfastError where the two feature maps differ in height or width,
    which no 1×1 convolution can mend. Neither front is changed: both run in evaluation mode.
    """
    guided,hint = features(student, xb),features(teacher, xb)
    if guided.shape[2:] != hint.shape[2:]:
        raise KdfastError(f'no 1×1 regressor maps guided features of {shape(guided)} onto a hint of {shape(hint)}: '
                          'choose layers of equal height and width')
    return nn.Conv2d(guided.shape[1], hint.shape[1], 1)


def features(net, xb):
    "What `net` makes of `xb`, without moving its batch-norm statistics"
    training = net.training
    try:
        with torch.no_grad(): return net.eval()(xb.to(next(net.parameters()).device))
    finally: net.train(training)


def shape(x): return '×'.join(str(n) for n in x.shape[1:])


class Hint(Callback):
    """Ask for the teacher's hint in place of the label: https://arxiv.org/abs/1412.6550

    For a Learner whose model is the student's front with the regressor behind it and whose loss is `hint_loss`:
    nothing behind the guided layer is computed, in neither network. `parts` holds the last batch's fit loss.
    """
    order = 9.5  # after MixUp (0) mixed the batch and CastToTensor (9) made it plain: the teacher sees what the student sees

    def __init__(self,
        teacher:nn.Module|Learner, # The teacher up to and including its hint layer
    ):
        self.teacher,self.asked,self.parts = as_module(teacher),None,{}

    def before_fit(self): self.asked = folded(self.teacher.to(next(self.model.parameters()).device).eval())

    def before_batch(self):
        "The hint is the target, in training and in validation"
        with torch.no_grad(): self.learn.yb = (self.asked(*self.xb),)

    def after_loss(self): self.parts = dict(total=self.loss.detach(), fit=self.loss.detach())

    def after_fit(self):
        "Leave no gradient behind: an optimizer steps any parameter that has one, frozen or not"
        self.model.zero_grad(set_to_none=True)
        self.asked = None
