"Hold out training images for validation."

import numpy as np
import pytest
from conftest import CLASSES, draw

from kdfast.core.errors import KdfastError
from kdfast.data import load


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / 'pets' / 'train', 3, seed=0)
    draw(tmp_path / 'pets' / 'test', 2, seed=1)
    return tmp_path / 'pets'


def test_holdout_takes_training_images_of_each_class(folder):
    draw(folder / 'val', 1, seed=2)
    whole, held = load(str(folder)), load(str(folder), holdout=1 / 3)
    assert held.name == f'pets,holdout={1 / 3}' and held.classes == CLASSES
    assert held.train[1].tolist() == [0, 0, 1, 1, 2, 2] and held.valid[1].tolist() == [0, 1, 2]
    both = sorted(image.tobytes() for images, _ in (held.train, held.valid) for image in images)
    assert both == sorted(image.tobytes() for image in whole.train[0])
    assert load(str(folder), holdout=1 / 3).fingerprint == held.fingerprint != whole.fingerprint


def test_holdout_copies_no_images(folder):
    whole, held = load(str(folder)), load(str(folder), holdout=1 / 3)
    for images, _ in (held.train, held.valid):
        assert isinstance(images.array, np.memmap) and images.array.filename == whole.train[0].filename
    rows = held.train[0]
    assert (
        rows.shape == (6, 8, 8, 3)
        and (rows[[5, 0]] == whole.train[0][rows.rows[[5, 0]]]).all()
        and rows[1:3].shape == (2, 8, 8, 3)
    )


@pytest.mark.parametrize(
    'share,message',
    [
        (1.0, 'from 0 to below 1'),
        (-0.1, 'from 0 to below 1'),
        (float('nan'), 'from 0 to below 1'),
        (0.01, 'takes none of the 9 training images, of 3 classes'),
    ],
)
def test_holdout_out_of_range(folder, share, message):
    with pytest.raises(KdfastError, match=message):
        load(str(folder), holdout=share)
