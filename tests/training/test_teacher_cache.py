import shutil
from collections import Counter

import pytest
import torch
from conftest import beside, equal, weights
from fastai.vision.all import Callback, CrossEntropyLossFlat, CutMix, Learner, MixUp, ProgressCallback, noop

from kdfast.data.dataloaders import loaders
from kdfast.distill.distill import Distill
from kdfast.distill.losses.features import at_loss
from kdfast.distill.losses.logits import dist_loss
from kdfast.distill.match import Match
from kdfast.models.folding import faster
from kdfast.models.study_networks import thin, wide
from kdfast.training import teacher_cache
from kdfast.training.precision import Bfloat16
from kdfast.training.teacher_cache import TeacherCache, batch_key, cache_key, read_outputs

CHECKED = 2  # passes in a fit that asks, before its first batch: the original's and that of its faster copy


class Counting(torch.nn.Module):
    "A teacher that counts how often it, or a copy of it, is asked"

    times = Counter()

    def __init__(self, seed=1):
        super().__init__()
        torch.manual_seed(seed)
        self.net, self.id = wide(3), id(self)

    def forward(self, x):
        self.times[self.id] += 1
        return self.net(x)

    @property
    def asked(self):
        return self.times[self.id]


def fit(data, teacher, *cbs, epochs=2, taught=None):
    torch.manual_seed(0)
    learn = Learner(loaders(data), thin(3), CrossEntropyLossFlat(), cbs=[*cbs])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop

    class Epoch(Callback):
        def before_epoch(self):
            self.dls.train.epoch = self.epoch

    learn.fit(epochs, 0.01, cbs=[taught() if taught else Distill(teacher), Epoch()])
    return {name: t.clone() for name, t in learn.model.state_dict().items()}


def asks(teacher, *arguments, **named):
    "How often a fit asks the teacher"
    before = teacher.asked
    fit(*arguments, **named)
    return teacher.asked - before


def kept(folder):
    return {batch: logits for file in folder.glob('*.safetensors') for batch, logits in read_outputs(file).items()}


def test_the_second_run_asks_nothing_and_ends_with_the_same_bits(data, tmp_path):
    folder, teacher = tmp_path / 'outputs', Counting()
    without = fit(data, teacher)
    assert teacher.asked == CHECKED + 2 * (9 + 1)
    first = fit(data, teacher, TeacherCache(folder, teacher))
    assert teacher.asked == 2 * CHECKED + 20 + 2 * 9 + 1  # the validation batch of the second epoch is known already
    second = fit(data, teacher, TeacherCache(folder, teacher))
    assert teacher.asked == 2 * CHECKED + 39
    assert equal(without, first) and equal(first, second)


def test_what_is_kept_is_what_the_teacher_says(data, tmp_path):
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
def test_a_batch_that_another_callback_changes_is_neither_known_nor_kept(data, tmp_path, change):
    folder, teacher = tmp_path / 'outputs', Counting()
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher), change()) == CHECKED + 2 * 9 + (
        1 if change is not InPlace else 2
    )
    assert len(kept(folder)) == (change is not InPlace)  # the validation images, which are not mixed
    fit(data, teacher, TeacherCache(folder, teacher))
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher), change()) == CHECKED + 2 * 9 + (
        0 if change is not InPlace else 2
    )


def test_losses_of_logits_share_what_is_known(data, tmp_path):
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


def test_another_teachers_outputs_are_not_taken(data, tmp_path):
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
def test_outputs_that_were_computed_otherwise_are_not_taken(data, tmp_path, monkeypatch, change):
    folder, teacher = tmp_path / 'outputs', Counting()
    fit(data, teacher, TeacherCache(folder, teacher))
    change(monkeypatch)
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher)) == CHECKED + 2 * 9 + 1


def test_outputs_in_another_precision_are_not_taken(data, tmp_path):
    folder, teacher = tmp_path / 'outputs', Counting()
    without = fit(data, teacher, epochs=1)
    fit(data, teacher, TeacherCache(folder, teacher), Bfloat16(), epochs=1)
    before = teacher.asked
    assert (
        equal(without, fit(data, teacher, TeacherCache(folder, teacher), epochs=1))
        and teacher.asked == before + CHECKED + 9
    )  # validation is in float32 in both
    assert asks(teacher, data, teacher, TeacherCache(folder, teacher), Bfloat16(), epochs=1) == 0


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


def test_a_teacher_with_hooks_says_what_nobody_can_know(data, tmp_path):
    teacher = Counting()
    teacher.net.register_forward_hook(lambda module, inputs, output: 2 * output)
    for _ in range(2):
        assert asks(teacher, data, teacher, TeacherCache(tmp_path / 'outputs', teacher)) == CHECKED + 20


# Files


def test_files_are_added_and_none_is_written_twice(data, tmp_path, monkeypatch):
    "The outputs leave memory as they are written; two runs at once keep a batch once"
    folder, teacher = tmp_path / 'outputs', Counting()
    monkeypatch.setattr(teacher_cache, 'CHUNK', 4 * 8 * 3 * 4)  # bytes of four training batches
    one, other = TeacherCache(folder, teacher), TeacherCache(folder, teacher)
    fit(data, teacher, one, epochs=1)
    files = {file: file.stat().st_mtime_ns for file in folder.glob('*.safetensors')}
    assert len(files) == 3 and not one.new

    class AtOnce(Callback):
        def before_train(self):
            other.known.clear(), other.files.clear()  # as if it had begun before the first had written

    assert asks(teacher, data, teacher, other, AtOnce(), epochs=1) == CHECKED + 4  # until it writes itself
    assert {file: file.stat().st_mtime_ns for file in folder.glob('*.safetensors')} == files
    fit(data, teacher, TeacherCache(folder, teacher), epochs=2)
    assert files.items() < {file: file.stat().st_mtime_ns for file in folder.glob('*.safetensors')}.items()


def test_the_limit_is_that_of_all_files(data, tmp_path, monkeypatch):
    "What is known under another key makes room; nothing else does"
    folder, teacher, other = tmp_path / 'outputs', Counting(), Counting(2)
    fit(data, teacher, TeacherCache(folder, teacher), epochs=1)
    (first,) = folder.glob('*.safetensors')
    monkeypatch.setattr(teacher_cache, 'LIMIT', first.stat().st_size + 10)
    fit(data, teacher, TeacherCache(folder, teacher), epochs=2)
    assert (
        list(folder.glob('*.safetensors')) == [first]
        and asks(teacher, data, teacher, TeacherCache(folder, teacher), epochs=1) == 0
    )
    fit(data, other, TeacherCache(folder, other), epochs=1)
    (second,) = folder.glob('*.safetensors')
    assert second != first and asks(other, data, other, TeacherCache(folder, other), epochs=1) == 0


def test_a_damaged_file_is_removed_and_the_teacher_computes_again(data, tmp_path, capsys):
    folder, teacher = tmp_path / 'outputs', Counting()
    without = fit(data, teacher, TeacherCache(folder, teacher))
    (file,) = folder.glob('*.safetensors')
    content = bytearray(file.read_bytes())
    content[-2] ^= 64
    file.write_bytes(content)
    before = teacher.asked
    assert equal(without, fit(data, teacher, TeacherCache(folder, teacher))) and teacher.asked == before + CHECKED + 19
    assert f'{file} is damaged and was deleted' in capsys.readouterr().err and len(kept(folder)) == 19


def test_what_older_versions_kept_is_not_read_and_goes(data, tmp_path):
    (tmp_path / 'outputs.npz').write_bytes(b'whatever')
    teacher = Counting()
    assert (
        asks(teacher, data, teacher, TeacherCache(tmp_path / 'outputs', teacher)) == CHECKED + 19
        and not (tmp_path / 'outputs.npz').exists()
    )


def test_a_fit_that_fails_leaves_nothing(data, tmp_path):
    teacher = Counting()
    cache = TeacherCache(tmp_path / 'outputs', teacher)

    class Fail(Callback):
        def before_step(self):
            raise RuntimeError('no luck')

    with pytest.raises(RuntimeError):
        fit(data, teacher, cache, Fail())
    assert cache.user is None and not cache.new and not (tmp_path / 'outputs').exists()


@pytest.mark.parametrize('recipe', ['kd', 'exp1'])  # a student trained as a whole, and one with a frozen front
def test_a_recipe_ends_equal_without_the_outputs(study, kdfast, images, tmp_path, recipe):
    "exp1 was the first to ask the teacher; here every recipe asks afresh"
    beside(study, tmp_path, 'teacher', 'hint')
    shutil.rmtree(tmp_path / 'tiny' / 'teacher' / '0' / 'outputs')
    assert kdfast('run', recipe, '--data', images, '--runs', tmp_path).status == 0
    assert equal(weights(tmp_path / 'tiny' / recipe / '0'), weights(study / recipe / '0'))
