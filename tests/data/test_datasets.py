"Labels and names of classes of a Dataset, if what it stores differs from what its items have; damaged images."

import io

import numpy as np
import pytest
import samples
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset

from kdfast.core.errors import KdfastError
from kdfast.data.from_python import from_arrays, from_dataset

N = 64
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
RAW = np.arange(N) % 4


class Stored(Dataset):
    "Like those of torchvision: labels apart from the images, and a transform of labels"

    def __init__(self, target_transform=None, labels=RAW, attribute='targets', classes=tuple('abcd')):
        self.classes, self.target_transform = list(classes), target_transform
        setattr(self, attribute, labels)
        self.labels_of_items, self.opened = labels, set()

    def __len__(self):
        return len(self.labels_of_items)

    def __getitem__(self, i):
        self.opened.add(i)
        label = self.labels_of_items[i]
        return IMAGES[i], self.target_transform(label) if self.target_transform else label


class Wrapper(Dataset):
    "Items of another data set, with other labels"

    def __init__(self, dataset, change, **attributes):
        self.dataset, self.change = dataset, change
        vars(self).update(attributes)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        image, label = self.dataset[i]
        return image, self.change(label)


class Delegate(Wrapper):
    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(vars(self)['dataset'], name)


def halve(label):
    return int(label) // 2


def merge_last(label):
    return min(int(label), 2)


CHANGED = {
    'target_transform': Stored,
    'array': lambda change: Stored(change, RAW.tolist(), '_labels'),
    'subset': lambda change: Subset(Stored(change), range(N)),
    'wrapper': lambda change: Wrapper(Stored(), change),
    'wrapper of a subset': lambda change: Wrapper(Subset(Stored(), range(N)), change),
    'subset of a wrapper': lambda change: Subset(Wrapper(Stored(), change), range(N)),
    'wrapper with targets': lambda change: Wrapper(Stored(), change, targets=RAW, classes=list('abcd')),
    'wrapper with indices': lambda change: Wrapper(Stored(), change, indices=range(N)),
    'wrapper that delegates': lambda change: Delegate(Stored(), change),
    'several': lambda change: ConcatDataset([Stored(change, RAW[:32]), Stored(change, RAW[32:])]),
}


@pytest.mark.parametrize('change', [halve, merge_last])
@pytest.mark.parametrize('kind', CHANGED)
def test_labels_are_those_of_the_items(kind, change):
    made, expected = CHANGED[kind](change), [change(label) for label in RAW]
    data = from_dataset(made, made)
    assert data.train[1].tolist() == expected and data.classes == [str(i) for i in sorted(set(expected))]
    names = ['first', 'second', 'third'][: max(expected) + 1]
    assert from_dataset(made, made, classes=names).classes == names


@pytest.mark.parametrize('change', [halve, merge_last])
def test_a_transform_in_one_split_alone_is_refused(change):
    with pytest.raises(KdfastError, match="the labels '0', '1'.* are not in the list of classes .a, b, c, d.: correct"):
        from_dataset(Stored(), Stored(change))


def test_a_rare_label_that_a_transform_changes_is_found():
    labels = np.where(np.arange(N) == 1, 3, np.arange(N) % 2)
    data = from_dataset(*[Stored(lambda label: int(label) % 3, labels)] * 2)
    assert data.classes == ['0', '1'] and any('change their labels' in note for note in data.notes)


SAME = dict(
    plain=Stored,
    subset=lambda: Subset(Subset(Stored(), range(N)), np.arange(N)),
    types=lambda: Stored(int, RAW.astype(np.int32)),
    column=lambda: Stored(None, RAW[:, None], 'labels'),
    text=lambda: Stored(None, np.array(list('abcd'))[RAW].tolist()),
)


@pytest.mark.parametrize('kind', SAME)
def test_stored_labels_and_names_are_used_if_items_have_them(kind):
    made = SAME[kind]()
    data = from_dataset(made, made)
    assert data.classes == list('abcd') and (data.train[1] == RAW).all()
    assert not any('change their labels' in note for note in data.notes)


def test_stored_labels_are_compared_with_few_items(monkeypatch):
    from kdfast.data.layouts import dataset_items, dataset_labels

    monkeypatch.setattr(dataset_labels, 'N_COMPARED', 5)
    made = Stored()
    dataset_items.check_deterministic(made, '')
    dataset_labels.read_labels(made, None)
    assert made.opened == {0, 16, 32, 47, 63}


def test_names_of_each_split_are_its_own():
    "Folders of validation images may lack a class, so that the same numbers are of other names"
    valid = Stored(None, np.arange(N) % 2, classes=['b', 'd'])
    data = from_dataset(Stored(), valid)
    assert [data.classes[label] for label in data.valid[1][:2]] == ['b', 'd']
    with pytest.raises(KdfastError, match="the labels 'x' are not in the list of classes"):
        from_dataset(Stored(), Stored(None, np.arange(N) % 2, classes=['b', 'x']))


def test_attributes_of_other_kinds_are_no_labels_and_no_names():
    made = Stored(classes=[])
    made.classes, made.features, made.labels, made.indices = 4, np.zeros((N, 3)), 7, made.__len__
    assert from_dataset(made, made).classes == list('0123')


class Files(Dataset):
    "Images that are opened or converted in the data set, some of them damaged"

    def __init__(self, kind, damaged, convert, stored):
        content = samples.encode(Image.effect_noise((32, 32), 80).convert('RGB'), kind)
        self.contents = [content[: len(content) // 2] if i in damaged else content for i in range(12)]
        self.convert = convert
        if stored:
            self.targets = [i % 2 for i in range(12)]

    def __len__(self):
        return 12

    def __getitem__(self, i):
        image = Image.open(io.BytesIO(self.contents[i]))
        return image.convert('RGB') if self.convert else image, i % 2


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'GIF'])
@pytest.mark.parametrize('convert', [False, True])
@pytest.mark.parametrize('stored', [False, True])
@pytest.mark.parametrize('size', [None, 8])
def test_damaged_images_are_named_or_skipped(kind, convert, stored, size):
    made = Files(kind, {0, 3}, convert, stored)
    with pytest.raises(KdfastError, match=r'cannot read train/00, train/03 \(.*--skip-broken'):
        from_dataset(made, size=size)
    data = from_dataset(made, skip_broken=True, size=size)
    assert data.skipped == 2 and len(data.train[1]) + len(data.valid[1]) == 10


def test_pixels_do_not_depend_on_what_was_read_before():
    content = samples.encode(Image.effect_noise((256, 256), 80).convert('RGB'), 'JPEG')
    used, fresh = ([(Image.open(io.BytesIO(content)), i % 2) for i in range(12)] for _ in range(2))
    from_dataset(used, used, size=8)
    assert {image.size for image, _ in used} == {(256, 256)}
    data, expected = from_dataset(used, used, size=32), from_dataset(fresh, fresh, size=32)
    assert (data.train[0][:] == expected.train[0][:]).all()


def test_frames_of_one_file_are_different_images():
    frames = [Image.fromarray(image) for image in IMAGES[:12]]
    file = io.BytesIO(samples.encode(frames[0], 'TIFF', save_all=True, append_images=frames[1:]))

    class Frames(Dataset):
        image = Image.open(file)

        def __len__(self):
            return 12

        def __getitem__(self, i):
            self.image.seek(i)
            return self.image, i % 2

    data = from_dataset(Frames(), Frames())
    assert (data.train[0][:] == IMAGES[:12]).all()
    assert data.fingerprint == from_arrays(*[(IMAGES[:12], np.arange(12) % 2)] * 2).fingerprint


def test_a_reason_that_images_share_is_given_once():
    images = [np.zeros((8, 8, 5 if i % 2 else 3), np.uint8) for i in range(24)]
    with pytest.raises(KdfastError) as raised:
        from_arrays((images, [i % 3 for i in range(24)]))
    assert str(raised.value).count('expected height × width') == 1
    assert 'train/01, train/03, train/05' in str(raised.value) and 'train/19 and 2 more (an array' in str(raised.value)


def test_all_reasons_are_counted():
    images = [np.zeros((8, 8, channels), np.uint8) for channels in (3, 3, 3, *range(5, 18), 17)]
    with pytest.raises(KdfastError, match=r'^arrays: cannot read train/03 .*; train/12 \([^;]* and 4 more: replace'):
        from_arrays((images, [i % 2 for i in range(len(images))]))


def test_a_data_set_describes_itself_in_a_line():
    images = np.arange(12 * 8 * 6 * 3).reshape(12, 8, 6, 3).astype(np.uint8)
    data = from_arrays((images, list('abc') * 4), (images[:6] + 1, list('abc') * 2))
    assert repr(data) == 'Data(arrays: 12 training images, 6 validation images; 8×6 pixels; 3 classes)'
