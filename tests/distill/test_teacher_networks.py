"Kinds of teachers: wrapped, compiled, recurrent, copied, with several inputs."

from copy import deepcopy

import pytest
import torch
from fastai.vision.all import (
    Callback,
    MSELossFlat,
    TensorImage,
)
from taught_learners import AT, Look, learner, net, targets
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


def test_the_faster_copy_is_used_only_with_the_same_outputs():
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


def test_the_teacher_returns_to_its_device():
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
