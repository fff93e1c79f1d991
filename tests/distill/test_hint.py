import subprocess
import sys
import warnings
from contextlib import nullcontext
from copy import deepcopy
from functools import partial

import fastai.callback.mixup
import pytest
import torch
from conftest import equal
from fastai.vision.all import (
    Adam,
    Callback,
    CancelFitException,
    CutMix,
    DataLoaders,
    Datasets,
    ItemGetter,
    Learner,
    OptimWrapper,
    ProgressCallback,
    noop,
)
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.distill import hint
from kdfast.distill.distill import Distill
from kdfast.distill.freeze import FreezeNorm
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import hint_loss
from kdfast.distill.mixup import MixUp
from kdfast.distill.regressor import regressor
from kdfast.models.front import front, front_back
from kdfast.models.study_networks import thin, wide


def quiet(learn):
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def small(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 3),
    )


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


class Stops(Callback):
    "Ends a fit after some gradients"

    def __init__(self, error):
        self.error = error

    def after_backward(self):
        if self.train_iter == 2:
            raise self.error


@pytest.mark.parametrize('error', [None, KeyboardInterrupt(), ValueError('no'), CancelFitException()])
@pytest.mark.parametrize('opt_func', [Adam, partial(OptimWrapper, opt=torch.optim.AdamW)])
def test_the_front_of_a_stage_one_that_was_interrupted_can_be_frozen(data, error, opt_func):
    learn = quiet(Learner(loaders(data), thin(3), nn.CrossEntropyLoss(), opt_func=opt_func))
    try:
        learn.fit_hint(1, wide(3), 'stage2', 'stage2', lr_max=0.01, cbs=Stops(error) if error else None)
    except (KeyboardInterrupt, ValueError):
        pass
    learn.freeze()
    before = copy(learn.model)
    learn.fit(1, 0.01, cbs=[Distill(wide(3)), FreezeNorm('stage2')])
    moved = {name.partition('.')[0] for name, t in copy(learn.model).items() if not torch.equal(t, before[name])}
    assert moved == {'stage3', 'head'}


@pytest.mark.parametrize('fails', [False, True])
def test_the_teacher_returns_to_its_device(data, monkeypatch, fails):
    "`meta` stands for the one where it was"

    class Fails(Callback):
        def after_batch(self):
            assert not fails, 'here'

    monkeypatch.setattr(hint, 'move', lambda network, device: torch.device('meta'))
    teacher, learn = wide(3), quiet(Learner(loaders(data), thin(3), nn.CrossEntropyLoss()))
    with pytest.raises(AssertionError, match='here') if fails else nullcontext():
        learn.fit_hint(1, teacher, 'stage2', 'stage2', cbs=Fails())
    assert {p.device.type for p in teacher.parameters()} == {'meta'}
    assert {p.device.type for p in learn.model.parameters()} == {'cpu'}


@pytest.mark.parametrize('stop', [False, True])
def test_stage_one_by_hand_leaves_no_gradient(stage_one, stop):
    learn, teacher, student, matrix = stage_one
    with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
        learn.fit(1, 1e-2, cbs=[Hint(front(teacher)), *([Stops(KeyboardInterrupt())] if stop else [])])
    assert all(p.grad is None for p in [*student.parameters(), *matrix.parameters()])


def test_the_groups_of_fit_hint_are_those_of_any_wrapped_model_and_hold_no_images(data, tmp_path):
    learn = quiet(Learner(loaders(data), thin(3), nn.CrossEntropyLoss(), path=tmp_path))
    learn.fit_hint(1, wide(3), 'stage2', 'stage2')
    expected = [[id(p) for p in group] for group in front_back(learn.model, 'stage2')]
    inner = deepcopy(learn.model)
    inner.stage1 = torch.compile(inner.stage1)
    for net in (learn.model, torch.compile(learn.model), nn.DataParallel(learn.model)):
        assert [[id(p) for p in group] for group in learn.splitter(net)] == expected
    assert [len(group) for group in learn.splitter(inner)] == [len(group) for group in expected]
    held = [cell.cell_contents for cell in learn.splitter.__closure__]
    assert all(type(value) in (str, bool) for value in [*held[0], *held[0].values()]) and len(held) == 1
    with pytest.raises(ValueError, match='no weight stem.0.weight that fit_hint trained'):
        learn.splitter(learn.model.stage3)


EXPORTED = '''
import sys
sys.modules['kdfast'] = None  # it cannot be imported
from fastai.vision.all import *
learn = load_learner(sys.argv[1])
learn.create_opt()
print(*map(len, learn.opt.param_lists))
'''


def test_an_exported_learner_is_loaded_without_kdfast_and_holds_no_images(tmp_path):
    images = torch.rand(16, 3, 8, 8)
    rows = Datasets(
        [(x, i % 3) for i, x in enumerate(images)], [[ItemGetter(0)], [ItemGetter(1)]], splits=2 * [range(16)]
    )
    learn = Learner(rows.dataloaders(bs=8, num_workers=0), small(4), nn.CrossEntropyLoss(), path=tmp_path)
    quiet(learn).fit_hint(1, small(8), '2', '2')
    learn.fit(1, 0.01, cbs=Distill(small(8)))
    learn.export('student.pkl')
    content = (tmp_path / 'student.pkl').read_bytes()
    assert not any(row.numpy().tobytes() in content for row in images[:, 0, 0])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', EXPORTED, tmp_path / 'student.pkl'], capture_output=True
    )
    assert done.stdout.split() == [b'4', b'2'], done.stderr


@pytest.mark.parametrize('mix', [MixUp, CutMix, fastai.callback.mixup.MixUp])
@pytest.mark.parametrize('labels', [torch.arange(24) % 3, torch.rand(24), torch.rand(24, 3) > 0.5])
def test_images_are_mixed_in_stage_one_whatever_their_labels_are(mix, labels):
    rows = list(zip(torch.rand(24, 3, 8, 8), labels))
    dls = DataLoaders.from_dsets(rows, rows, bs=8, num_workers=0, device='cpu')
    learn, mixer = quiet(Learner(dls, small(4), nn.CrossEntropyLoss())), mix()
    stage_one = learn.fit_hint(2, small(8), '2', '2', cbs=mixer)
    assert len(stage_one.recorder.losses) == 6 and stage_one.loss_func is hint_loss


def learner_on(images, student, loss_func):
    rows = [(x, i % 3) for i, x in enumerate(images)]
    dls = DataLoaders.from_dsets(rows, rows, bs=8, num_workers=0, device='cpu')
    return quiet(Learner(dls, student, loss_func))


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_teacher_and_student_may_have_different_precisions(dtype):
    teacher, images = small(8).to(dtype), torch.rand(16, 3, 8, 8)
    stage_one = learner_on(images, small(4), nn.CrossEntropyLoss()).fit_hint(1, teacher, '2', '2')
    assert {p.dtype for p in stage_one.model.parameters()} == {torch.float32}
    learner_on(images, small(8)[:3], hint_loss).fit(1, cbs=Hint(teacher[:3]))
    by_hand = learner_on(images, small(8)[:3], hint_loss)
    by_hand.add_cb(Hint(teacher[:3]))
    before = by_hand.validate()[0]
    with torch.no_grad():
        difference = by_hand.model.eval()(images) - teacher[:3].eval()(images.to(dtype)).float()
    assert before == pytest.approx(0.5 * difference.square().mean().item(), rel=1e-4)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_the_regressor_has_the_precision_of_the_student(dtype):
    learn = learner_on(torch.rand(16, 3, 8, 8, dtype=dtype), small(4).to(dtype), nn.CrossEntropyLoss())
    assert {p.dtype for p in learn.fit_hint(1, small(8), '2', '2').model.parameters()} == {dtype}


@pytest.mark.parametrize(
    'teacher',
    [nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), nn.Sequential(nn.Flatten(1), nn.Linear(3 * 16 * 16, 5))],
    ids=['channels', 'size'],
)
def test_a_teacher_for_other_images_is_refused_before_training(teacher):
    learn = learner_on(torch.rand(16, 3, 8, 8), small(4), nn.CrossEntropyLoss())
    before = copy(learn.model)
    message = "the teacher cannot compute the student's batch of 8×3×8×8"
    with pytest.raises(KdfastError, match=message):
        learn.fit_hint(1, teacher, '1', '2')
    assert equal(before, learn.model.state_dict())
    by_hand = learner_on(torch.rand(16, 3, 8, 8), small(4)[:3], hint_loss)
    with pytest.raises(KdfastError, match=message):
        by_hand.fit(1, cbs=Hint(teacher))
    by_hand.add_cb(Hint(teacher))
    with pytest.raises(KdfastError, match=message):
        by_hand.validate()
