"What a loss that is trained leaves as it is: the teacher, frozen weights, and itself after lr_find."

import random
import warnings
from collections import deque

import numpy as np
import pytest
import torch
from conftest import equal
from fastai.vision.all import SGD, Callback, OptimWrapper, SaveModelCallback, partial
from taught_learners import Look, learner, net
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.crd import CRD
from kdfast.distill.losses.vid import VID
from kdfast.distill.match import Match

OPTIMIZERS = [partial(SGD, mom=0.9), partial(OptimWrapper, opt=torch.optim.AdamW)]


def copy(*modules):
    "All tensors of modules"
    return {
        (i, name): t.detach().clone()
        for i, module in enumerate(modules)
        for tensors in (module.named_parameters(), module.named_buffers())
        for name, t in tensors
    }


class Remembers(nn.Module):
    "A loss with all that a loss may remember"

    def __init__(self):
        super().__init__()
        self.matrix, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.register_buffer('bank', torch.zeros(8))
        self.register_buffer('hidden', torch.zeros(8), persistent=False)
        self.register_buffer('later', None)
        self.mean, self.calls, self.queue, self.names = torch.zeros(8), 0, deque([torch.zeros(1)], 3), {}
        self.array, self.drawn = np.zeros(2), [random.Random(0), np.random.default_rng(0), torch.Generator()]
        self.nested, self.old_random = [(torch.zeros(8), {'calls': 0})], np.random.RandomState(0)

    def forward(self, guided, hint):
        found = self.norm(self.matrix(guided)).mean((0, 2, 3))
        self.bank = found.detach()
        self.later = self.bank + 1
        self.hidden += 1
        self.mean.mul_(0.9).add_(self.bank)
        self.calls += 1
        self.queue.append(self.bank)
        self.names[self.calls] = self.bank
        inner, counts = self.nested[0]
        inner += self.bank
        counts['calls'] += self.old_random.randint(9)
        self.array += self.drawn[0].random() + self.drawn[1].random() + float(torch.rand(1, generator=self.drawn[2]))
        return (found - hint.mean((0, 2, 3))).square().mean()

    def state(self):
        numbers = [self.mean, *self.queue, *self.names.values(), torch.tensor(self.array)]
        drawn = (
            repr(self.old_random.get_state()),
            repr([self.drawn[0].getstate(), self.drawn[1].bit_generator.state, self.drawn[2].get_state(), self.nested]),
        )
        return [t.tolist() for t in numbers], self.calls, self.later, drawn


LOSSES = {
    'vid': (lambda: VID(8, 8), '4:4'),
    'crd': (lambda: CRD(8, 8, dim=4, labels=torch.arange(24) % 3, negatives=8), '7:7'),
    'all': (Remembers, '4:4'),
}


@pytest.mark.parametrize('opt_func', OPTIMIZERS)
@pytest.mark.parametrize('loss', LOSSES)
def test_lr_find_leaves_a_loss_as_it_was(tmp_path, loss, opt_func):
    make, layers = LOSSES[loss]
    torch.manual_seed(2)
    module = make()
    learn = learner(path=tmp_path, opt_func=opt_func)
    learn.add_cb(Match(net(8).eval(), module, 1.0, layers))
    learn.fit(1, 1e-2)  # it has a state, and what it holds is not what it began with
    before, state = copy(module, learn.model), getattr(module, 'state', int)()
    seen = []
    with learn.added_cbs(Look(lambda learn: seen.append(copy(module)))):
        learn.lr_find(show_plot=False, num_it=6)
    assert equal(before, copy(module, learn.model)) and getattr(module, 'state', int)() == state
    assert not equal(seen[0], seen[-1]) and all(p.grad is None for p in module.parameters())
    learn.fit(1, 1e-2)
    assert not equal(before, copy(module, learn.model))


@pytest.mark.parametrize('opt_func', OPTIMIZERS)
@pytest.mark.parametrize('find', [True, False])
def test_what_is_saved_and_loaded_during_a_fit_is_the_optimizer_of_the_model(tmp_path, opt_func, find):
    learn = learner(path=tmp_path, opt_func=opt_func)
    learn.fit(1, 1e-2)
    before, weights, held = saved(learn), copy(learn.model), []

    class Loads(Callback):
        def before_validate(self):
            state = saved(learn)
            learn.save('during')
            learn.load('during')
            assert saved(learn) == state
            held.append(sum(p is loss.mean[0].weight for p, *_ in learn.opt.all_params()))

    loss = VID(8, 8)
    own = copy(loss)
    with learn.added_cbs([Match(net(8), loss, 1.0, '4:4'), *([] if find else [Loads()])]), warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        if find:
            learn.lr_find(show_plot=False, num_it=6)
        else:
            learn.fit(2, 1e-2, cbs=SaveModelCallback(with_opt=True))
            learn.load('model', with_opt=True)
    if find:
        assert saved(learn) == before and equal(weights, copy(learn.model)) and equal(own, copy(loss))
    else:
        assert held == [1, 1] and not equal(own, copy(loss))
    assert not {'state_dict', 'load_state_dict'} & {*vars(learn.opt)}


def saved(learn):
    return repr(learn.opt.state_dict()['state'])


def test_lr_find_refuses_parameters_that_have_no_values_yet():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.LazyLinear(3)

        def forward(self, student, teacher):
            return self.linear(student).square().mean()

    learn = learner()
    with pytest.raises(KdfastError, match='lazy parameters'), learn.added_cbs(Match(net(8), Lazy(), 1.0, '7:7')):
        learn.lr_find(show_plot=False, num_it=2)


# Parts of the teacher in the loss


class Head(nn.Module):
    "SimKD: the student's projected features through the teacher's classifier"

    def __init__(self, teacher, shared):
        super().__init__()
        torch.manual_seed(3)
        self.project, self.head = nn.Conv2d(8, 8, 1), teacher[8]
        if shared:  # the same memory, in another parameter
            self.head = nn.Linear(8, 3)
            self.head.weight, self.head.bias = (nn.Parameter(p.data) for p in teacher[8].parameters())

    def forward(self, guided, hint):
        student, teacher = (self.head(x.mean((2, 3))) for x in (self.project(guided), hint))
        return (student - teacher).square().mean()


@pytest.mark.parametrize('opt_func', OPTIMIZERS)
@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('frozen', [False, True])
def test_a_loss_with_a_part_of_the_teacher_does_not_train_it(opt_func, shared, frozen):
    torch.manual_seed(1)
    teacher = net(8)
    teacher[8].bias.requires_grad_(not frozen)
    loss = Head(teacher, shared)
    before, needed = copy(teacher), [p.requires_grad for p in (*teacher.parameters(), *loss.parameters())]
    gradients = []

    def look(learn):
        if learn.training:
            (gradient,) = torch.autograd.grad(learn.loss_grad, learn.model[4].weight, retain_graph=True)
            gradients.append(float(gradient.norm()))
            assert loss.project.weight.requires_grad and not any(p.requires_grad for p in loss.head.parameters())

    learn = learner(opt_func=opt_func)
    projector = loss.project.weight.detach().clone()
    learn.fit(1, 1e-2, cbs=[Match(teacher, loss, 1e3, '5:5'), Look(look)])
    assert equal(before, copy(teacher)) and all(p.grad is None for p in teacher.parameters())
    assert [p.requires_grad for p in (*teacher.parameters(), *loss.parameters())] == needed
    assert not torch.equal(projector, loss.project.weight) and min(gradients) > 1


def test_frozen_weights_and_those_of_the_student_are_left_out():
    loss, held = Head(net(8), False), []
    loss.project.bias.requires_grad_(False)
    learn = learner(splitter=lambda model: [[*model[4].parameters()]])
    loss.student, loss.head = learn.model[0], nn.Linear(8, 3)
    before = copy(learn.model[0])
    match = Match(net(8), loss, 1.0, '5:5')
    learn.fit(1, 1e-2, cbs=[match, Look(lambda learn: held.append([id(p) for p, *_ in learn.opt.all_params()]))])
    own = [*learn.model[4].parameters(), loss.project.weight, *loss.head.parameters()]
    assert held[0] == [id(p) for p in own] and equal(before, copy(learn.model[0]))
    assert learn.model[0].weight.requires_grad and not loss.project.bias.requires_grad


def test_a_teacher_that_is_the_student_itself_is_trained():
    model = net()
    loss = Head(model, False)
    before = copy(model[8])
    learner(model).fit(1, 1e-2, cbs=Match(model, loss, 1.0, '5:5'))
    assert not equal(before, copy(model[8])) and all(p.requires_grad for p in loss.parameters())
