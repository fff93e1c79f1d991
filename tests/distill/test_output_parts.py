"Which part of an output is the logits, and losses that do not suit the outputs."

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    MSELossFlat,
)
from fastai.vision.all import Callback
from taught_learners import Look, learner, net
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss
from kdfast.distill.match import Match

# Where logits are


class Gives(nn.Module):
    "A network whose output is made of its logits by a function"

    def __init__(self, make):
        super().__init__()
        self.net, self.make = net(), make

    def forward(self, x):
        return self.make(self.net(x))


class Output:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    'make,which',
    [
        (lambda x: (x * 0, x), 1),
        (lambda x: dict(aux=x * 0, out=x), 'out'),
        (Output, 'logits'),
        (lambda x: [x, x * 0], 0),
        (lambda x: (x, (x * 0, x)), lambda output: output[1][1]),
    ],
)
@pytest.mark.parametrize('odd', ['teacher', 'both'])
@pytest.mark.parametrize('kind', [Distill, lambda teacher, logits=None: Match(teacher, kd_loss, logits=logits)])
def test_logits_inside_an_output_are_found_or_asked_for(make, which, odd, kind):
    def loss(pred, y):
        return F.cross_entropy(
            pred
            if isinstance(pred, torch.Tensor)
            else which(pred)
            if callable(which)
            else pred.logits
            if isinstance(pred, Output)
            else pred[which],
            y,
        )

    torch.manual_seed(0)
    if odd == 'teacher' and callable(which):
        return  # a function sees the outputs of both
    teacher, student = Gives(make), net() if odd == 'teacher' else Gives(make)
    options = dict(task=CrossEntropyLossFlat()) if kind is Distill else {}
    cb = kind(teacher, logits=which, **options)
    learn = learner(student, loss=loss)

    def compare(learn):
        with torch.no_grad():
            torch.testing.assert_close(cb.target, teacher.net.eval()(learn.xb[0]), rtol=1e-4, atol=1e-5)

    learn.fit(1, 1e-2, cbs=[cb, Look(compare)])
    with pytest.raises(KdfastError, match='the teacher returns .*; select them with logits='):
        learn.fit(1, cbs=kind(teacher, **options))


@pytest.mark.parametrize('which', ['no', 7])
def test_a_part_that_is_not_there_is_named(which):
    with pytest.raises(KdfastError, match=f'does not contain {which!r}'):
        learner().fit(1, cbs=Distill(Gives(lambda x: (x,)), logits=which))


# Match


@pytest.mark.parametrize('loss', [kd_loss, dkd_loss, dist_loss, ls_kd_loss, partial(dkd_loss, beta=2.0)])
def test_losses_of_class_logits_are_refused_for_other_outputs(loss):
    name = getattr(loss, 'func', loss).__name__

    class Pixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.net(x)

    steps = []

    class Count(Callback):
        def before_step(self):
            steps.append(1)

    for task_loss in (BCEWithLogitsLossFlat(), MSELossFlat()):
        with pytest.raises(KdfastError, match=f'{name} compares logits of classes'):
            learner(loss=task_loss).fit(1, cbs=[Match(net(), loss), Count()])
    own = learner(Pixels(), loss=lambda pred, y: F.cross_entropy(pred.mean((2, 3)), y))
    with pytest.raises(KdfastError, match=f'{name} compares logits .images, classes., found 8×3×8×8'):
        own.fit(1, cbs=[Match(Pixels(), loss), Count()])
    for layers in ('net:net', 'net:net,net:net'):
        with pytest.raises(KdfastError, match=f'{name} compares logits .images, classes., found 8×3×8×8'):
            own.fit(1, cbs=[Match(Pixels(), loss, 1.0, layers), Count()])
    assert not steps
    learner(loss=lambda pred, y: F.cross_entropy(pred, y)).fit(1, cbs=Match(net(), loss))
