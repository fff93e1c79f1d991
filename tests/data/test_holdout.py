"Hold out training images for validation."

from dataclasses import replace

import numpy as np
import pytest
from conftest import CLASSES, draw, make

from kdfast.core.errors import KdfastError
from kdfast.data import from_arrays, holdout, load
from kdfast.data.sources import with_own_name


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


def pixels(split):
    return {image.tobytes() for image in split[0]}


@pytest.mark.parametrize('valid', [0, 1])
def test_each_seed_draws_a_split_of_its_own(folder, valid):
    "Of a folder without validation images, and of one with them and --holdout"
    source = str(folder if valid else folder / 'train')
    options = dict(holdout=1 / 3) if valid else {}
    if valid:
        draw(folder / 'val', 1, seed=2)
    usual = load(source, **options)
    splits = [load(source, **options, resplit=seed) for seed in range(4)]
    everything = pixels(usual.train) | pixels(usual.valid)
    for data in splits:
        assert data.train[1].tolist() == usual.train[1].tolist() and data.valid[1].tolist() == usual.valid[1].tolist()
        assert pixels(data.train) | pixels(data.valid) == everything and not pixels(data.train) & pixels(data.valid)
        assert data.name == f'{usual.name},resplit=True' and data.images_sha256 == splits[0].images_sha256
    assert len({frozenset(pixels(data.valid)) for data in splits}) > 1 < len({data.fingerprint for data in splits})
    assert load(source, **options, resplit=2).fingerprint == splits[2].fingerprint != usual.fingerprint
    assert (usual.drawn_from, usual.images_sha256) == ('', usual.fingerprint)


def test_splits_of_several_labels_differ_by_seed():
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 255, (60, 8, 8, 3), dtype=np.uint8), random.integers(0, 2, (60, 3))
    found = [from_arrays((images, labels), labels='several', resplit=seed) for seed in (None, 0, 1, 1)]
    assert len({data.fingerprint for data in found}) == 3 and all(len(data.valid[1]) == 12 for data in found)
    assert (found[2].valid[0][:] == found[3].valid[0][:]).all()


def test_a_validation_split_of_its_own_is_not_drawn_anew(folder):
    draw(folder / 'val', 1, seed=2)
    with pytest.raises(KdfastError, match='pets has validation images of its own.*--holdout SHARE'):
        load(str(folder), resplit=0)


def test_data_sets_of_other_seeds_have_one_name(folder, tmp_path):
    "And other images another one"
    seeds = [load(str(folder / 'train'), resplit=seed) for seed in range(2)]
    runs = tmp_path / 'runs'
    recorded = dict(data_sha256=seeds[0].fingerprint, drawn_from=seeds[0].drawn_from)
    make(runs, 'kd', 0, data=seeds[0].name, recorded=recorded)
    assert with_own_name(seeds[1], runs).name == 'train,resplit=True'
    other = replace(seeds[1], drawn_from='1234567890')
    assert with_own_name(other, runs).name == 'train,resplit=True-12345678'


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


@pytest.mark.parametrize('fraction', [0, 0.01, 0.2, 0.5, 0.9])
def test_of_several_labels_a_share_is_held_out_as_far_as_each_label_keeps_an_image(fraction):
    labels = (np.random.default_rng(0).random((200, 3)) < [0.5, 0.02, 0.3]).astype(np.int8)
    expected, left = np.zeros(len(labels), bool), labels.sum(0, dtype=np.int64)
    for image in holdout._random(3, 0).permutation(len(labels)):
        if expected.sum() < round(fraction * len(labels)) and (left[labels[image] == 1] > 1).all():
            expected[image] = True
            left -= labels[image]
    assert (holdout._choose_images_of_several(labels, fraction, 3) == expected).all()
    assert (labels[~expected].sum(0) > 0).all()
