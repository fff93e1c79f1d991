"It stays fastai: the callbacks on a vision_learner and ImageDataLoaders, next to what else people use there."

import warnings

import pytest
import torch
from conftest import equal
from fastai.callback.tensorboard import TensorBoardCallback
from fastai.vision.all import (
    BnFreeze,
    Callback,
    CutMix,
    GradientAccumulation,
    ImageDataLoaders,
    MixUp,
    ProgressCallback,
    ResBlock,
    SaveModelCallback,
    XResNet,
    accuracy,
    aug_transforms,
    load_learner,
    noop,
    resnet18,
    vision_learner,
)
from test_hint import copy
from torchvision.models import get_model

from kdfast.core.errors import KdfastError
from kdfast.distill.distill import Distill
from kdfast.distill.losses.features import at_loss
from kdfast.distill.match import Match

warnings.filterwarnings('ignore')


@pytest.fixture(scope='module')
def dls(images):
    return ImageDataLoaders.from_folder(images, valid='valid', bs=12, num_workers=0, batch_tfms=aug_transforms(size=32))


def narrow(pretrained):
    "A small residual network of fastai"
    return XResNet(ResBlock, 1, [1, 1, 1, 1], widen=0.25)


@pytest.fixture
def learn(dls, tmp_path):
    torch.manual_seed(0)
    learn = vision_learner(dls, narrow, pretrained=False, normalize=False, metrics=accuracy, path=tmp_path)
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


@pytest.fixture(scope='module')
def teacher():
    torch.manual_seed(1)
    return get_model('shufflenet_v2_x0_5', num_classes=3).eval()


KINDS = {  # every callback of kdfast that a user may pass to a fit
    'Distill': lambda teacher: Distill(teacher),
    'Match': lambda teacher: Match(teacher, at_loss, 10.0, 'stage3:0.5'),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'beside',
    [
        MixUp,
        CutMix,
        lambda: GradientAccumulation(24),
        lambda: SaveModelCallback(),
        lambda: TensorBoardCallback(trace_model=False, log_preds=False),
    ],
)
def test_it_trains_beside_what_people_use(learn, teacher, kind, beside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = copy(teacher)
    learn.fit_one_cycle(1, 1e-3, cbs=[beside(), KINDS[kind](teacher)])
    assert equal(before, copy(teacher)) and torch.isfinite(torch.tensor(learn.recorder.values[-1])).all()


def test_the_teacher_sees_the_mixed_image(learn, teacher):
    shown = []

    class Look(Callback):
        order = 50

        def before_step(self):
            with torch.no_grad():
                expected = teacher(self.xb[0])
            shown.append((self.learn.distill.target - expected).abs().max() < 1e-3)

    learn.fit(1, 1e-3, cbs=[MixUp(), Distill(teacher), Look()])
    assert shown and all(shown)


@pytest.mark.parametrize('kind', KINDS)
def test_lr_find_fine_tune_predictions_and_summary_go_on_working(learn, teacher, kind):
    learn.add_cb(KINDS[kind](teacher))
    before = copy(learn.model)
    assert learn.lr_find(show_plot=False, num_it=12).valley > 0
    assert equal(before, copy(learn.model))
    learn.fine_tune(1, freeze_epochs=1)
    preds, _ = learn.get_preds()
    learn.show_results(max_n=2)
    assert preds.shape == (36, 3) and 'Total params' in learn.summary()


def test_validation_keeps_the_tasks_own_loss(learn, teacher):
    losses = []
    for cbs in ([], [Distill(teacher, alpha=0.9)], [Match(teacher, at_loss, 10.0, 'stage3:0.5')]):
        with learn.added_cbs(cbs):
            losses.append(learn.validate())
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize('kind', KINDS)
def test_an_export_holds_no_teacher(learn, teacher, kind, tmp_path):
    learn.export(tmp_path / 'without.pkl')
    learn.fit(1, 1e-3, cbs=KINDS[kind](teacher))
    learn.export(tmp_path / 'after.pkl')
    sizes = [(tmp_path / name).stat().st_size for name in ('without.pkl', 'after.pkl')]
    assert sizes[1] < 1.2 * sizes[0]
    assert load_learner(tmp_path / 'after.pkl').dls.vocab == learn.dls.vocab


def test_a_learner_is_taken_where_a_network_is_meant_and_an_architecture_is_not(learn, dls):
    other = vision_learner(dls, narrow, pretrained=False, normalize=False)
    assert Distill(other).teacher is other.model and Match(other, at_loss).teacher is other.model
    with pytest.raises(TypeError, match='found the function resnet18; call it first'):
        Distill(resnet18)


def test_stage_one_on_any_learner_then_a_front_that_is_held_still(learn, teacher):
    "vision_learner's body is the Sequential 0, its head 1; layer 0.5 is the second stage"
    start = copy(learn.model)
    stage_one = learn.fit_hint(2, teacher, hint='stage2', guided='0.5', lr_max=3e-3)
    losses = [row[0] for row in stage_one.recorder.values]
    now = copy(learn.model)
    moved = {name.split('.')[0] + '.' + name.split('.')[1] for name in now if not (now[name] == start[name]).all()}
    assert losses[-1] < losses[0] and moved == {'0.0', '0.1', '0.2', '0.4', '0.5'}
    learn.freeze()
    learn.fit_one_cycle(1, 1e-2, cbs=[Distill(teacher), BnFreeze()])
    after = copy(learn.model)

    def part(state, inside):
        return {
            name: t for name, t in state.items() if (name.startswith(('0.0', '0.1', '0.2', '0.4', '0.5'))) == inside
        }

    assert equal(part(now, True), part(after, True)) and not equal(part(now, False), part(after, False))
    learn.unfreeze()
    learn.fit_one_cycle(1, 1e-2, cbs=Distill(teacher))
    assert not equal(part(now, True), part(copy(learn.model), True))


def test_stage_one_names_a_layer_that_is_not_there_and_shapes_that_do_not_meet(learn, teacher):
    with pytest.raises(KdfastError, match='has no layer stage9'):
        learn.fit_hint(1, teacher, hint='stage9', guided='0.5')
    with pytest.raises(KdfastError, match='no regressor maps guided features 128×1×1 to a hint 48×4×4'):
        learn.fit_hint(1, teacher, hint='stage2', guided='0.7')
