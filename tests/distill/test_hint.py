import warnings

import pytest
import torch
from conftest import equal
from fastai.vision.all import Callback, Learner, ProgressCallback, noop
from torch import nn

from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.regressor import regressor
from kdfast.models.front import front, front_back
from kdfast.models.study_networks import thin, wide


def copy(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


@pytest.fixture
def stage_one(data):
    torch.manual_seed(0)
    teacher, student, dls = wide(3), thin(3), loaders(data)
    matrix = regressor(front(student), front(teacher), dls.one_batch()[0])
    learn = Learner(dls, nn.Sequential(front(student), matrix), hint_loss)
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn, teacher, student, matrix


def test_the_gradient_reaches_the_first_convolution_and_the_regressor(stage_one):
    learn, teacher, student, matrix = stage_one

    class Look(Callback):
        def before_step(self):
            assert student.stem[0].weight.grad.abs().max() > 0 and matrix.weight.grad.abs().max() > 0
            self.learn.looked = True

    learn.fit(1, 1e-3, cbs=[Hint(front(teacher)), Look()])
    assert learn.looked


def test_the_front_learns_and_the_rest_stays(stage_one):
    learn, teacher, student, matrix = stage_one
    before = dict(front=copy(front(student)), back=copy(student[3:]), teacher=copy(teacher), matrix=copy(matrix))
    learn.fit(1, 1e-2, cbs=Hint(front(teacher)))
    assert not equal(before['front'], copy(front(student))) and not equal(before['matrix'], copy(matrix))
    assert equal(before['back'], copy(student[3:])) and equal(before['teacher'], copy(teacher))
    assert all(p.grad is None for p in [*student.parameters(), *teacher.parameters(), *matrix.parameters()])


def test_the_hint_is_the_teachers_feature_map_in_training_and_validation(stage_one):
    learn, teacher, _, _ = stage_one
    modes, hint = set(), front(teacher)

    class Look(Callback):
        order = 11

        def before_batch(self):
            with torch.no_grad():
                assert not hint.training and torch.allclose(self.yb[0], hint(self.xb[0]), atol=1e-5)
            modes.add(self.training)

    learn.fit(1, 1e-3, cbs=[Hint(hint), Look()])
    assert modes == {True, False}


def test_the_fit_loss_falls(stage_one):
    learn, teacher, *_ = stage_one
    learn.fit_one_cycle(6, 1e-2, cbs=Hint(front(teacher)))
    losses = [row[0] for row in learn.recorder.values]
    assert losses[-1] < losses[0] / 2


def test_a_regressor_maps_channels_and_changes_neither_front():
    student, teacher = front(thin()), front(wide())
    before = copy(student), copy(teacher)
    matrix = regressor(student, teacher, torch.randn(4, 3, 32, 32))
    assert matrix.weight.shape == (84, 40, 1, 1)
    assert equal(before[0], copy(student)) and equal(before[1], copy(teacher)) and student.training


def test_the_split_holds_every_parameter_once():
    net = thin()
    groups = front_back(net)
    held = [id(p) for group in groups for p in group]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    assert {id(p) for p in groups[0]} == {
        id(p) for name, p in net.named_parameters() if name.split('.')[0] in ('stem', 'stage1', 'stage2')
    }


# fit_hint


def test_stage_one_has_the_settings_of_the_learner_and_names_the_callbacks_that_it_leaves_out(data):
    class Own(Callback):
        "Of the Learner"

    class Passed(Callback):
        "Of both"

    settings = dict(lr=0.02, wd=0.03, wd_bn_bias=True, train_bn=False, moms=(0.9, 0.8, 0.9), model_dir='mine')
    learn = Learner(loaders(data), thin(3), nn.CrossEntropyLoss(), cbs=[Own(), Passed()], **settings)
    learn.add_cb(Distill(wide(3)))
    with pytest.warns(UserWarning, match=r'does not use the callbacks of the Learner \(Own\): pass those') as warned:
        stage_one = learn.fit_hint(1, wide(3), 'stage2', 'stage2', cbs=Passed())
    assert len(warned) == 1
    assert {name: getattr(stage_one, name) for name in settings if name != 'train_bn'} == {
        name: value for name, value in settings.items() if name != 'train_bn'
    }
    assert all(state.get('do_wd', True) for *_, state, _ in stage_one.opt.all_params())


def test_usual_callbacks_are_no_reason_for_a_warning(data):
    learn = Learner(loaders(data), thin(3), nn.CrossEntropyLoss())
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        learn.fit_hint(1, wide(3), 'stage2', 'stage2')
