"Arrays in files: which hold images, which hold labels, which belong together."

import io
import zipfile

import numpy as np
import pytest

from kdfast.core.errors import KdfastError
from kdfast.data import load

N_PARTS, N = 11, 9  # more than ten parts: 10 comes after 2


def array_bytes(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def images(part=0, n=N):
    "Images of one value each, which is their number in all parts"
    return np.arange(part * N, part * N + n, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)


def labels(part=0, n=N):
    return np.arange(part * N, part * N + n) % 3


def write(tmp_path, arrays, kind):
    "A folder of .npy files, or an .npz file; arrays by name without the suffix"
    files = {f'{name}.npy': array_bytes(array) for name, array in arrays.items()}
    if kind == 'npz':
        with zipfile.ZipFile(tmp_path / 'set.npz', 'w') as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return str(tmp_path / 'set.npz')
    for name, content in files.items():
        (tmp_path / 'set' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'set' / name).write_bytes(content)
    return str(tmp_path / 'set')


def label_of(data):
    "Label by number of the image, as they are in all splits"
    splits = [split for split in (data.train, data.valid, data.test) if split]
    return {
        int(image[0, 0, 0]): int(data.classes[y]) for x, labels in splits for image, y in zip(np.asarray(x[:]), labels)
    }


@pytest.fixture(params=['npy', 'npz'])
def kind(request):
    return request.param


@pytest.mark.parametrize(
    'image_name,label_name',
    [
        ('images_part{}', 'labels_part{}'),
        ('images{}', 'labels{}'),
        ('x_train_{}', 'y_train_{}'),
        ('trainX{}', 'trainY{}'),
        ('train/images-{:05}-of-00011', 'train/labels-{:05}-of-00011'),
        ('images_28x28_{}', 'labels_{}'),
        ('part{}_images', 'part{}_image_labels'),
        ('train_data_batch_{}', 'train_targets_batch_{}'),
    ],
)
def test_all_parts_are_read_in_natural_order(tmp_path, kind, image_name, label_name):
    arrays = {image_name.format(part): images(part) for part in range(N_PARTS)}
    arrays |= {label_name.format(part): labels(part) for part in reversed(range(N_PARTS))}
    data = load(write(tmp_path, arrays, kind))
    assert label_of(data) == {i: i % 3 for i in range(N_PARTS * N)}
    train = np.asarray(data.train[0][:])[:, 0, 0, 0]
    assert (np.diff(train.astype(int)) > 0).all() and not [note for note in data.notes if 'arrays' in note]


def test_splits_by_folder_and_by_name_are_kept_apart(tmp_path, kind):
    names = 'train/images train/labels val/images val/labels test_x test_y'.split()
    arrays = {name: (labels if name.endswith(('labels', 'y')) else images)(i // 2) for i, name in enumerate(names)}
    data = load(write(tmp_path, arrays, kind))
    assert [len(split[1]) for split in (data.train, data.valid, data.test)] == [N] * 3
    assert label_of(data) == {i: i % 3 for i in range(3 * N)}


BOTH = dict(images=images(), labels_fine=labels(), labels_coarse=labels() // 2)


@pytest.mark.parametrize(
    'arrays,message',
    [
        (BOTH, 'several arrays of labels, labels_.*, labels_.*: choose with --columns label=labels_'),
        (
            dict(images=images(), images_augmented=images(), labels=labels()),
            'several arrays of images, images, |images',
        ),
        (dict(x_1=images(), x_2=images(1), y_1=labels()), r'no labels of x_2\.npy'),
        (dict(x_1=images(), y_1=labels(), y_2=labels(1)), r'no images of y_2\.npy'),
        (dict(x=images(), y_1=labels(), y_2=labels(1)), r'no labels of x\.npy'),
        (
            {'a/x': images(), 'a/y': labels(), 'b/x': images(1), 'b/y': labels(1)},
            'found images in the folders a and b: pass the path of one of them',
        ),
        (
            {'a/x_train': images(), 'a/y_train': labels(), 'b/x_train': images(1), 'b/y_train': labels(1)},
            'found train in the folders a and b',
        ),
        (
            dict(x_1=images(), y_1=labels(), x_2=images(1), y_2=labels(1, 3)),
            r'9 images in x_2\.npy, but 3 labels in y_2',
        ),
        (dict(x=images(), y=np.array([b'caf\xe9'] * N)), r'y\.npy: names of classes are not UTF-8'),
        (dict(x=images(), y=np.zeros(N, 'datetime64[s]')), r'y\.npy: labels are of type datetime64'),
        (dict(x=images(), y=np.zeros(N, [('a', int)])), r'y\.npy: labels are of type'),
        (dict(x=images(), y=np.array([*[0, 1] * 4, np.inf])), r'y\.npy: labels are fractions such as inf'),
    ],
)
def test_arrays_that_cannot_be_told_apart_are_named(tmp_path, kind, arrays, message):
    with pytest.raises(KdfastError, match=message):
        load(write(tmp_path, arrays, kind))


@pytest.mark.parametrize('chosen', ['labels_fine', 'fine'])
def test_one_of_several_arrays_of_labels_is_chosen(tmp_path, kind, chosen):
    data = load(write(tmp_path, BOTH, kind), columns=f'label={chosen}')
    assert label_of(data) == {i: i % 3 for i in range(N)}
    assert 'skipped, arrays that are no pair of images and labels: 1 (labels_coarse.npy)' in data.notes
    with pytest.raises(KdfastError, match='no array of labels is called other: found labels_'):
        load(write(tmp_path, BOTH, kind), columns='label=other')


def test_names_of_classes_in_utf8(tmp_path, kind):
    names = ['ä'.encode(), b'b', b"c"] * 3
    assert load(write(tmp_path, dict(x=images(), y=np.array(names)), kind)).classes == ['b', 'c', 'ä']
