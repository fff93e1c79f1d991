"Losses with parameters: trained with the student, evaluated by a copy, saved in checkpoints."

from functools import partial

import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    SGD,
    Callback,
    OptimWrapper,
    ranger,
)
from match_learners import At, Regressed, copy, learner, teacher
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.match import Match
from kdfast.models.study_networks import thin


def test_a_loss_with_parameters_is_trained_with_the_student_and_never_part_of_it(data):
    learn, loss = learner(data, thin(3)), Regressed()
    before, names = copy(loss), set(copy(learn.model))
    held = []
    learn.fit_one_cycle(
        2,
        0.05,
        cbs=[
            Match(teacher(), loss, 1.0, 'stage2:stage2'),
            At(lambda learn: held.append(sum(p is loss.matrix.weight for p, *_ in learn.opt.all_params()))),
        ],
    )
    assert held == [1] * 18 and not equal(before, copy(loss)) and set(copy(learn.model)) == names
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}


class Memory(nn.Module):
    "A loss that behaves in evaluation mode in its own way, and remembers what it was called with"

    def __init__(self):
        super().__init__()
        self.norm, self.calls = nn.BatchNorm2d(40), []

    def forward(self, guided, hint):
        self.calls.append(self.training)
        return self.norm(guided).square().mean() + hint.mean() * 0


def parts_of(learn, *cbs):
    "Of each batch, whether it is of training, what Match holds and what it compared"
    seen = []

    class Look(Callback):
        order = 50

        def after_loss(self):
            seen.append(
                (
                    self.training,
                    dict(self.match.parts),
                    self.match.features['stage2'][0].detach().clone() if self.match.pairs else None,
                    float(self.loss),
                )
            )

    learn.fit(2, 0.01, cbs=[*cbs, Look()])
    return seen


def test_the_parts_of_match_are_those_of_the_batch_also_in_validation(data):
    net = teacher()
    for layers in ('stage2:stage2', None):

        def loss(s, t):
            return (s.float().mean() - t.float().mean()).square() + 1

        seen = []
        for training, parts, guided, task in parts_of(
            learner(data), Match(net, lambda s, t: seen.append(loss(s, t)) or seen[-1], 3.0, layers)
        ):
            now = seen.pop(0)
            torch.testing.assert_close(parts['fit'], now)
            torch.testing.assert_close(parts['total'], parts['hard'] + 3 * now)
            assert task == pytest.approx(float(parts['total'] if training else parts['hard']))


def test_validation_is_computed_by_a_copy_in_evaluation_mode_that_leaves_no_trace(data):
    loss = Memory()
    batches = parts_of(learner(data, thin(3)), Match(teacher(), loss, 1.0, 'stage2:stage2'))
    assert loss.calls == [True] * 18 and loss.norm.num_batches_tracked == 18
    norm = nn.functional.batch_norm
    training, parts, guided, _ = batches[-1]
    expected = (
        norm(guided, loss.norm.running_mean, loss.norm.running_var, loss.norm.weight, loss.norm.bias).square().mean()
    )
    assert not training and float(parts['fit']) == pytest.approx(float(expected), rel=1e-5)


def test_what_cannot_be_computed_on_validation_images_has_no_value_there(data):
    class Uncopied(Memory):
        def __deepcopy__(self, memo):
            raise TypeError('no')

    def of_places(guided, hint, index):
        return guided.mean() * 0 + index.float().mean()

    for loss in (of_places, Uncopied()):
        for training, parts, *_ in parts_of(learner(data, thin(3)), Match(teacher(), loss, 1.0, 'stage2:stage2')):
            assert bool(parts) == training


def loss_states(learn, loss):
    "What the optimizer knows of each of the loss's parameters"
    known = {id(p): state for p, _, state, _ in learn.opt.all_params()}
    return {name: known.get(id(p)) for name, p in loss.named_parameters()}


@pytest.mark.parametrize(
    'opt_func',
    [
        partial(SGD, mom=0.9),
        ranger,
        partial(OptimWrapper, opt=torch.optim.AdamW),
        partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=0.9)),
    ],
)
def test_any_optimizer_trains_the_loss_and_holds_it_during_the_fit_only(data, opt_func):
    learn, loss, held = learner(data, thin(3)), nn.Sequential(), []

    class Normed(Regressed):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(84)

        def forward(self, guided, hint):
            return hint_loss(self.norm(self.matrix(guided)), hint)

    loss = Normed()
    learn.opt_func = opt_func
    before = copy(loss)
    for _ in range(2):
        learn.fit(
            1,
            0.01,
            cbs=[Match(teacher(), loss, 1.0, 'stage2:stage2'), At(lambda learn: held.append(loss_states(learn, loss)))],
        )
    assert all(not (before[name] == t).all() for name, t in copy(loss).items()) and len(held) == 18
    assert {name: state.get('do_wd', True) for name, state in held[0].items()} == {
        'matrix.weight': True,
        'matrix.bias': False,
        'norm.weight': False,
        'norm.bias': False,
    }
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}
    own = {id(p) for p in loss.parameters()}
    assert not own & {id(p) for p in learn.opt.state} and not own & {
        id(p) for p in getattr(getattr(learn.opt, 'opt', None), 'state', {})
    }
    assert all(p.grad is None for p in loss.parameters())


def test_norms_and_biases_of_a_loss_decay_where_the_students_do(data):
    learn, loss, held = learner(data, thin(3)), Regressed(), []
    learn.wd_bn_bias = True
    learn.fit(
        1,
        0.01,
        cbs=[Match(teacher(), loss, 1.0, 'stage2:stage2'), At(lambda learn: held.append(loss_states(learn, loss)))],
    )
    assert all(state.get('do_wd', True) for state in held[0].values())


def test_an_optimizer_that_was_loaded_trains_the_loss(data, tmp_path):
    learn, loss = learner(data, thin(3)), Regressed()
    learn.path = tmp_path
    learn.fit(1, 0.01)
    learn.save('student')
    learn.load('student')
    before = copy(loss)
    learn.fit(1, 0.01, cbs=Match(teacher(), loss, 1.0, 'stage2:stage2'))
    assert not equal(before, copy(loss))


def test_a_loss_that_holds_a_part_of_the_student_takes_nothing_away(data):
    class Holds(Regressed):
        def __init__(self, student):
            super().__init__()
            self.student = student

    learn = learner(data, thin(3))
    learn.fit(1, 0.01, cbs=Match(teacher(), Holds(learn.model), 1.0, 'stage2:stage2'))
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}


class Options(Regressed):
    "With an option, the indices of images, and another method that computes it"

    def forward(self, guided, hint, index, factor=1.0):
        assert len(index) == len(guided)
        return factor * super().forward(guided, hint)

    def plain(self, guided, hint):
        return super().forward(guided, hint)


WRAPPED = dict(
    partial=lambda loss: partial(loss, factor=2.0),
    twice=lambda loss: partial(partial(loss), factor=2.0),
    method=lambda loss: loss.plain,
    partial_of_method=lambda loss: partial(loss.plain),
    forward=lambda loss: loss.forward,
)


@pytest.mark.parametrize('wrap', WRAPPED.values(), ids=WRAPPED)
def test_a_module_inside_partials_and_methods_is_trained(data, wrap):
    learn, loss = learner(data, thin(3)), Options()
    before = copy(loss)
    learn.fit(1, 0.01, cbs=Match(teacher(), wrap(loss), 1.0, 'stage2:stage2'))
    assert not any(torch.equal(t, before[name]) for name, t in copy(loss).items())
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}


class Switch(Callback):
    "Creates another optimizer in the second epoch, before a batch"

    def __init__(self, event):
        setattr(self, event, self.switch)

    def switch(self):
        if self.epoch == 1 and not isinstance(self.opt, OptimWrapper):
            self.learn.opt_func = partial(OptimWrapper, opt=torch.optim.Adam)
            self.learn.create_opt()
            self.opt.set_hyper('lr', 0.01)


@pytest.mark.parametrize('event', ['before_epoch', 'before_train', 'before_batch', 'after_pred'])
def test_a_loss_is_trained_by_the_optimizer_that_another_callback_creates(data, event):
    learn, loss, seen = learner(data, thin(3)), Regressed(), []

    class Look(Callback):
        def after_train(self):
            seen.append(copy(loss))

    learn.fit(3, 0.01, cbs=[Match(teacher(), loss, 1.0, 'stage2:stage2'), Switch(event), Look()])
    for before, after in zip(seen, seen[1:]):
        assert not any(torch.equal(t, before[name]) for name, t in after.items())
    assert {id(p) for p, *_ in learn.opt.all_params()} == {id(p) for p in learn.model.parameters()}
    assert isinstance(learn.opt, OptimWrapper)


regressed = Regressed()  # a global, as in a notebook


def of_global(guided, hint):
    return called_by_it(guided, hint)


def called_by_it(guided, hint):
    return regressed(guided, hint)


class Plain:
    "No module, but it holds one, or what holds one"

    def __init__(self, held, use):
        self.held, self.use = held, use

    def __call__(self, guided, hint):
        return self.use(self.held)(guided, hint)

    def loss(self, guided, hint):
        return self(guided, hint)


def projected(weight):
    return lambda s, t: hint_loss(nn.functional.conv2d(s, weight), t)


HIDDEN = dict(
    object=lambda loss: Plain(loss, lambda held: held),
    method_of_object=lambda loss: Plain(loss, lambda held: held).loss,
    object_in_object=lambda loss: Plain(Plain(loss, lambda held: held), lambda held: held),
    object_in_closure=lambda loss: (lambda f: lambda s, t: f(s, t))(Plain(loss, lambda held: held)),
    list_in_object=lambda loss: Plain([[loss]], lambda held: held[0][0]),
    dict_in_closure=lambda loss: (lambda held: lambda s, t: held['loss'](s, t))({'loss': loss}),
    list_in_closure=lambda loss: (lambda held: lambda s, t: held[0](s, t))([loss]),
    list_in_partial=lambda loss: partial(lambda s, t, held: held[0](s, t), held=(loss,)),
    parameter_in_closure=lambda loss: projected(loss.matrix.weight),
    parameter_in_object=lambda loss: Plain([loss.matrix.weight], lambda held: projected(held[0])),
    closure=lambda loss: lambda s, t: 2 * loss(s, t),
    argument=lambda loss: partial(lambda loss, s, t: loss(s, t), loss),
    keyword=lambda loss: partial(lambda s, t, loss: loss(s, t), loss=loss),
    default=lambda loss: lambda s, t, loss=loss: loss(s, t),
    method_in_closure=lambda loss: (lambda f: lambda s, t: f(s, t))(loss.forward),
    global_name=lambda loss: of_global,
)


@pytest.mark.parametrize('hide', HIDDEN.values(), ids=HIDDEN)
def test_a_module_inside_a_function_is_refused_unless_frozen(data, hide):
    loss = Regressed()
    with pytest.raises(KdfastError, match='uses a (Regressed|Conv2d|Parameter) whose weights would not be trained'):
        learner(data, thin(3)).fit(1, 0.01, cbs=Match(teacher(), hide(loss), 1.0, 'stage2:stage2'))
    for module in (loss, regressed):
        module.requires_grad_(False)
    learner(data, thin(3)).fit(1, 0.01, cbs=Match(teacher(), hide(loss), 1.0, 'stage2:stage2'))
    regressed.requires_grad_(True)


def test_student_and_teacher_inside_a_function_are_no_loss(data):
    learn, net = learner(data, thin(3)), teacher()
    learn.fit(1, 0.01, cbs=Match(net, lambda s, t: (learn.model.head[2].weight.mean() + net.stem[0].weight.mean()) * 0))
    both = dict(student=[learn.model], teacher=net, learn=learn, opt=learn.opt)
    learn.fit(
        1, 0.01, cbs=Match(net, Plain(both, lambda held: lambda s, t: held['student'][0].head[2].weight.mean() * 0))
    )


TRAINED = '''"A loss that is trained, too."
from kdfast.all import *

class Regressed(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Conv2d(40, 84, 1)
    def forward(self, guided, hint): return hint_loss(self.matrix(guided), hint)

def main(run, epochs:int=2):
    teacher = run.needs('teacher')
    learn = run.learner(run.build('thin'))
    learn.fit_one_cycle(epochs, .1, cbs=Match(teacher, Regressed(), 1., 'stage2:stage2'))
    return learn
'''


def test_a_run_whose_loss_is_trained_goes_on_to_the_same_bits(data, study, tmp_path):
    from conftest import beside
    from test_resume import same, train

    from kdfast.runs.recipes import find_recipe

    (tmp_path / 'trained.py').write_text(TRAINED)
    recipe = find_recipe(str(tmp_path / 'trained.py'))
    whole = train(recipe, data, beside(study, tmp_path / 'whole', 'teacher'))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, beside(study, tmp_path / 'cut', 'teacher'), at=(1, 1, 4))
    assert same(train(recipe, data, tmp_path / 'cut'), whole)
