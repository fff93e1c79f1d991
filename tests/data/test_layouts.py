"What people have is read: layouts, containers and formats; what is not, is refused with its cause and its remedy."

import io
import pickle

import numpy as np
import pytest
import written
from conftest import CLASSES
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.core.notes import Notes
from kdfast.data import load
from kdfast.data.archives import archive_entries
from kdfast.data.layouts.base import split_of
from kdfast.data.safe_pickle import load_pickle


@pytest.mark.parametrize('layout', written.LAYOUTS)
def test_every_layout_is_read(layout, tmp_path):
    assert not written.right(
        load(str(written.to_folder(tmp_path / 'photos', written.files_of(layout, 'PNG')))), layout, 'PNG'
    )


@pytest.mark.parametrize('container', written.CONTAINERS)
@pytest.mark.parametrize('layout', ['class', 'train, valid, test', 'labels.csv'])
def test_every_container_is_read(container, layout, tmp_path):
    assert not written.right(
        load(str(written.CONTAINERS[container](tmp_path / 'photos', written.files_of(layout, 'PNG')))), layout, 'PNG'
    )


@pytest.mark.parametrize('kind', written.FORMATS)
def test_every_format_is_read(kind, tmp_path):
    assert not written.right(
        load(str(written.to_folder(tmp_path / 'photos', written.files_of('class', kind)))), 'class', kind
    )


@pytest.mark.parametrize('name', written.SOURCES)
def test_every_form_of_its_own_is_read(name, tmp_path):
    make, splits, how = written.SOURCES[name]
    for put in (written.to_folder, lambda path, files: written.to_tar(path, files, 'gz')):
        assert not written.compare(load(str(put(tmp_path / 'photos', make()))), splits, **how)


@pytest.mark.parametrize('name', written.ARRAYS)
def test_arrays_are_read(name, tmp_path):
    make, splits = written.ARRAYS[name]
    assert not written.compare(
        load(str(next(written.to_folder(tmp_path, make()).glob('*.npz')))), splits, classes=['0', '1', '2']
    )


@pytest.mark.parametrize('name', written.REFUSED)
def test_what_is_not_read_is_refused_with_its_cause_and_its_remedy(name, tmp_path):
    files, words = written.REFUSED[name]
    with pytest.raises(KdfastError) as e:
        load(str(written.to_folder(tmp_path / 'photos', files())))
    assert not [word for word in words if word not in e.value.message], e.value.message


# Splits


@pytest.mark.parametrize(
    'word,split',
    [
        *(
            (word, 'train')
            for word in (
                'train',
                'Train',
                'TRAINING',
                'training_set',
                'train-images',
                'seg_train',
                'train2017',
                'TrainImages',
                'trainval',
                'Training Set (1)',
            )
        ),
        *((word, 'valid') for word in ('val', 'valid', 'Validation', 'dev', 'val_data', 'evaluation', 'PublicTest')),
        *((word, 'test') for word in ('test', 'Testing', 'test1', 'test_images', 'PrivateTest')),
        *(
            (word, None)
            for word in (
                'cat',
                'training wheels',
                'trains',
                'images',
                'test_cats',
                'train_test',
                'values',
                '',
                '2017',
                'поезд',
            )
        ),
    ],
)
def test_the_usual_names_of_splits(word, split):
    assert split_of(word) == split


def put(folder, n, *names):
    for k, name in enumerate(names):
        draw_one(folder / name, n, k)


def draw_one(folder, n, seed):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, n])
    for i in range(n):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f'{i}.png')


def counts(data):
    return [len(data.train[1]), len(data.valid[1]), 0 if data.test is None else len(data.test[1])]


def test_vehicles_may_be_trains(tmp_path):
    "A class that is called train is no split, whether its images lie in folders below it or not"
    (
        put(tmp_path / 'flat', 5, 'bus', 'car', 'train'),
        put(tmp_path / 'deep', 5, 'bus/city', 'car/sport', 'train/steam', 'train/electric'),
    )
    assert [load(str(tmp_path / name)).classes for name in ('flat', 'deep')] == [['bus', 'car', 'train']] * 2
    put(tmp_path / 'split', 5, *(f'{split}/{name}' for split in ('train', 'test') for name in ('bus', 'train')))
    assert load(str(tmp_path / 'split')).classes == ['bus', 'train']
    assert counts(load(str(tmp_path / 'split'))) == [10, 10, 0]


@pytest.mark.parametrize(
    'names,expected',
    [
        (['ILSVRC/Data/train/n1', 'ILSVRC/Data/train/n2', 'ILSVRC/Data/val', 'ILSVRC/Data/test'], ['n1', 'n2']),
        (['train/images/cat', 'train/images/dog', 'val/images/cat', 'val/images/dog'], ['cat', 'dog']),
        (['train/cat', 'train/dog', 'sample/cat', 'sample/dog'], ['cat', 'dog']),
        (['set/images/cat', 'set/images/dog'], ['cat', 'dog']),
        (['cat/a', 'cat/b', 'dog'], ['cat', 'dog']),
        (
            ['archive/Training/cat', 'archive/Training/dog', 'archive/Testing/cat', 'archive/Testing/dog'],
            ['cat', 'dog'],
        ),
        (
            [
                'cats_and_dogs/training_set/training_set/cats',
                'cats_and_dogs/training_set/training_set/dogs',
                'cats_and_dogs/test_set/test_set/cats',
                'cats_and_dogs/test_set/test_set/dogs',
            ],
            ['cats', 'dogs'],
        ),
        (['a/train/x', 'a/train/y', 'b/test/x', 'b/test/y'], ['x', 'y']),
    ],
)
def test_folders_as_people_have_them(tmp_path, names, expected):
    put(tmp_path / 'photos', 5, *names)
    assert load(str(tmp_path / 'photos')).classes == expected


def test_a_spreadsheet_is_to_be_saved_as_text(tmp_path):
    draw_one(tmp_path / 'photos' / 'images', 5, 0)
    (tmp_path / 'photos' / 'labels.xlsx').write_bytes(b'PK')
    with pytest.raises(KdfastError, match='save labels.xlsx as labels.csv'):
        load(str(tmp_path / 'photos'))


def test_a_sample_beside_the_splits_is_left_out_and_said(tmp_path):
    put(
        tmp_path / 'dogscats',
        4,
        *(f'{split}/{name}' for split in ('train', 'valid', 'sample/train', 'sample/valid') for name in ('cat', 'dog')),
        'models',
    )
    found = load(str(tmp_path / 'dogscats'))
    assert counts(found) == [8, 8, 0] and found.notes[0] == 'skipped, in no folder of a class: 20 (models/0.png, …)'


def test_images_that_nobody_has_labelled_are_left_out_and_said(tmp_path):
    put(tmp_path / 'a', 5, 'cat', 'dog', 'test'), put(tmp_path / 'b', 5, 'train/cat', 'train/dog', 'test')
    for name in 'ab':
        found = load(str(tmp_path / name))
        assert found.classes == ['cat', 'dog'] and 'skipped, in no folder of a class: 5 (test/0.png, …)' in found.notes


def test_what_programs_have_left_is_left_out_and_counted(tmp_path):
    put(
        tmp_path / 'photos',
        5,
        'cat',
        'dog',
        'cat/.ipynb_checkpoints',
        '@eaDir',
        '$RECYCLE.BIN',
        'cat/.thumbnails',
        '.git/objects',
    )
    (tmp_path / 'photos' / 'Thumbs.db').write_bytes(b'x'), (tmp_path / 'photos' / 'dog' / '._1.png').write_bytes(b'x')
    found = load(str(tmp_path / 'photos'))
    assert found.classes == ['cat', 'dog'] and found.notes[0] == 'skipped, system files: 7 ($RECYCLE.BIN, …)'


def test_three_splits_are_kept_apart_and_the_test_images_have_no_part_in_training(tmp_path):
    put(tmp_path / 'photos', 4, *(f'{split}/{name}' for split in ('train', 'val', 'test') for name in ('cat', 'dog')))
    found = load(str(tmp_path / 'photos'))
    assert counts(found) == [8, 8, 8] and 'test images, kept apart: 8' in found.notes
    assert found.about['validates'] == 'valid'
    held = load(str(tmp_path / 'photos'), holdout=0.25)
    assert counts(held) == [6, 2, 8] and (held.test[0][:] == found.test[0][:]).all()
    draw_one(tmp_path / 'photos' / 'test' / 'dog', 3, 99)
    # what will be evaluated at the end is part of the data
    assert load(str(tmp_path / 'photos')).fingerprint != found.fingerprint


# Classes


def test_rare_classes_and_those_without_validation_images_are_trained_and_said(tmp_path):
    for n, names in ((40, ['train/cat', 'train/dog']), (3, ['valid/cat', 'valid/dog']), (2, ['train/lynx'])):
        put(tmp_path / 'a', n, *names)
    found = load(str(tmp_path / 'a'))
    assert found.classes == ['cat', 'dog', 'lynx'] and counts(found) == [82, 6, 0]
    assert 'rare classes: 1 (lynx: 2 training images)' in found.notes
    assert 'classes without validation images: 1 (lynx)' in found.notes
    put(tmp_path / 'b', 10, 'cat', 'dog'), put(tmp_path / 'b', 1, 'lynx')
    held = load(str(tmp_path / 'b'))
    assert counts(held) == [17, 4, 0] and held.train[1].tolist().count(2) == 1
    assert 'classes without validation images: 1 (lynx)' in held.notes


@pytest.mark.parametrize(
    'names,said',
    [
        (('red', 'red shirt', 'shirt'), 1),
        (('a b', 'b a', 'c'), 2),
        (('red|dress', 'red', 'dress'), 1),
        (('German shepherd', 'Welsh corgi', 'poodle'), 0),
        (('cat', 'dog'), 0),
    ],
)
def test_labels_that_look_like_several_are_asked_about(tmp_path, names, said):
    put(tmp_path / 'photos', 5, *names)
    notes = [note for note in load(str(tmp_path / 'photos')).notes if 'several labels' in note]
    assert len(notes) == bool(said) and all(f': {said} (' in note for note in notes)


# Official files


class Python2(pickle._Pickler):
    "Pickles text as Python 2 did, in which CIFAR was written"

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, text):
        text = text.encode() if isinstance(text, str) else bytes(text)
        self.write(pickle.BINSTRING + len(text).to_bytes(4, 'little') + text)

    dispatch[bytes] = dispatch[str] = save_text


def as_python2(value):
    out = io.BytesIO()
    Python2(out, protocol=2).dump(value)
    return out.getvalue().replace(b'numpy._core', b'numpy.core')


@pytest.mark.parametrize(
    'dump',
    [as_python2, *(lambda value, protocol=protocol: pickle.dumps(value, protocol) for protocol in range(6))],
    ids=['Python 2', *map(str, range(6))],
)
@pytest.mark.parametrize('make', [written.cifar10, written.cifar100])
def test_pickles_of_cifar_are_read_whoever_wrote_them(dump, make, tmp_path):
    assert not written.compare(load(str(written.to_folder(tmp_path, make(dump)))), written.BOTH, side=32)


@pytest.mark.parametrize('name,make', [('CIFAR10', written.cifar10), ('CIFAR100', written.cifar100)])
def test_an_official_archive_is_what_torchvision_reads(name, make, tmp_path, monkeypatch):
    "The same images in the same order, to the bit, by its name and by its path"
    from torchvision import datasets

    monkeypatch.setattr(getattr(datasets, name), '_check_integrity', lambda self: True)
    monkeypatch.setattr(getattr(datasets, name), '_load_meta', lambda self: setattr(self, 'classes', CLASSES))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    written.to_folder(tmp_path / 'cache' / 'kdfast' / 'torchvision', make(as_python2))
    by_path, by_name = load(str(written.to_tar(tmp_path / 'cifar', make(as_python2), 'gz'))), load(name.lower())
    assert by_path.fingerprint == by_name.fingerprint and (by_path.mean, by_path.std) == (by_name.mean, by_name.std)
    assert by_path.augment == by_name.augment == 'flip'


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize(
    'wrap',
    [
        lambda p: p,
        lambda p: {b'data': p},
        lambda p: np.array([p], object),
        lambda p: {b'data': np.array([p], object)},
        lambda p: {b'data': np.zeros(2), b'labels': [p]},
    ],
    ids=range(5),
)
def test_a_pickle_is_never_run(tmp_path, wrap, protocol):
    content = pickle.dumps(wrap(Payload(tmp_path / 'canary')), protocol)
    with pytest.raises(KdfastError, match='it would run|Python objects'):
        load_pickle(lambda: io.BytesIO(content), 'x')
    assert not (tmp_path / 'canary').exists()


def test_published_sets_are_those_of_torchvision():
    from torchvision import datasets

    from kdfast.data import published

    assert all(hasattr(datasets, kind) for kind, _ in published.NAMES.values())


def test_a_published_set_without_a_network_names_the_way_out(monkeypatch):
    def offline(root, download, **how):
        raise OSError('no route to host')

    monkeypatch.setattr('torchvision.datasets.CIFAR100', offline)
    with pytest.raises(
        KdfastError,
        match=r'CIFAR100 could not be downloaded from .*\(no route to host\): go online once, or pass '
        r'its official archive with --data PATH',
    ):
        load('cifar100')


# Shards


def test_a_shard_by_its_own_path_and_numbers_with_names(tmp_path):
    shard = written.shards(written.TRAIN)['train-000000.tar']
    (tmp_path / 'x.tar').write_bytes(shard)
    assert not written.compare(load(str(tmp_path / 'x.tar')), written.TRAIN)
    files = {'0.png': b'', '1.png': b'', '0.cls': b'0', '1.cls': b'1'} | {
        f'{i}.png': written.plain('PNG')(written.pixels('train', i, 0)) for i in range(2)
    }
    written.to_folder(
        tmp_path / 'numbered',
        {'train-0.tar': written.tar_bytes(files), 'val-0.tar': written.tar_bytes(files), 'classes.txt': b'ape\nbee\n'},
    )
    assert load(str(tmp_path / 'numbered')).classes == ['ape', 'bee']


def test_a_shard_that_leads_out_is_refused(tmp_path):
    written.to_folder(tmp_path / 'set', {'train-0.tar': written.tar_bytes({'../0.png': b'x', '../0.cls': b'0'})})
    with pytest.raises(KdfastError, match='is a path outside the archive'):
        load(str(tmp_path / 'set'))


# Archives


def test_a_small_zip_at_the_end_of_a_tar_makes_it_no_zip(tmp_path):
    archive = written.to_zip(tmp_path / 'inner', {'x.txt': b'x'})
    made = written.to_tar(tmp_path / 'photos', written.files_of('class', 'PNG') | {'inner.zip': archive.read_bytes()})
    assert counts(load(str(made))) == [9, 3, 0]


def test_names_in_utf8_that_are_not_marked_so_are_read(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as z:
        z.writestr('кошка/1.png', b'x')
    content = bytearray((tmp_path / 'x.zip').read_bytes())
    for magic, at in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
        content[content.index(magic) + at + 1] &= ~8  # the mark
    (tmp_path / 'x.zip').write_bytes(content)
    with archive_entries(tmp_path / 'x.zip', Notes()) as found:
        assert list(found) == ['кошка/1.png']


@pytest.mark.parametrize(
    'content,said',
    [
        (b'7z\xbc\xaf\x27\x1c', 'a 7z archive: unpack it'),
        (b'Rar!\x1a\7', 'a RAR archive: unpack it'),
        (b'<html>', 'a web page'),
        (b'', 'it is empty'),
        (b'\x1f\x8b\x08\0', 'truncated'),
        (b'hello', 'neither a zip nor a tar'),
    ],
)
def test_what_is_no_archive_is_named(tmp_path, content, said):
    (tmp_path / 'x.zip').write_bytes(content)
    with pytest.raises(KdfastError, match=said):
        load(str(tmp_path / 'x.zip'))


def test_zstandard_that_is_cut_off_is_named(tmp_path):
    made = written.to_tar(tmp_path / 'x', written.files_of('class', 'PNG'), 'zst')
    made.write_bytes(made.read_bytes()[:-200])
    with pytest.raises(KdfastError, match='is not a readable archive'):
        load(str(made))
