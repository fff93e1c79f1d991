"The number of images per batch, and its option."

from types import SimpleNamespace

import pytest

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.dataloaders import (
    batch_size,
    loaders,
    validation_batch_size,
)
from kdfast.data.dataset import usual_batch_size


@pytest.mark.parametrize('n,bs', [(50000, 128), (1024, 128), (599, 64), (72, 8), (8, 8)])
def test_batch_size(n, bs):
    assert usual_batch_size(n) == bs


@pytest.mark.parametrize('requested,steps', [(None, 9), (8, 9), (2, 36), (5, 14), (72, 1)])
def test_batch_size_option(images, requested, steps):
    data = load(str(images), batch_size=requested)
    dls = loaders(data)
    assert (
        len(dls.train) == steps
        and next(iter(dls.train))[0].shape[0] == (requested or 8)
        and data.name == ('tiny' if requested in (None, 8) else f'tiny,batch_size={requested}')
    )


@pytest.mark.parametrize(
    'requested,message',
    [
        (1, '--batch-size 1: expected at least 2 images'),
        (0, 'at least 2'),
        (-3, 'at least 2'),
        (73, '--batch-size 73: expected at most 72, the number of training images'),
    ],
)
def test_batch_size_out_of_range(images, requested, message):
    with pytest.raises(KdfastError, match=message):
        load(str(images), batch_size=requested)


@pytest.mark.parametrize('bs', [2, 16, 128, 500])
@pytest.mark.parametrize('side,most', [(8, 256), (32, 256), (64, 256), (96, 113), (224, 20), (2000, 0)])
def test_validation_batches_of_large_images_need_no_more_memory_than_training(side, most, bs):
    assert validation_batch_size(SimpleNamespace(shape=(side, side)), bs) == max(bs, most)


def test_fewer_images_than_a_batch_are_rejected():
    few = SimpleNamespace(train=(None, range(7)), batch_size=None)
    with pytest.raises(KdfastError, match='7 training images'):
        batch_size(few)
