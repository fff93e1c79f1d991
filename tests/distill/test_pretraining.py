"Features are distilled without labels, from a frozen network, also on images that have no labels."

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import equal
from PIL import Image
from torch import nn
from torchvision.models import get_model

from kdfast.core.errors import KdfastError
from kdfast.core.names import parse
from kdfast.data import load
from kdfast.data.arrays import Joined, Rows
from kdfast.data.cache_entries import entries
from kdfast.data.dataloaders import loaders
from kdfast.data.unlabeled import load_unlabeled, with_unlabeled
from kdfast.distill.losses.features import feature_loss
from kdfast.models import frozen
from kdfast.models.embedding import embedding, projected, standardized
from kdfast.models.frozen import frozen_network
from kdfast.models.study_networks import thin, wide
from kdfast.runs.run_dir import RunDir

CODE = """
from torch import nn

def net(n_classes, width=6):
    conv = nn.Conv2d(3, width, 3, 2, 1)
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, n_classes))
"""


def draw_images(folder, n, seed, side=8):
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f'{i}.png')


def test_the_loss_is_that_of_the_paper():
    "Half the square up to a difference of 2, divided by 2; from there on linear"
    student, teacher = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[0.5, 1.0, 1.0]])
    assert float(feature_loss(student, teacher)) == pytest.approx((0.5 * 0.5**2 / 2 + 0 + (4 - 0.5 * 2)) / 3)


class ByKeyword(nn.Module):
    "Calls its layers by keyword"

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(input=self.norm(input=self.conv(input=x)).mean((2, 3)))


@pytest.mark.parametrize(
    'build,width',
    [
        (ByKeyword, 4),
        (lambda: thin(3), None),
        (lambda: wide(3), None),
        (lambda: get_model('resnet18', num_classes=3), 512),
        (lambda: get_model('mobilenet_v3_small', num_classes=3), 1024),
        (lambda: get_model('vgg11', num_classes=3), 4096),
        (lambda: timm.create_model('vit_tiny_patch16_224', img_size=32, depth=2, num_classes=3), 192),
        (lambda: timm.create_model('swin_tiny_patch4_window7_224', img_size=32, num_classes=3), 768),
    ],
)
def test_features_are_what_the_classifier_gets(build, width):
    "So that the classifier of these features is the network; the network stays as it was"
    torch.manual_seed(0)
    network, x = build().eval(), torch.randn(2, 3, 32, 32)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    found = embedding(network, x)
    with torch.no_grad():
        features, logits = found(x), network(x)
        torch.testing.assert_close(found.classifier(features), logits)
    assert width in (None, features.shape[1])
    assert equal(before, network.state_dict()) and not any(m._forward_pre_hooks for m in network.modules())


def test_a_network_without_a_linear_classifier_is_refused():
    for network in (
        get_model('squeezenet1_1', num_classes=3),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3), nn.Softmax(1)),
    ):
        with pytest.raises(KdfastError, match='does not end with a linear classifier'):
            embedding(network, torch.randn(2, 3, 64, 64))


def test_targets_are_standardized_and_the_student_is_projected():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    student, teacher = embedding(thin(3), x), embedding(wide(3), x)
    with torch.no_grad():
        target = standardized(teacher)(x)
        assert projected(student, teacher)(x).shape == target.shape
    torch.testing.assert_close(target.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(1, unbiased=False), torch.ones(2), atol=1e-3, rtol=0)


VIT = 'timm:vit_tiny_patch16_224'


@pytest.mark.parametrize(
    'name,height,width',
    [
        ('timm:resnet18', 224, 224),
        (f'{VIT}(img_size=48)', 48, 48),
        (f'{VIT}(img_size=(48, 32))', 48, 32),
        (f'{VIT}(img_size=[32, 48])', 32, 48),
    ],
)
def test_a_frozen_network_sees_images_as_its_library_publishes(tmp_path, data, name, height, width):
    named = parse(name)
    source = timm.create_model(named.what, num_classes=1000, **named.keywords)
    torch.save(source.state_dict(), tmp_path / 'w.pth')
    found = frozen_network(f'{name}@{tmp_path / "w.pth"}', data)
    seen = []
    found.get_submodule('network').register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = torch.full((1, 3, 8, 8), 0.25)
    with torch.no_grad():
        found((pixels - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1))
    mean, std = (torch.tensor(source.pretrained_cfg[key]).view(3, 1, 1) for key in ('mean', 'std'))
    torch.testing.assert_close(seen[0], ((0.25 - mean) / std).expand(1, 3, height, width), rtol=1e-4, atol=1e-4)
    assert equal(
        {n: t for n, t in found.get_submodule('network').state_dict().items() if 'head' not in n and 'fc' not in n},
        {n: t for n, t in source.state_dict().items() if 'head' not in n and 'fc' not in n},
    )


@pytest.mark.parametrize('published,seen', [((96, 64), (96, 64)), ((448, 224), (224, 112)), ((64, 256), (56, 224))])
def test_images_keep_the_shape_that_a_library_publishes(tmp_path, data, monkeypatch, published, seen):
    torch.save(timm.create_model('resnet18', num_classes=3).state_dict(), tmp_path / 'w.pth')
    way = dict(size=published, mean=data.mean, std=data.std)
    monkeypatch.setattr(frozen, 'published_preparations', lambda named: [way])
    assert frozen_network(f'timm:resnet18@{tmp_path / "w.pth"}', data).network.build_info['size'] == list(seen)


@pytest.mark.parametrize('size', ['"a"', '()', '(0, 32)', '-1', 'None', '{}', '1e999'])
def test_a_size_that_is_none_is_refused(tmp_path, data, size):
    torch.save({}, tmp_path / 'w.pth')
    with pytest.raises(KdfastError, match='img_size is .*: expected a number, or height and width'):
        frozen_network(f'{VIT}(img_size={size})@{tmp_path / "w.pth"}', data)


def test_joined_arrays_are_read_as_one():
    draw = np.random.default_rng(0)
    first, second = (draw.integers(0, 256, (n, 2, 2, 3), dtype=np.uint8) for n in (5, 4))
    both = Joined(Rows(first, np.arange(5)), second)
    whole = np.concatenate([first, second])
    for index in (0, 4, 5, 8, -1, [7, 0, 5], np.array([1, 8]), slice(3, 7), [], np.arange(9) % 2 == 0):
        assert np.array_equal(both[index], whole[index])
    assert len(both) == 9 and both.shape == whole.shape and np.array_equal(np.asarray(both), whole)


@pytest.fixture
def more(tmp_path):
    "Nine further images in subfolders that mean nothing"
    draw_images(tmp_path / 'more' / 'a', 5, 7)
    draw_images(tmp_path / 'more' / 'b' / 'c', 4, 8)
    (tmp_path / 'more' / 'notes.txt').write_text('x')
    return tmp_path / 'more'


def test_images_without_labels_are_seen_in_training_and_nothing_else(data, more):
    found = with_unlabeled(data, str(more))
    assert len(found.train[0]) == len(data.train[0]) + 9 and len(found.train[1]) == len(found.train[0])
    assert np.array_equal(found.train[0][: len(data.train[0])], data.train[0]) and found.valid is data.valid
    assert (found.mean, found.std, found.classes) == (data.mean, data.std, data.classes)
    assert loaders(found).train.n == len(found.train[0]) and loaders(found).train.bs == loaders(data).train.bs


@pytest.mark.parametrize(
    'what,said', [('missing', 'no such folder'), ('empty', 'no image found'), ('large', 'are 9×9')]
)
def test_what_cannot_be_joined_is_refused(data, tmp_path, what, said):
    if what != 'missing':
        (tmp_path / what).mkdir()
    if what == 'large':
        draw_images(tmp_path / what, 3, 0, side=9)
    with pytest.raises(KdfastError, match=said):
        with_unlabeled(data, str(tmp_path / what))


def test_deep_images_without_labels_are_scaled_as_those_with_labels(data, tmp_path):
    "By the range of the data set, not by their own"
    (tmp_path / 'deep').mkdir()
    values = np.full((8, 8), 1000, np.uint16)
    Image.fromarray(values).save(tmp_path / 'deep' / 'a.png')
    found, _ = load_unlabeled(str(tmp_path / 'deep'), replace(data, range=[0, 4000]))
    assert abs(int(found.max()) - 64) <= 1 and int(found.min()) == int(found.max())


def test_broken_images_without_labels_are_refused_unless_the_user_skips_them(data, more):
    (more / 'broken.png').write_bytes((more / 'a' / '0.png').read_bytes()[:60])
    with pytest.raises(KdfastError, match='cannot read broken.png'):
        load_unlabeled(str(more), data)
    images, _ = load_unlabeled(str(more), replace(data, load_arguments=dict(skip_broken=True)))
    assert len(images) == 9


def test_a_finished_run_with_other_images_without_labels_is_another(kdfast, images, more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('nets.py').write_text(CODE)
    space = {}
    exec(CODE, space)
    torch.save(space['net'](5, 12).state_dict(), 'teacher.pth')
    named = '--teacher', 'nets.py:net(width=12)@teacher.pth', '--student', 'nets.py:net', '--unlabeled', more
    assert kdfast('run', 'pretrain', *named, '--epochs', 1, '--data', images).status == 0
    assert kdfast('run', 'pretrain', *named, '--epochs', 1, '--data', images).status == 0
    draw_images(more / 'a', 6, 9)
    done = kdfast('run', 'pretrain', *named, '--epochs', 1, '--data', images)
    assert done.status == 2 and 'other images without labels' in done.err
    states = {e.state for e in entries() if e.name == 'more, without labels' and Path(e.source) == more}
    assert states == {'current', 'stale'}
    with pytest.raises(KdfastError, match='holds images without labels'):
        load(str(next(e.folder for e in entries() if e.name == 'more, without labels')))


def test_pretraining_and_fine_tuning_run_end_to_end(kdfast, images, more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('nets.py').write_text(CODE)
    space = {}
    exec(CODE, space)
    torch.manual_seed(0)
    torch.save(space['net'](5, 12).state_dict(), 'teacher.pth')
    named = '--teacher', 'nets.py:net(width=12)@teacher.pth', '--student', 'nets.py:net', '--unlabeled', more
    done = kdfast('run', 'pretrain', *named, '--epochs', 2, '--data', images)
    assert done.status == 0, done.err
    (folder,) = Path('runs/tiny').glob('pretrain*/0')
    result = json.loads((folder / 'result.json').read_text())
    losses = [float(row['train_total']) for row in RunDir(folder).metrics()]
    assert result['valid_accuracy'] is None and losses[-1] < losses[0]
    done = kdfast('study', 'baseline', 'finetune', '--seeds', 1, *named, '--epochs', 1, '--data', images, '--jobs', 1)
    assert done.status == 0, done.err
    assert 'finetune' in done.out


def test_a_network_that_was_not_trained_is_trained_first(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr('kdfast.training.run.Run.train', lambda self, name, given: seen.append((name, given)) or 1 / 0)
    kdfast('run', 'pretrain', '--data', images)
    assert seen and seen[0] == ('teacher', dict(network='wide', optimizer='muon'))
