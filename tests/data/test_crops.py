"Crops of photographs: at random for training, from the center for validation."

import numpy as np
import pytest
import torch
from photo_files import make_photos

from kdfast.data import load
from kdfast.data.crops import crop_and_flip
from kdfast.data.dataloaders import loaders
from kdfast.data.random_streams import generator


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp('data') / 'photos')


def batches(data, epoch, seed=3):
    "The training images of an epoch before normalization, in the order of the files"
    dls = loaders(data, seed)
    dls.train.epoch = epoch
    order = dls.train.get_idxs()
    shown = torch.cat([x for x, _ in dls.train.create_batches(iter(order))])
    return shown[torch.tensor(order).argsort()].permute(0, 2, 3, 1).numpy()


def crop_positions(crop, image):
    "Positions of a crop in an image: (top, left, mirrored)"
    size, room = len(crop), len(image) - len(crop) + 1
    return [
        (top, left, flip)
        for top in range(room)
        for left in range(room)
        for flip in (False, True)
        if (image[top : top + size, left : left + size][:, :: -1 if flip else 1] == crop).all()
    ]


def test_training_crops_differ_between_epochs(photos):
    data = load(str(photos), size=24, augment='flip')  # of 27
    found = [
        [crop_positions(crop, image) for crop, image in zip(batches(data, epoch), data.train[0])] for epoch in range(12)
    ]
    assert all(len(where) == 1 for epoch in found for where in epoch)
    for of_image in zip(*found):
        assert len({where for (where,) in of_image}) > 4
    seen = {where for epoch in found for (where,) in epoch}
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(4)) and {
        flip for *_, flip in seen
    } == {False, True}


def test_crops_depend_on_seed_and_epoch_alone(photos):
    data = load(str(photos), size=16)
    one = batches(data, 1)
    torch.manual_seed(99)
    np.random.seed(99)
    assert (
        (one == batches(data, 1)).all() and (one != batches(data, 2)).any() and (one != batches(data, 1, seed=4)).any()
    )


def test_validation_and_prediction_use_center_crops(photos):
    data = load(str(photos), size=16)
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    dls = loaders(data)
    plain = dls.train.new(dls.train_ds.plain(), shuffle=False, drop_last=False)
    for dl, (images, _) in ((dls.valid, data.valid), (plain, data.train)):
        x = torch.cat([x.cpu() for x, _ in dl])
        middle = images[:, 1:17, 1:17]
        torch.testing.assert_close(
            (torch.Tensor(x) * std + mean) * 255,
            torch.from_numpy(np.array(middle)).permute(0, 3, 1, 2).float(),
            rtol=0,
            atol=1e-3,
        )
        assert (data.shown(images) == middle).all()


def test_whole_images_without_size(data):
    assert data.shown(data.valid[0]) is data.valid[0] and data.size is None and data.shape == (8, 8)


def test_order_of_random_draws_of_a_crop():
    "Rows are drawn, then columns, then mirrors, each for the whole batch"
    x, draws = torch.arange(5 * 3 * 32 * 32).reshape(5, 3, 32, 32), generator(7)
    tops = torch.randint(5, (5, 1), generator=draws)
    lefts = torch.randint(5, (5, 1), generator=draws)
    mirrored = torch.rand(5, 1, generator=draws) >= 0.5
    wide = torch.nn.functional.pad(x, (2, 2, 2, 2))
    expected = [
        image[:, top : top + 32, left : left + 32].flip([-1] if mirror else [])
        for image, top, left, mirror in zip(wide, tops, lefts, mirrored)
    ]
    assert crop_and_flip(x, True, generator(7)).equal(torch.stack(expected))
