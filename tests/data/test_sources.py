"Data sets from Python: DataFrames, arrays, Datasets."

import os
import platform

import numpy as np
import pandas as pd
import pytest
import samples
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import from_python, load
from kdfast.data.cache import short_digest
from kdfast.data.from_python import from_arrays, from_dataset, from_frame

TRAIN, VALID, TEST = (
    (np.stack(images), np.array(labels))
    for images, labels in map(samples.images_and_labels, ('train', 'valid', 'test'))
)


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    folder = samples.to_folder(
        tmp_path_factory.mktemp('data') / 'photos', samples.layout_files('train, valid, test', 'PNG')
    )
    return load(str(folder))


class Pictures(Dataset):
    "PIL images and names of classes, as in torchvision"

    classes = samples.CLASSES

    def __init__(self, arrays, change=lambda image: image):
        self.arrays, self.change = arrays, change

    def __len__(self):
        return len(self.arrays[1])

    def __getitem__(self, i):
        return self.change(Image.fromarray(self.arrays[0][i])), int(self.arrays[1][i])


class Records(Dataset):
    "Dicts, as in Hugging Face"

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays[1])

    def __getitem__(self, i):
        return dict(image=Image.fromarray(self.arrays[0][i]), label=samples.CLASSES[self.arrays[1][i]])


def to_tensor(arrays):
    return TensorDataset(torch.from_numpy(arrays[0]).movedim(-1, 1).float() / 255, torch.from_numpy(arrays[1]))


def same(found, reference):
    for split in ('train', 'valid', 'test'):
        (images, labels), (expected, actual) = getattr(found, split), getattr(reference, split)
        assert (images[:] == expected[:]).all() and (labels == actual).all()
    return found.classes == reference.classes


@pytest.mark.parametrize(
    'make',
    [
        lambda: from_arrays(TRAIN, VALID, TEST, samples.CLASSES),
        lambda: from_arrays((TRAIN[0].transpose(0, 3, 1, 2), TRAIN[1][:, None]), VALID, TEST, samples.CLASSES),
        lambda: from_arrays(*((images, np.array(samples.CLASSES)[labels]) for images, labels in (TRAIN, VALID, TEST))),
        lambda: from_arrays((TRAIN[0], np.eye(3)[TRAIN[1]]), VALID, TEST, samples.CLASSES),
        lambda: from_arrays((torch.from_numpy(TRAIN[0]), torch.from_numpy(TRAIN[1])), VALID, TEST, samples.CLASSES),
        lambda: from_arrays(
            (TRAIN[0] / 255, TRAIN[1]), (VALID[0] / 255, VALID[1]), (TEST[0] / 255, TEST[1]), samples.CLASSES
        ),
        lambda: from_dataset(*map(Pictures, (TRAIN, VALID, TEST))),
        lambda: from_dataset(*map(to_tensor, (TRAIN, VALID, TEST)), classes=samples.CLASSES),
        lambda: from_dataset(*map(Records, (TRAIN, VALID, TEST))),
        lambda: from_dataset(
            Subset(Pictures(TRAIN), range(12)),
            ConcatDataset([Pictures(VALID)]),
            list(zip(*TEST)),
            classes=samples.CLASSES,
        ),
    ],
    ids=[
        'arrays',
        'channels first',
        'names',
        'one-hot',
        'tensors',
        'floats',
        'PIL',
        'ToTensor',
        'dicts',
        'subsets, lists',
    ],
)
def test_python_data_equals_files(make, reference):
    assert same(make(), reference)


@pytest.fixture
def frame(tmp_path):
    names = {(split, label, i): f'{split}{label}{i}.png' for split, label, i, _ in samples.all_images(samples.ALL)}
    samples.to_folder(tmp_path, {name: samples.writer('PNG')(samples.make_image(*key)) for key, name in names.items()})
    return pd.DataFrame(
        [dict(path=name, category=samples.CLASSES[label], set=split) for (split, label, _), name in names.items()]
    )


def test_frame_of_paths(frame, tmp_path, reference):
    assert same(from_frame(frame, tmp_path), reference)
    assert same(
        from_frame(frame.assign(path=[str(tmp_path / name) for name in frame.path])), reference
    )  # absolute ones
    moved = frame.assign(path=[rf'{tmp_path.name}\{name}' for name in frame.path])
    assert same(from_frame(moved, tmp_path.parent), reference)  # written on Windows
    found = from_frame(moved.rename(columns=dict(set='fold')).assign(fold=1), tmp_path.parent, name='folds')
    assert any(note.endswith('do not say train, valid or test: 1 (fold)') for note in found.notes)
    assert same(
        from_frame(
            frame.rename(columns=dict(path='where', category='what', set='which')),
            tmp_path,
            columns='name=where,label=what,split=which',
        ),
        reference,
    )


@pytest.mark.parametrize('text', ['a caption ' * 30, 'a' * 256, 'x/' * 3000, 'a\0b', '/', '..', '~', ' '])
@pytest.mark.parametrize('columns', [None, 'name=path,label=category,split=set'])
def test_other_text_of_a_frame_is_no_path(frame, tmp_path, reference, text, columns):
    "Nor is it an error of the file system as the name of an image"
    assert same(from_frame(frame.assign(caption=text), tmp_path, columns=columns), reference)
    with pytest.raises(KdfastError, match='row 3: (no name|there is no file)'):
        from_frame(frame.assign(path=[text if i == 3 else name for i, name in enumerate(frame.path)]), tmp_path)


def test_float_labels_because_some_are_missing(frame, tmp_path):
    numbered = frame.assign(category=[float(samples.CLASSES.index(name)) for name in frame.category])
    numbered.loc[3, 'category'], numbered.loc[5, 'path'] = np.nan, 'gone.png'
    with pytest.raises(
        KdfastError, match=r'frame: row 3: train03.png has no label; row 5: there is no file .*gone.png'
    ):
        from_frame(numbered, tmp_path)
    found = from_frame(numbered, tmp_path, skip_broken=True)
    assert found.classes == ['0', '1', '2'] and len(found.train[1]) == 10


def test_python_data_is_loaded_by_its_cache_path(kdfast, tmp_path):
    data = from_arrays(TRAIN, VALID, name='shapes', size=8)
    again = load(**data.load_arguments)
    assert data.name == again.name == 'shapes,size=8' and again.fingerprint == data.fingerprint
    assert from_arrays(TRAIN, VALID, name='shapes', size=8).load_arguments == data.load_arguments
    done = kdfast(
        'run', 'baseline', '--data', data.load_arguments['source'], '--size', 8, '--epochs', 1, '--runs', tmp_path
    )
    assert done.status == 0 and [f.name for f in tmp_path.iterdir()] == ['shapes,size=8'], done.err
    with pytest.raises(KdfastError, match='was decoded for --size 8'):
        load(data.load_arguments['source'])


def test_notes_are_those_of_the_call(frame, tmp_path):
    "Of the same images under the same name, whatever was loaded before"
    usual = from_frame(frame, tmp_path, name='noted')
    noted = from_frame(frame.assign(fold=1), tmp_path, name='noted')
    assert usual.fingerprint == noted.fingerprint and {*noted.notes} - {*usual.notes}
    for data in (from_frame(frame, tmp_path, name='noted'), load(**usual.load_arguments)):
        assert data.notes == usual.notes
    one_hot = np.eye(3, dtype=int)[TRAIN[1]]
    assert any('one-hot' in note for note in from_arrays((TRAIN[0], one_hot), VALID, name='noted').notes)
    assert not any('one-hot' in note for note in from_arrays(TRAIN, VALID, name='noted').notes)


def test_of_two_processes_with_the_same_arrays_the_first_that_is_done_counts(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    fill, found = from_python.fill_cache, []

    def fill_after_another(folder, *arguments, **options):
        if not found:
            with pytest.MonkeyPatch.context() as patch:  # as in another process
                patch.setattr('os.getpid', lambda: os.getppid())
                found.append(None)
                found[0] = from_arrays(TRAIN, VALID)
        return fill(folder, *arguments, **options)

    monkeypatch.setattr(from_python, 'fill_cache', fill_after_another)
    left = cache_home() / f'new-{short_digest("arrays")}-{platform.node()}-{os.getpid()}'  # by a killed process
    abandoned = cache_home() / f'new-x-{platform.node()}-{10**9}'
    left.mkdir(parents=True), abandoned.mkdir()
    data = from_arrays(TRAIN, VALID)
    assert data.load_arguments == found[0].load_arguments and data.fingerprint == found[0].fingerprint
    assert len(list(cache_home().iterdir())) == 1


def test_python_data_without_validation_images():
    assert from_arrays(TRAIN).valid[1].tolist() == [0, 1, 2]
    assert from_arrays(TRAIN, holdout=0.5).valid[1].tolist() == [0, 0, 1, 1, 2, 2]


class Endless(IterableDataset):
    def __iter__(self):
        yield from zip(*TRAIN)


@pytest.mark.parametrize(
    'make,message',
    [
        (
            lambda: from_dataset(Pictures(TRAIN, lambda image: image.rotate(float(torch.rand(1)) * 360))),
            'returns different pixels each time: remove its random transforms',
        ),
        (lambda: from_dataset(Endless()), 'has no length or cannot be indexed: expected a map-style'),
        (lambda: from_dataset([]), 'is empty'),
        (lambda: from_dataset([1, 2]), r'is a int: expected \(image, label\)'),
        (lambda: from_dataset([dict(a=1)]), 'has the keys a: expected image and label'),
        (
            lambda: from_dataset(list(zip(TRAIN[0], [[1, 2]] * 12))),
            r'label of train image 0 is \[1, 2\]: expected the number or the name of one class',
        ),
        (lambda: from_dataset(list(zip(TRAIN[0], [0.5] * 12))), 'is 0.5: expected'),
        (lambda: from_dataset(list(zip(TRAIN[0], [7] * 12)), classes=samples.CLASSES), 'is 7, but there are 3 classes'),
        (
            lambda: from_dataset(list(zip(np.zeros((12, 4, 4, 4, 4), np.uint8), TRAIN[1]))),
            r'train/00, .* and 2 more \(an array of uint8 4×4×4×4: expected height × width',
        ),
        (lambda: from_arrays((TRAIN[0], TRAIN[1][:5])), '12 images, but 5 labels'),
        (lambda: from_arrays((TRAIN[0], np.ones((12, 4)))), '4 labels per image: expected one class per image'),
        (lambda: from_arrays(*TRAIN), r'train is ndarray, expected a pair \(train_images, labels\)'),
        (lambda: from_arrays(TRAIN, TRAIN[0]), 'valid is ndarray'),
        (lambda: from_arrays(TRAIN, holdout=2.0), 'from 0 to below 1'),
        (lambda: from_arrays(TRAIN, size=3), '--size 3: expected 8'),
        (lambda: from_arrays((np.full((12, 4, 4), np.nan), TRAIN[1])), 'are not finite'),
    ],
)
def test_invalid_python_data_is_rejected(make, message):
    before = set(cache_home().glob('*'))
    with pytest.raises(KdfastError, match=message):
        make()
    assert set(cache_home().glob('*')) == before


def test_arrays_are_read_image_by_image(tmp_path):
    "A memory-mapped file is never loaded as a whole"

    class Mapped:
        def __init__(self, array):
            self.array = array
            self.indices = []

        def __len__(self):
            return len(self.array)

        def __getitem__(self, i):
            self.indices.append(i)
            return self.array[i]

    images = Mapped(TRAIN[0])
    from_arrays((images, TRAIN[1]))
    assert images.indices == [0, 0, *range(12)]  # the first one twice, to check that it does not change
