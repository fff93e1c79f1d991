"Augmentation: its options, its default, and classes that a mirrored image would exchange."

import numpy as np
import pytest
import torch
from conftest import draw

from kdfast.core.errors import KdfastError
from kdfast.data import augment, load
from kdfast.data.crops import crop_and_flip
from kdfast.data.dataloaders import loaders
from kdfast.data.random_streams import generator


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'pets'
    draw(folder, 20, seed=0)
    return folder


@pytest.mark.parametrize(
    'classes,expected',
    [
        (['left', 'right'], 'shift'),
        (['hand_left', 'hand_right'], 'shift'),
        (['Turn Left', 'Stop'], 'shift'),
        (['clockwise', 'counterclockwise'], 'shift'),
        (list('0123456789'), 'shift'),
        (list('abc'), 'shift'),
        (['left2', 'up'], 'shift'),
        (['cat', 'dog'], 'flip'),
        (['bright', 'dark'], 'flip'),
        (['leftovers', 'cake'], 'flip'),
        ([str(i) for i in range(102)], 'flip'),
        (['airplane', 'automobile'], 'flip'),
        (['n01440764', 'n02102040'], 'flip'),
    ],
)
def test_default_augmentation_depends_on_class_names(classes, expected):
    assert augment.default_augment(classes) == expected


def shown(data, epoch=0):
    "The training images of an epoch, augmented, in the order of the files"
    dls = loaders(data, seed=3)
    dls.train.epoch = epoch
    order = dls.train.get_idxs()
    images = torch.cat([x for x, _ in dls.train.create_batches(iter(order))])
    return images[torch.tensor(order).argsort()].permute(0, 2, 3, 1).numpy()


def test_none_leaves_images_unchanged(folder):
    for size in (None, 8):
        data = load(str(folder), augment='none', size=size)
        assert (shown(data) == data.shown(data.train[0][:])).all()


def test_only_flip_mirrors(folder):
    "Compared with crops of one batch of 8 after the other"
    for augment_, mirror in (('shift', False), ('flip', True)):
        data = load(str(folder), augment=augment_)
        draws, order = generator(3, 0, 1), loaders(data, seed=3).train.get_idxs()
        batches = [
            crop_and_flip(torch.from_numpy(np.array(data.train[0][order[i : i + 8]])).movedim(-1, 1), mirror, draws)
            for i in range(0, len(order), 8)
        ]
        expected = torch.cat(batches)[torch.tensor(order).argsort()].permute(0, 2, 3, 1).numpy()
        assert (expected == shown(data)).all()


def test_default_augmentation_keeps_name_and_pixels(folder):
    usual, flip = load(str(folder)), load(str(folder), augment='flip')
    assert usual.name == flip.name == 'pets' and usual.augment == 'flip' and (shown(usual) == shown(flip)).all()
    assert load('digits').augment == 'shift' and load('digits', augment='shift').name == 'digits'
    assert load('digits', augment='flip').name == 'digits,augment=flip'


def test_strong_depends_on_seed_and_epoch_alone(folder):
    data = load(str(folder), augment='strong')
    torch.manual_seed(7)
    one = shown(data, 1)
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.rand(1) == after and data.name == 'pets,augment=strong'
    torch.manual_seed(99)
    assert (shown(data, 1) == one).all() and (shown(data, 2) != one).any()
    plain = shown(load(str(folder)), 1)
    assert one.dtype == np.uint8 and one.shape == plain.shape and ((one != plain).any((1, 2, 3))).mean() > 0.5


def test_strong_mirrors_only_classes_without_sides():
    assert augment.mirrors('strong', ['cat', 'dog']) and not augment.mirrors('strong', ['left', 'right'])
    assert augment.mirrors('flip', ['left', 'right'])


def test_mirroring_is_reported_on_first_use(tmp_path, capsys):
    for names, message in (
        (
            ['cat', 'dog'],
            'training mirrors images at random; if left and right matter, turn this off with --augment shift',
        ),
        (['left', 'right'], 'training does not mirror images'),
    ):
        for name in names:
            draw(tmp_path / names[0] / name, 1, seed=len(name))
        load(str(tmp_path / names[0]), holdout=0.34)
        assert message in capsys.readouterr().err


def test_unknown_augmentation_is_rejected(folder):
    with pytest.raises(KdfastError, match='--augment mirror: expected none, shift, flip, strong'):
        load(str(folder), augment='mirror')


def test_run_and_study_accept_augment(kdfast, folder, tmp_path):
    assert (
        kdfast('run', 'baseline', '--data', folder, '--augment', 'strong', '--epochs', 1, '--runs', tmp_path).status
        == 0
    )
    assert [f.name for f in tmp_path.iterdir()] == ['pets,augment=strong']
