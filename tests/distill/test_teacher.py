"The teacher during a fit: its precision, its modes, and weights that it shares with the student."

from copy import deepcopy

import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    Callback,
    CrossEntropyLossFlat,
    DataLoaders,
)
from taught_learners import AT, Items, Look, learner, net, targets
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.losses.features import at_loss
from kdfast.distill.match import Match

PRECISIONS = torch.float32, torch.float64, torch.bfloat16, torch.float16


@pytest.mark.parametrize('given', PRECISIONS)
@pytest.mark.parametrize('own', PRECISIONS)
def test_the_teacher_may_have_another_precision_than_the_student(own, given):
    teacher, torch_x = net(8).to(given).eval(), torch.rand(24, 3, 8, 8).to(own)
    learn = learner(net().to(own))
    items = Items(zip(torch_x, torch.arange(24) % 3))
    learn.dls = DataLoaders.from_dsets(items, items, bs=8, num_workers=0, device='cpu', shuffle=False)
    seen = []
    learn.fit(
        1,
        1e-2,
        cbs=[
            Distill(teacher),
            Match(teacher, at_loss, 1.0, '4:4'),
            Look(lambda learn: seen.append((learn.xb[0].clone(), learn.distill.target.clone(), learn.loss_grad.dtype))),
        ],
    )
    for x, target, dtype in seen:
        torch.testing.assert_close(target, teacher(x.to(given)).float(), rtol=1e-2, atol=1e-2)
        if learn.training:
            assert dtype == torch.promote_types(own, torch.float32)


@pytest.mark.parametrize(
    'callback',
    [
        lambda teacher: Distill(teacher, task=CrossEntropyLossFlat()),
        lambda teacher: Match(teacher, at_loss, 1.0, '4:4'),
    ],
    ids=['Distill', 'Match'],
)
def test_a_fit_in_the_users_autocast(callback):
    "Whose loss is of half precision, and the whole is not"

    def half(pred, y):
        return pred.abs().mean()

    teacher, learn, kinds = net(8), learner(loss=half), set()
    with torch.autocast('cpu', torch.bfloat16):
        learn.fit(
            1,
            1e-2,
            cbs=[
                callback(teacher),
                Look(lambda learn: kinds.add((learn.training, learn.pred.dtype, learn.loss_grad.dtype))),
            ],
        )
    assert (True, torch.bfloat16, torch.float32) in kinds and all(p.isfinite().all() for p in learn.model.parameters())


def test_modes_and_weights_of_the_teacher_are_restored():
    teacher = net(8).train()
    teacher[1].eval()  # as somebody left it
    modes, before, learn = [m.training for m in teacher.modules()], deepcopy(teacher.state_dict()), learner()
    inside = []
    learn.fit(
        1,
        1e-2,
        cbs=[Distill(teacher), Match(teacher, at_loss, 1.0, '4:4'), Look(lambda _: inside.append(teacher.training))],
    )
    assert [m.training for m in teacher.modules()] == modes and equal(before, teacher.state_dict()) and not any(inside)
    assert all(p.grad is None for p in teacher.parameters()) and not any(
        m._forward_hooks or m._forward_pre_hooks for m in teacher.modules()
    )


@pytest.mark.parametrize('share', ['itself', 'a layer', 'memory'])
def test_a_network_that_shares_weights_with_the_student_is_used_as_it_was_when_the_fit_began(share):
    student = net()
    teacher = student if share == 'itself' else net()
    if share == 'a layer':
        teacher[0] = student[0]
    if share == 'memory':
        teacher[0].weight.data = student[0].weight.data
    before, learn = deepcopy(teacher).eval(), learner(student)
    for x, target in targets(learn, teacher):
        with torch.no_grad():
            torch.testing.assert_close(target, before(x), **AT)
    assert not torch.equal(student[0].weight, before[0].weight)


def test_a_teacher_that_shares_weights_and_cannot_be_copied_is_refused():
    class Locked(nn.Sequential):
        def __deepcopy__(self, memo):
            raise TypeError('cannot pickle it')

    student = net()
    with pytest.raises(KdfastError, match='shares weights with the student, .* cannot be copied .*cannot pickle it'):
        targets(learner(student), Locked(student))


def test_what_autograd_left_in_a_network_is_copied_too():
    student = net()
    student.kept = student(torch.rand(2, 3, 8, 8))
    assert len(targets(learner(student), student)) == 12


@pytest.mark.parametrize('through_data', [False, True])
def test_a_moving_average_of_the_student_is_used_as_it_is_at_each_batch(through_data):
    student = net()
    teacher = deepcopy(student)

    class Average(Callback):
        @torch.no_grad()
        def after_step(self):
            for mean, p in zip(teacher.parameters(), student.parameters()):
                (mean.data if through_data else mean).lerp_(p, 0.5)

    off = []

    def compare(learn):
        with torch.no_grad():
            off.append((learn.distill.target - deepcopy(teacher).eval()(learn.xb[0])).abs().max())

    learner(student).fit(2, 0.1, cbs=[Distill(teacher), Average(), Look(compare)])
    assert max(off) < 1e-5


@pytest.mark.parametrize('where', ['attribute', 'list', 'function', 'part of a weight'])
def test_a_teacher_that_changes_otherwise_is_used_as_it_is(where):
    "A part of a weight that changes through `.data` is used from the next epoch on"

    class Scaled(nn.Sequential):
        scale = 1.0

        def forward(self, x):
            return super().forward(x) * self.scale * self.scales[0]

    teacher, off = Scaled(*net()), []
    teacher.scales = [1.0]

    class Change(Callback):
        def before_train(self):
            if where == 'attribute':
                teacher.scale = 1.0 + self.epoch
            if where == 'list':
                teacher.scales[0] += 1.0
            if where == 'function':
                teacher[2].forward = torch.sigmoid if self.epoch else torch.relu
            if where == 'part of a weight':
                teacher[0].weight.data[1:3] += 1

    def compare(learn):
        with torch.no_grad():
            off.append((learn.distill.target - deepcopy(teacher).eval()(learn.xb[0])).abs().max())

    learner().fit(3, 0.1, cbs=[Change(), Distill(teacher), Look(compare)])
    assert max(off) < 1e-5
