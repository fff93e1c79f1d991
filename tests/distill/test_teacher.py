"""The teacher in a fit gives the outputs of the original: shared weights, wrappers, changes during the fit."""

from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    Callback,
    CrossEntropyLossFlat,
    DataLoaders,
    Learner,
    MSELossFlat,
    ProgressCallback,
    TensorImage,
    noop,
)
from test_folding import Steps, computed
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import at_loss
from kdfast.distill.losses.logits import kd_loss
from kdfast.distill.match import Match
from kdfast.distill.teacher import Teacher
from kdfast.models.front import front

AT = dict(rtol=1e-4, atol=1e-5)


def net(width=4, classes=3):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Identity(),
        nn.Conv2d(width, 8, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


class Items(list):
    "A data set that `tta` takes"

    def set_split_idx(self, i):
        return nullcontext()


def learner(model=None, n=24, loss=None, **kwargs):
    torch.manual_seed(0)
    x, y = torch.rand(n, 3, 8, 8), torch.arange(n) % 3
    dls = DataLoaders.from_dsets(Items(zip(x, y)), Items(zip(x, y)), bs=8, num_workers=0, device='cpu', shuffle=False)
    learn = Learner(dls, net() if model is None else model, loss or CrossEntropyLossFlat(), **kwargs)
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


class Look(Callback):
    "Calls `look` with the Learner after each loss"

    order = 50

    def __init__(self, look):
        self.look = look

    def after_loss(self):
        self.look(self.learn)


def targets(learn, teacher, *cbs, epochs=2):
    "Of each batch, the images and what Distill has from the teacher for them"
    seen = []
    learn.fit(
        epochs,
        1e-2,
        cbs=[
            Distill(teacher),
            *cbs,
            Look(lambda learn: seen.append((learn.xb[0].clone(), learn.distill.target.clone()))),
        ],
    )
    return seen


PRECISIONS = torch.float32, torch.float64, torch.bfloat16, torch.float16


@pytest.mark.parametrize('given', PRECISIONS)
@pytest.mark.parametrize('own', PRECISIONS)
def test_its_precision_need_not_be_the_students(own, given):
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


def test_its_modes_and_its_weights_are_afterwards_as_they_were():
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


def test_one_that_shares_and_cannot_be_copied_is_refused():
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
    assert max(off[4:] if through_data else off) < 1e-5  # 3 steps and validation an epoch


@pytest.mark.parametrize(
    'wrap',
    [
        lambda net: torch.compile(net, backend='eager'),
        nn.DataParallel,
        lambda net: net.compile(backend='eager') or net,
        lambda net: torch.compile(nn.DataParallel(net), backend='eager'),
    ],
    ids=['compiled', 'parallel', 'in place', 'both'],
)
@pytest.mark.parametrize('what', ['logits', 'layers', 'hint'])
def test_wrapped_teachers_and_students(wrap, what):
    teacher, student = net(8), net()
    plain = deepcopy(teacher).eval()
    wrapped, model = wrap(teacher), wrap(student)
    wrapped.eval()(torch.rand(8, 3, 8, 8)), model(torch.rand(8, 3, 8, 8))  # compiled before there is a hook
    seen = []

    def loss(guided, hint):
        return seen.append((guided, hint)) or guided.mean() * 0

    if what == 'logits':
        seen = targets(learner(model), wrapped)
    if what == 'layers':
        learner(model).fit(
            1,
            0.0,
            cbs=[
                Match(wrapped, loss, 1.0, '4:4'),
                Look(lambda learn: seen.append((learn.xb[0].clone(), seen.pop()[1]))),
            ],
        )
    if what == 'hint':
        learn = learner(front(model, '4'), loss=MSELossFlat())
        learn.fit(
            1, 0.0, cbs=[Hint(front(wrapped, '4')), Look(lambda learn: seen.append((learn.xb[0].clone(), learn.yb[0])))]
        )
    reference = plain if what == 'logits' else plain[:5]
    for x, found in seen:
        with torch.no_grad():
            torch.testing.assert_close(found, reference(x), **AT)
    assert len(seen) in (6, 12)


@pytest.mark.parametrize(
    'wrap', [lambda net: torch.compile(net, backend='eager'), lambda net: net.compile(backend='eager') or net]
)
def test_a_compiled_students_layers_teach_it_and_are_let_go(wrap):
    "The same weights come out as without compiling; a second fit without Match calls no hook"

    def trained(wrap):
        student = net()
        learn = learner(wrap(student))
        learn.fit(1, 0.1)
        learn.fit(1, 0.1, cbs=Match(teacher, at_loss, 100.0, '4:4,0:0'))
        learn.fit(1, 0.1)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in learn.model.modules())
        return student.state_dict()

    torch.manual_seed(0)
    teacher = net(8)
    torch.manual_seed(1)
    without = trained(lambda net: net)
    torch.manual_seed(1)
    for name, t in trained(wrap).items():
        torch.testing.assert_close(t, without[name], **AT)


def test_a_teacher_may_write_into_what_it_is_given_and_a_student_may_not():
    careless = nn.Sequential(nn.ReLU(inplace=True), *net())

    class Negative(Callback):
        def before_batch(self):
            self.learn.xb = (-self.xb[0],)

    shown = targets(learner(), careless, Negative())
    assert all((x < 0).any() for x, _ in shown)
    for x, target in shown:
        with torch.no_grad():
            torch.testing.assert_close(target, deepcopy(careless).eval()(x.clone()), **AT)
    for cb in (Distill(net(8)), Match(net(8), at_loss, 1.0, '4:5')):
        with pytest.raises(KdfastError, match='the student writes into its input'):
            learner(deepcopy(careless)).fit(1, cbs=cb)


def test_a_recurrent_teacher_forgets_where_a_pass_over_the_data_begins():
    class Counts(nn.Module):
        "Its output tells how many batches it has seen since it was reset"

        def __init__(self):
            super().__init__()
            self.net, self.seen = net(), 0

        def reset(self):
            self.seen = 0

        def forward(self, x):
            self.seen += 1
            return self.net(x) + 100 * self.seen

    teacher = Counts()
    seen = targets(learner(), teacher, Match(teacher, kd_loss))
    assert [round(float(t.mean()) / 100) for _, t in seen] == [1, 2, 3, 1, 2, 3] * 2


def test_the_copy_is_used_where_it_may_be():
    torch.manual_seed(0)
    original = net(8).eval()
    teacher, x = Teacher(original, net()), torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(teacher((x,))[0], original(x), **AT)
    assert teacher.network is not original and computed(teacher.network) == 0
    original[0].weight.data += 1
    teacher.begin()
    with torch.no_grad():
        torch.testing.assert_close(teacher((x,))[0], original(x))


def test_it_comes_back_to_its_device():
    class Moved(nn.Sequential):
        def to(self, device):
            moves.append(device.type)

    moves = []
    teacher = Teacher(Moved(*net()), net().to('meta'))
    teacher.leave()
    Teacher(Moved(*net()), net()).leave()
    assert moves == ['meta', 'cpu']


def test_several_inputs_and_subclasses_of_tensors():
    two = Steps(lambda self, a, b: self.net(a.as_subclass(torch.Tensor)) + b, net=net())
    teacher = Teacher(two, net())
    a, b = TensorImage(torch.rand(4, 3, 8, 8)), torch.rand(4, 3)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(teacher((a, b))[0], two.eval()(a, b), **AT)


@pytest.mark.parametrize(
    'forward,said',
    [
        (lambda self, x: self.net(x) + self.net(x), 'computes its layer net.4 2 times'),
        (lambda self, x: x.mean((2, 3)), 'does not compute its layer net.4'),
        (lambda self, x: self.lstm(self.net(x))[0], 'layer lstm gives tuple'),
    ],
)
@pytest.mark.parametrize('odd', ['teacher', 'student'])
def test_a_layer_without_one_output_is_refused_before_the_first_step(forward, said, odd):
    strange = Steps(forward, net=net(), lstm=nn.LSTM(3, 3))
    layer = 'lstm' if 'lstm' in said else 'net.4'
    networks, layers = ((strange, net()), f'{layer}:4') if odd == 'teacher' else ((net(), strange), f'4:{layer}')
    steps = []

    class Count(Callback):
        def before_step(self):
            steps.append(1)

    with pytest.raises(KdfastError, match=said):
        learner(networks[1]).fit(1, cbs=[Match(networks[0], at_loss, 1.0, layers), Count()])
    assert not steps
