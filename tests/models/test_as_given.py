"A trained classifier is used as it is: its normalization, image size and classes are found out."

import json
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from kdfast.core.errors import KdfastError
from kdfast.core.names import parse
from kdfast.data.dataset import assemble
from kdfast.models import as_given as module
from kdfast.models.as_given import as_given
from kdfast.models.preparation import NORMALIZATIONS, possible_preparations
from kdfast.models.saved import build_for, save_network
from kdfast.stats.chance import above_chance

CODE = """
from torch import nn

def net(n_classes, side=8):
    return nn.Sequential(nn.AvgPool2d(side // 4), nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, n_classes))
"""
STEPS = 60


def colored(n=90):
    "Images of three classes that differ in brightness and contrast"
    draw = np.random.default_rng(0)
    labels = np.arange(n) % 3
    noise = draw.normal(size=(n, 16, 16, 3)) * np.array([10, 25, 40])[labels, None, None, None]
    base = np.array([90, 120, 150])[labels, None, None, None]
    return np.clip(base + noise + draw.normal(size=(n, 1, 1, 3)) * 15, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope='module')
def photos():
    images, labels = colored()
    return assemble('photos', ['ape', 'bee', 'cat'], (images[:60], labels[:60]), (images[60:], labels[60:]))


def trained(folder, data, side, mean, std, classes=None):
    "The name of a network that was trained on images of this size and normalization"
    (folder / 'nets.py').write_text(CODE)
    space = {}
    exec(CODE, space)
    torch.manual_seed(0)
    network = space['net'](3, side)
    x = torch.from_numpy(data.train[0]).movedim(-1, 1) / 255
    x = interpolate(x, (side, side), mode='bilinear', antialias=True) if side != 16 else x
    x = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    order = torch.tensor([(classes or data.classes).index(c) for c in data.classes])
    y = order[torch.as_tensor(data.train[1])]
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(STEPS):
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(network.state_dict(), folder / 'net.pth')
    return f'{folder / "nets.py"}:net(side={side})@{folder / "net.pth"}', network


@pytest.mark.parametrize('side,normalization', product([16, 32, 64], [*NORMALIZATIONS, 'as photos']))
def test_size_and_normalization_of_its_training_are_found(tmp_path, photos, side, normalization):
    mean, std = NORMALIZATIONS.get(normalization, (photos.mean, photos.std))
    name, network = trained(tmp_path, photos, side, mean, std)
    given = as_given(name, photos)
    assert given.network.build_info['size'] == [side, side]
    assert given.network.build_info['mean'] == pytest.approx(mean)
    assert given.network.build_info['std'] == pytest.approx(std)
    assert f'{side}×{side} normalized {normalization}' in given.note
    raw = torch.from_numpy(photos.valid[0]).movedim(-1, 1) / 255

    def normalized(x, mean, std):
        return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    with torch.no_grad():
        scaled = raw if side == 16 else interpolate(raw, (side, side), mode='bilinear', antialias=True)
        expected = network.eval()(normalized(scaled, mean, std))
        found = given.adapted(normalized(raw, photos.mean, photos.std))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_classes_that_a_library_publishes_are_brought_to_the_datas_order(tmp_path, photos, monkeypatch):
    "The data has some of the library's classes, in another order and spelling"
    library = ['Cat', 'dodo', 'APE', 'bee']
    monkeypatch.setattr(module, 'published_classes', lambda name: [library])
    monkeypatch.setattr(module, 'LIBRARIES', (str(tmp_path / 'nets.py'),))
    (tmp_path / 'nets.py').write_text(CODE)
    space = {}
    exec(CODE, space)
    network = space['net'](4, 16)
    torch.save(network.state_dict(), tmp_path / 'net.pth')
    given = as_given(f'{tmp_path / "nets.py"}:net(side=16)@{tmp_path / "net.pth"}', photos)
    assert given.network.build_info['classes'] == ['cat', 'dodo', 'ape', 'bee']
    built = given.network.build_info
    pixels = torch.rand(2, 3, 16, 16)

    def normalized(mean, std):
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    with torch.no_grad():
        found = given.adapted(normalized(photos.mean, photos.std))
        expected = network(normalized(built['mean'], built['std']))[:, [2, 3, 0]]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_for_other_classes_and_no_weights_are_refused(tmp_path, photos):
    (tmp_path / 'nets.py').write_text(CODE)
    space = {}
    exec(CODE, space)
    torch.save(space['net'](7, 16).state_dict(), tmp_path / 'net.pth')
    name = f'{tmp_path / "nets.py"}:net(side=16)'
    with pytest.raises(KdfastError, match='not for the 3 classes of photos'):
        as_given(f'{name}@{tmp_path / "net.pth"}', photos)
    with pytest.raises(KdfastError, match='is not trained: name its weights'):
        as_given(name, photos)


def test_weights_that_kdfast_wrote_say_how_images_were_prepared_and_labeled(tmp_path, photos):
    (tmp_path / 'nets.py').write_text(CODE)
    network, _ = build_for(f'{tmp_path / "nets.py"}:net(side=16)', photos)
    network.build_info |= dict(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], classes=['cat', 'ape', 'bee'])
    save_network(network, tmp_path / 'net.safetensors')
    name = f'{tmp_path / "nets.py"}:net(side=16)@{tmp_path / "net.safetensors"}'
    found = as_given(name, photos).network.build_info
    assert (found['mean'], found['std']) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert found['classes'] == ['cat', 'ape', 'bee']
    network.build_info['labels'] = 'several'
    save_network(network, tmp_path / 'net.safetensors')
    with pytest.raises(KdfastError, match='their outputs mean different things'):
        as_given(name, photos)


def test_a_network_that_takes_no_such_images_is_refused(tmp_path, photos):
    gray = CODE.replace('Linear(48, 64)', 'Linear(16, 64)')  # of one channel
    (tmp_path / 'nets.py').write_text(gray)
    space = {}
    exec(gray, space)
    torch.save(space['net'](3, 16).state_dict(), tmp_path / 'net.pth')
    with pytest.raises(KdfastError, match='in any size that was tried'):
        as_given(f'{tmp_path / "nets.py"}:net(side=16)@{tmp_path / "net.pth"}', photos)


def test_a_network_that_returns_probabilities_is_refused(tmp_path, photos):
    soft = CODE.replace('n_classes))', 'n_classes), nn.Softmax(1))')
    (tmp_path / 'nets.py').write_text(soft)
    space = {}
    exec(soft, space)
    torch.save(space['net'](3, 16).state_dict(), tmp_path / 'net.pth')
    with pytest.raises(KdfastError, match='returns probabilities'):
        as_given(f'{tmp_path / "nets.py"}:net(side=16)@{tmp_path / "net.pth"}', photos)


@pytest.mark.parametrize('shares', [[0.5, 0.5], [0.9, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1] * 10])
def test_predictions_by_chance_are_noticed_whatever_the_shares_of_the_classes(shares):
    "At a level of 1 %, also where most predictions are right because most images are of one class"
    draw, k, n = np.random.default_rng(0), len(shares), 400
    above, known = 0, 0
    for _ in range(400):
        actual = draw.choice(k, n, p=shares)
        guessed = draw.choice(k, n, p=draw.dirichlet([1] * k))
        above += above_chance(matrix_of(actual, guessed, k))
        knows = np.where(draw.random(n) < 0.4, actual, guessed)
        known += above_chance(matrix_of(actual, knows, k))
    assert above <= 12 and known >= 395
    assert not above_chance(matrix_of(actual, np.zeros(n, int), k))


def matrix_of(actual, predicted, k):
    return np.bincount(actual * k + predicted, minlength=k**2).reshape(k, k)


def test_a_student_is_distilled_from_a_teacher_as_it_is(kdfast, data, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, _ = trained(tmp_path, data_of(data), 32, *NORMALIZATIONS['as ImageNet'])
    arguments = '--teacher', name, '--teacher-epochs', 0, '--epochs', 1, '--data', images, '--json'
    done = kdfast('run', 'kd', *arguments)
    assert done.status == 0, done.err
    assert 'used as it is, on images of 32×32 normalized as ImageNet' in done.err
    assert 'of the 36 validation images right' in done.err
    (folder,) = (tmp_path / 'runs' / 'tiny').glob('teacher,epochs=0*/0')
    result = json.loads((folder / 'result.json').read_text())
    assert result['epochs'] == 0 and result['train_loss'] is None and result['valid_accuracy'] > 0.6
    exported = kdfast('export', folder, '--to', tmp_path / 'x.safetensors')
    assert exported.status == 0 and '0 of 36' in exported.out + exported.err
    assert kdfast('compare').status == 0
    assert kdfast('report', '--out', tmp_path / 'page.html').status == 0
    again = kdfast('run', 'kd', *arguments)
    assert again.status == 0 and 'used as it is' not in again.err


def data_of(data):
    return assemble(data.name, data.classes, *((np.array(x), np.array(y)) for x, y in (data.train, data.valid)))


def test_a_teacher_at_chance_level_stops_the_run(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'nets.py').write_text(CODE)
    space = {}
    exec(CODE, space)
    network = space['net'](3, 8)
    nn.init.zeros_(network[-1].weight)
    torch.save(network.state_dict(), tmp_path / 'net.pth')
    done = kdfast('run', 'kd', '--teacher', 'nets.py:net@net.pth', '--teacher-epochs', 0, '--data', images)
    assert done.status == 2 and 'no more than by chance' in done.err and 'Traceback' not in done.err
    assert not [*tmp_path.glob('runs/tiny/kd*/0/result.json')] and not [*tmp_path.glob('runs/tiny/t*/0/result.json')]


@pytest.mark.parametrize(
    'recipe,options,said',
    [
        ('kd', ('--epochs', 0), '--epochs 0 of kd is out of range: expected at least 1'),
        ('teacher', ('--epochs', 0), 'wide is not trained'),
        ('kd', ('--teacher-epochs', 0), 'wide is not trained'),
        ('kd', ('--teacher-epochs', -1), 'out of range'),
    ],
)
def test_nothing_to_train_and_nothing_trained_is_refused(kdfast, images, tmp_path, monkeypatch, recipe, options, said):
    monkeypatch.chdir(tmp_path)
    done = kdfast('run', recipe, *options, '--data', images)
    assert done.status == 2 and said in done.err and not (tmp_path / 'runs').exists()


def test_a_name_that_gives_the_size_of_images_decides_it(data):
    "Whether as height and width or as one number"
    for size, expected in (('(64, 32)', (64, 32)), ('[32, 64]', (32, 64)), ('48', (48, 48))):
        named = parse(f'timm:vit_tiny_patch16_224(img_size={size})@weights.pth')
        assert possible_preparations(named, data)[0] == [expected]
