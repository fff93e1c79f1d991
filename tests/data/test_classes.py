"The order of classes, lists of classes that do not fit the labels, and classes without images."

import io
import tarfile

import numpy as np
import pytest
import samples
from torchvision.datasets import ImageFolder

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.class_weights import class_weights
from kdfast.data.from_python import from_arrays, from_dataset
from kdfast.data.labels import in_order

IMAGES = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
NUMBERS = np.arange(48) % 12


def both(labels):
    return (IMAGES, labels), (IMAGES, labels)


def test_numbers_keep_their_order():
    "A teacher with outputs 0 … 11 must find them in this order, whatever the labels are read from"
    for labels in (NUMBERS, NUMBERS.astype(float), NUMBERS.astype(str), np.eye(12)[NUMBERS]):
        data = from_arrays(*both(labels))
        assert data.classes == [str(i) for i in range(12)] and (data.train[1] == NUMBERS).all()
    pairs = list(zip(IMAGES, NUMBERS))
    assert (from_dataset(pairs, pairs).train[1] == NUMBERS).all()
    columns = np.eye(12, dtype=int)[NUMBERS] | (np.arange(12) == 0)
    assert (from_arrays(*both(columns), labels='several').train[1] == columns).all()


@pytest.mark.parametrize(
    'names,expected',
    [
        (['10', '9', '-1', '0'], ['-1', '0', '9', '10']),
        (['10.0', '2.0', '1'], ['1', '2.0', '10.0']),
        (['1', '01', '2'], ['01', '1', '2']),
        (['10', '9', 'b'], ['10', '9', 'b']),
        (['1.5', '10'], ['1.5', '10']),
        (['9' * 5000, '10'], ['10', '9' * 5000]),
    ],
)
def test_order_of_names(names, expected):
    assert in_order(dict.fromkeys(names)) == expected


def test_folders_are_in_the_order_of_other_libraries(tmp_path):
    for i, number in enumerate(NUMBERS):
        file = tmp_path / 'train' / str(number) / f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(samples.writer('PNG')(IMAGES[i]))
    assert load(str(tmp_path)).classes == ImageFolder(tmp_path / 'train').classes == sorted(map(str, range(12)))


def shards(folder, labels, classes):
    "A shard of WebDataset with a list of classes"
    with tarfile.open(folder / 'train-0.tar', 'w') as tar:
        for i, label in enumerate(labels):
            image = samples.writer('PNG')(IMAGES[i])
            for suffix, content in dict(png=image, cls=str(label).encode()).items():
                info = tarfile.TarInfo(f'{i:03}.{suffix}')
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    (folder / 'classes.txt').write_text('\n'.join(classes))
    return load(str(folder))


LABELS_BESIDE_A_LIST = dict(
    unlabeled=np.where(np.arange(48) < 3, -1, np.arange(48) % 2),
    truth=np.arange(48) % 2 == 1,
    strings=np.array(['cat', 'dog', 'bird'] * 16),
    case=np.array(['cat', 'Dog'] * 24),
)


@pytest.mark.parametrize('kind', LABELS_BESIDE_A_LIST)
def test_a_label_that_is_not_in_the_list_is_refused(kind, tmp_path):
    labels = LABELS_BESIDE_A_LIST[kind]
    said = 'not in the list of classes .cat, dog.: correct|is -1, but there are 2 classes'
    for make in (
        lambda: from_arrays((IMAGES, labels), classes=['cat', 'dog']),
        lambda: from_arrays((IMAGES, np.arange(48) % 2), (IMAGES, labels), classes=['cat', 'dog']),
        lambda: from_dataset(list(zip(IMAGES, labels.tolist())), classes=['cat', 'dog']),
        lambda: shards(tmp_path, labels, ['cat', 'dog']),
    ):
        with pytest.raises(KdfastError, match=said):
            make()


def test_a_list_that_names_a_class_twice_is_refused(tmp_path):
    labels, classes = np.arange(48) % 3, ['crane', 'cat', 'crane']
    for make in (
        lambda: from_arrays((IMAGES, labels), classes=classes),
        lambda: from_dataset(list(zip(IMAGES, labels)), classes=classes),
        lambda: shards(tmp_path, labels, classes),
    ):
        with pytest.raises(KdfastError, match='the list of classes has crane twice: rename one'):
            make()


def test_text_of_numbers_is_not_merged():
    assert from_arrays((IMAGES, np.array(['1', '01', '2', '²'] * 12))).classes == ['01', '1', '2', '²']
    assert from_arrays((IMAGES, np.array(['1', '0'] * 24)), classes=['cat', 'dog']).classes == ['cat', 'dog']


def test_a_class_without_images_has_a_finite_weight():
    data = from_arrays(*both(np.arange(48) % 3 // 2), classes=['cat', 'dog', 'emu'])
    found = class_weights('auto', data)
    assert found == pytest.approx(dict(cat=48 / (2 * 32), dog=48 / (2 * 16), emu=48 / 2))
