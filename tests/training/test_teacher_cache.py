"The teacher's outputs are computed once and used only where they would be computed alike."

import shutil

import pytest
import torch
from conftest import FLOAT32, equal
from counted_teachers import CHECKED, Counting, asks, fit, kept
from fastai.vision.all import Callback, CutMix, MixUp

from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.distill.losses.features import at_loss
from kdfast.distill.losses.logits import dist_loss
from kdfast.distill.match import Match
from kdfast.models.folding import faster
from kdfast.training import teacher_cache
from kdfast.training.precision import Bfloat16
from kdfast.training.teacher_cache import TeacherCache, batch_key, cache_key


def test_a_second_run_uses_the_cache_and_ends_with_the_same_bits(data, tmp_path):
    folder, teacher = tmp_path / 'outputs', Counting()
    without = fit(data, teacher)
    assert teacher.asked == CHECKED + 2 * (9 + 1)
    first = fit(data, teacher, TeacherCache(folder, teacher))
    assert teacher.asked == 2 * CHECKED + 20 + 2 * 9 + 1  # the validation batch of the second epoch is known already
    second = fit(data, teacher, TeacherCache(folder, teacher))
    assert teacher.asked == 2 * CHECKED + 39
    assert equal(without, first) and equal(first, second)


def test_the_cache_holds_the_outputs_of_the_teacher(data, tmp_path):
    folder, teacher = tmp_path / 'outputs', Counting()
    fit(data, teacher, TeacherCache(folder, teacher), epochs=1)
    dls, known = loaders(data), kept(folder)
    teacher = faster(teacher.eval(), dls.one_batch()[:1])
    assert len(known) == 9 + 1
    for x, _ in [*dls.train, *dls.valid]:
        with torch.no_grad():
            assert (known[batch_key(torch.Tensor(x))] == teacher(torch.Tensor(x))).all()


class InPlace(Callback):
    "Changes the images where they lie"

    def before_batch(self):
        self.learn.xb[0].mul_(0.5)


@pytest.mark.parametrize('change', [MixUp, CutMix, InPlace])
def test_a_batch_that_another_callback_changes_is_not_cached(data, tmp_path, change):
    folder, teacher = tmp_path / 'outputs', Counting()
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher), change()) == CHECKED + 2 * 9 + (
        1 if change is not InPlace else 2
    )
    assert len(kept(folder)) == (change is not InPlace)  # the validation images, which are not mixed
    fit(data, teacher, TeacherCache(folder, teacher))
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher), change()) == CHECKED + 2 * 9 + (
        0 if change is not InPlace else 2
    )


class Scaled(Counting):
    "A teacher with a number in an attribute"

    scale = 1.0

    def forward(self, x):
        return self.scale * super().forward(x)


TEACHER_CHANGES = {
    'attribute': lambda teacher: setattr(teacher, 'scale', teacher.scale + 1),
    'in place': lambda teacher: [p.mul_(1.1) for p in teacher.parameters()],
    'data': lambda teacher: [p.data.mul_(1.1) for p in teacher.parameters()],
}


@pytest.mark.parametrize('change', TEACHER_CHANGES)
@pytest.mark.parametrize('cached', [False, True])
def test_outputs_of_a_teacher_that_changes_during_the_fit_are_its_own(data, tmp_path, change, cached):
    "Neither kept under the key of what it was, nor replaced by those that it had"
    folder, wrong = tmp_path / 'outputs', []

    class Changes(Callback):
        order = 80

        def after_batch(self):
            if self.training:
                with torch.no_grad():
                    expected = teacher(self.xb[0])
                    wrong.append(float((self.learn.distill.target - expected).abs().max() / expected.abs().max()))
                    if self.iter == 3:
                        TEACHER_CHANGES[change](teacher)

    teacher = Scaled()
    if cached:
        fit(data, teacher, TeacherCache(folder, teacher))
    before = kept(folder)
    fit(data, teacher, TeacherCache(folder, teacher), Changes())
    assert len(wrong) == 18 and max(wrong) < 1e-3
    assert len(kept(folder)) == (len(before) if cached else 4)


def test_losses_of_logits_share_the_cache(data, tmp_path):
    "With Distill, too; a loss of features needs the teacher's inside, and asks"
    folder, teacher = tmp_path / 'outputs', Counting()

    def match():
        return Match(teacher, dist_loss, 0.1)

    without = fit(data, teacher, taught=match)
    fit(data, teacher, TeacherCache(folder, teacher))
    before = teacher.asked
    assert equal(without, fit(data, teacher, TeacherCache(folder, teacher), taught=match)) and teacher.asked == before
    shutil.rmtree(folder)
    assert asks(
        teacher,
        data,
        teacher,
        TeacherCache(folder, teacher),
        taught=lambda: Match(teacher, at_loss, 0.1, 'net.stage2:stage2'),
    ) >= 2 * (9 + 1)  # and looks at the layer first
    assert not folder.exists()


def test_outputs_of_another_teacher_are_not_used(data, tmp_path):
    "In another's folder, or of other weights than it had"
    folder, teacher, other = tmp_path / 'outputs', Counting(), Counting(2)
    fit(data, teacher, TeacherCache(folder, teacher))
    assert asks(other, data, teacher, TeacherCache(folder, teacher), taught=lambda: Distill(other)) == CHECKED + 20
    assert asks(other, data, other, TeacherCache(folder, other)) == CHECKED + 2 * 9 + 1
    with torch.no_grad():
        next(teacher.parameters()).flatten()[0] += 1e-3
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher)) == CHECKED + 2 * 9 + 1


def more_threads(monkeypatch):
    monkeypatch.setattr('torch.get_num_threads', lambda: 7)


def other_version(monkeypatch):
    monkeypatch.setattr('torch.__version__', '2.99.0')


def other_copy(monkeypatch):
    monkeypatch.setattr(teacher_cache, 'VERSION', 99)


def other_processor(monkeypatch):
    monkeypatch.setattr('torch.cpu.get_capabilities', lambda: {'cpu_name': 'Z80'})


@pytest.mark.parametrize('change', [more_threads, other_version, other_copy, other_processor])
def test_outputs_computed_on_other_hardware_or_versions_are_not_used(data, tmp_path, monkeypatch, change):
    folder, teacher = tmp_path / 'outputs', Counting()
    fit(data, teacher, TeacherCache(folder, teacher))
    change(monkeypatch)
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher)) == CHECKED + 2 * 9 + 1


def test_outputs_in_another_precision_are_not_used(data, tmp_path):
    folder, teacher = tmp_path / 'outputs', Counting()
    without = fit(data, teacher, epochs=1)
    fit(data, teacher, TeacherCache(folder, teacher), Bfloat16(), epochs=1)
    before = teacher.asked
    assert (
        equal(without, fit(data, teacher, TeacherCache(folder, teacher), epochs=1))
        and teacher.asked == before + CHECKED + 9 + 1
    )
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher), Bfloat16(), epochs=1) == 0


@pytest.mark.parametrize('setting', FLOAT32, ids=str)
def test_the_key_is_of_the_precision_of_float32(setting, float32_setting):
    teacher = Counting()
    before = cache_key(teacher)
    float32_setting(*setting)
    assert cache_key(teacher) != before


def test_the_key_is_of_weights_buffers_and_structure():
    def key(change=lambda net: None):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten()
        )
        change(net)
        return cache_key(net)

    def weight(net):
        net[0].weight.data[0, 0, 0, 0] += 1e-6

    def statistic(net):
        net[1].running_var[0] = 2

    def constant(net):
        net[1].eps = 1e-3

    def activation(net):
        net[2] = torch.nn.GELU()

    def stride(net):
        net[0].stride = (2, 2)

    keys = [key(), *map(key, (weight, statistic, constant, activation, stride))]
    assert len(set(keys)) == 6 and key() == keys[0]


def test_the_key_of_a_batch_is_of_shape_type_and_layout_too():
    x = torch.arange(48.0).view(1, 3, 4, 4)
    like = [
        x,
        x.view(1, 3, 2, 8),
        x.view(3, 1, 4, 4),
        x.double(),
        x.contiguous(memory_format=torch.channels_last),
        x + 1,
    ]
    keys = {batch_key(o) for o in like}
    with torch.autocast('cpu', torch.bfloat16):
        keys.add(batch_key(x))
    assert len(keys) == 7 and batch_key(x.clone()) in keys


def test_the_outputs_of_a_teacher_with_hooks_are_not_cached(data, tmp_path):
    teacher = Counting()
    teacher.net.register_forward_hook(lambda module, inputs, output: 2 * output)
    for _ in range(2):
        found = asks(teacher, data, teacher, TeacherCache(tmp_path / 'outputs', teacher))
        assert found == CHECKED - 1 + 20  # the hook may choose layers: no batch norm is folded
