"Learning from the teacher's softened outputs."
from collections.abc import Container
from copy import deepcopy
from itertools import pairwise

import torch
from fastai.basics import Callback, Learner
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from kdfast.errors import KdfastError
from kdfast.losses import kd_loss


def as_module(
    network:nn.Module|Learner, # A network, or the Learner that holds it
    role:str='teacher', # What it is called in the error
) -> nn.Module:
    "The network itself. Raises TypeError for anything that is neither a network nor a Learner."
    if isinstance(network, Learner): return network.model
    if isinstance(network, nn.Module): return network
    kind = f'the function {network.__name__}; call it first' if hasattr(network, '__name__') else type(network).__name__
    raise TypeError(f'the {role} must be an nn.Module or a Learner, found {kind}')


def folded(
    network:nn.Module, # Stays as it is
    keep:Container[str]=(), # Layers whose own output is wanted
) -> nn.Module:
    "A copy that gives the same in evaluation mode for less work: a batch norm right behind a convolution becomes part of it."
    network = deepcopy(network).eval()
    for prefix,sequence in network.named_modules():
        if not isinstance(sequence, nn.Sequential): continue
        for (name,conv),(behind,norm) in pairwise(sequence.named_children()):
            if f'{prefix}.{name}'.lstrip('.') in keep: continue
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
                setattr(sequence, name, fuse_conv_bn_eval(conv, norm)), setattr(sequence, behind, nn.Identity())
    return network


def logits(
    teacher:nn.Module, # In evaluation mode
    xb:tuple, # A batch of images
    student:torch.Tensor, # The student's logits for it
) -> torch.Tensor: # Like the student's
    "The teacher's logits, without gradient. Raises KdfastError where they are not of the student's shape."
    with torch.no_grad(): said = teacher(*xb)
    if isinstance(said, torch.Tensor) and said.shape == student.shape: return said.float()
    found = dimensions(said) if isinstance(said, torch.Tensor) else type(said).__name__
    raise KdfastError(f'the teacher gives {found}, the student {dimensions(student)}: expected logits of both, a column a class, of the same classes')


def dimensions(x): return '×'.join(map(str, x.shape))


class Distill(Callback):
    """Learn from the teacher's softened outputs: https://arxiv.org/abs/1503.02531

    Training minimises (1−alpha)·hard + alpha·soft; validation keeps the task's own loss, so that runs with
    different T and alpha compare. The teacher is put into evaluation mode, takes no gradient, and is never part of
    the Learner's model or optimizer. `parts` holds the last batch's hard, soft and total loss, training or
    validation; `target` the teacher's logits for it, which another callback may set before.
    Raises TypeError for a teacher that is no network, ValueError for T or alpha out of range, and KdfastError, in the fit,
    where the two networks do not give logits of the same classes.
    """
    order = 2  # after MixUp (0) mixed the batch; before GradientAccumulation (6) and MixedPrecision (10)

    def __init__(self,
        teacher:nn.Module|Learner, # Trained network that gives the soft targets
        T:float=4., # Temperature of both softmaxes, above 0
        alpha:float=0.9, # Share of the soft loss, 0 to 1
    ):
        if not T > 0: raise ValueError(f'the temperature T must be above 0, found {T}')
        if not 0 <= alpha <= 1: raise ValueError(f'alpha, the share of the soft loss, must lie in 0 … 1, found {alpha}')
        self.teacher,self.asked,self.T,self.alpha,self.parts,self.target = as_module(teacher),None,T,alpha,{},None

    def before_fit(self): self.asked = folded(self.teacher.to(next(self.model.parameters()).device).eval())

    def before_batch(self): self.target = None

    def after_loss(self):
        "Blend the soft loss into the training loss"
        if not len(self.yb): return
        if self.target is None: self.target = logits(self.asked, self.xb, self.pred)
        hard,soft = self.loss_grad,kd_loss(self.pred, self.target, self.T)
        total = torch.lerp(hard, soft, self.alpha)
        self.parts = dict(total=total.detach(), soft=soft.detach(), hard=hard.detach())
        if self.training: self.learn.loss_grad,self.learn.loss = total,total.detach().clone()

    def after_fit(self): self.asked = None
