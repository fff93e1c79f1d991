"Splits and classes by the names of folders."

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.layouts.splits import split_of
from kdfast.data.naming import source_stamp


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
def test_usual_names_of_splits(word, split):
    assert split_of(word) == split


def draw_folders(folder, n, *names):
    for k, name in enumerate(names):
        draw_images(folder / name, n, k)


def draw_images(folder, n, seed):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, n])
    for i in range(n):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f'{i}.png')


def counts(data):
    return [len(data.train[1]), len(data.valid[1]), 0 if data.test is None else len(data.test[1])]


def test_train_may_be_a_class(tmp_path):
    "A class named train is not a split, with and without folders inside"
    draw_folders(tmp_path / 'flat', 5, 'bus', 'car', 'train')
    draw_folders(tmp_path / 'deep', 5, 'bus/city', 'car/sport', 'train/steam', 'train/electric')
    assert [load(str(tmp_path / name)).classes for name in ('flat', 'deep')] == [['bus', 'car', 'train']] * 2
    draw_folders(
        tmp_path / 'split', 5, *(f'{split}/{name}' for split in ('train', 'test') for name in ('bus', 'train'))
    )
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
def test_usual_folder_structures(tmp_path, names, expected):
    draw_folders(tmp_path / 'photos', 5, *names)
    assert load(str(tmp_path / 'photos')).classes == expected


@pytest.mark.parametrize('outer', ['train', 'Training', 'test', 'validation', 'pets'])
def test_an_outer_folder_may_be_named_like_a_split(tmp_path, outer):
    draw_folders(tmp_path / 'pets' / outer / 'train', 4, 'cat', 'dog')
    draw_folders(tmp_path / 'pets' / outer / 'test', 2, 'cat', 'dog')
    found = load(str(tmp_path / 'pets'))
    assert found.classes == ['cat', 'dog'] and counts(found) == [8, 4, 0]


def test_classes_may_be_named_like_splits(tmp_path):
    draw_folders(tmp_path / 'words' / 'train', 4, 'train', 'test')
    draw_folders(tmp_path / 'words' / 'valid', 2, 'train', 'test')
    found = load(str(tmp_path / 'words'))
    assert found.classes == ['test', 'train'] and counts(found) == [8, 4, 0]


def test_spreadsheet_is_rejected(tmp_path):
    draw_images(tmp_path / 'photos' / 'images', 5, 0)
    (tmp_path / 'photos' / 'labels.xlsx').write_bytes(b'PK')
    with pytest.raises(KdfastError, match='save labels.xlsx as labels.csv'):
        load(str(tmp_path / 'photos'))


def test_sample_folder_is_skipped(tmp_path):
    draw_folders(
        tmp_path / 'dogscats',
        4,
        *(f'{split}/{name}' for split in ('train', 'valid', 'sample/train', 'sample/valid') for name in ('cat', 'dog')),
        'models',
    )
    found = load(str(tmp_path / 'dogscats'))
    assert counts(found) == [8, 8, 0] and found.notes[0] == 'skipped, in no folder of a class: 20 (models/0.png, …)'


def test_unlabeled_images_are_skipped(tmp_path):
    draw_folders(tmp_path / 'a', 5, 'cat', 'dog', 'test')
    draw_folders(tmp_path / 'b', 5, 'train/cat', 'train/dog', 'test')
    for name in 'ab':
        found = load(str(tmp_path / name))
        assert found.classes == ['cat', 'dog'] and 'skipped, in no folder of a class: 5 (test/0.png, …)' in found.notes


def test_system_files_are_skipped(tmp_path):
    draw_folders(
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
    (tmp_path / 'photos' / 'Thumbs.db').write_bytes(b'x')
    (tmp_path / 'photos' / 'dog' / '._1.png').write_bytes(b'x')
    found = load(str(tmp_path / 'photos'))
    assert found.classes == ['cat', 'dog'] and found.notes[0] == 'skipped, system files: 7 ($RECYCLE.BIN, …)'


def test_test_images_are_kept_for_the_end(tmp_path):
    draw_folders(
        tmp_path / 'photos', 4, *(f'{split}/{name}' for split in ('train', 'val', 'test') for name in ('cat', 'dog'))
    )
    found = load(str(tmp_path / 'photos'))
    assert counts(found) == [8, 8, 8] and 'test images, evaluated once, after training: 8' in found.notes
    assert found.about['validates'] == 'valid'
    held = load(str(tmp_path / 'photos'), holdout=0.25)
    assert counts(held) == [6, 2, 8] and (held.test[0][:] == found.test[0][:]).all()
    draw_images(tmp_path / 'photos' / 'test' / 'dog', 3, 99)
    # what will be evaluated at the end is part of the data
    assert load(str(tmp_path / 'photos')).fingerprint != found.fingerprint


def test_rare_and_unvalidated_classes_give_notes(tmp_path):
    for n, names in ((40, ['train/cat', 'train/dog']), (3, ['valid/cat', 'valid/dog']), (2, ['train/lynx'])):
        draw_folders(tmp_path / 'a', n, *names)
    found = load(str(tmp_path / 'a'))
    assert found.classes == ['cat', 'dog', 'lynx'] and counts(found) == [82, 6, 0]
    assert 'rare classes: 1 (lynx: 2 training images)' in found.notes
    assert 'classes without validation images: 1 (lynx)' in found.notes
    draw_folders(tmp_path / 'b', 10, 'cat', 'dog')
    draw_folders(tmp_path / 'b', 1, 'lynx')
    held = load(str(tmp_path / 'b'))
    assert counts(held) == [17, 4, 0] and held.train[1].tolist().count(2) == 1
    assert 'classes without validation images: 1 (lynx)' in held.notes


@pytest.mark.parametrize(
    'names,n_noted',
    [
        (('red', 'red shirt', 'shirt'), 1),
        (('a b', 'b a', 'c'), 2),
        (('red|dress', 'red', 'dress'), 1),
        (('German shepherd', 'Welsh corgi', 'poodle'), 0),
        (('cat', 'dog'), 0),
    ],
)
def test_names_that_look_like_several_labels_give_a_note(tmp_path, names, n_noted):
    draw_folders(tmp_path / 'photos', 5, *names)
    notes = [note for note in load(str(tmp_path / 'photos')).notes if 'several labels' in note]
    assert len(notes) == bool(n_noted) and all(f': {n_noted} (' in note for note in notes)


def test_folders_without_images_give_a_note(tmp_path):
    draw_folders(tmp_path / 'photos', 5, 'cat', 'dog')
    (tmp_path / 'photos' / 'eel' / 'later').mkdir(parents=True)
    (tmp_path / 'photos' / '@eaDir').mkdir()
    notes = load(str(tmp_path / 'photos')).notes
    assert 'folders without images, which are no classes: 1 (eel)' in notes


@pytest.mark.parametrize(
    'names,note',
    [
        (('cat', 'dog', 'NaN'), 'classes whose names may mean that the label is missing: 1 (NaN: 5 images)'),
        (('1', '01', '2'), 'classes whose names are the same number: 1 (1)'),
        (('0', '0.0', '10'), 'classes whose names are the same number: 1 (0)'),
        (('1', '10', '100'), ''),
    ],
)
def test_names_of_classes_that_look_like_a_mistake_give_a_note(tmp_path, names, note):
    draw_folders(tmp_path / 'photos', 5, *names)
    notes = [n for n in load(str(tmp_path / 'photos')).notes if n.startswith('classes whose')]
    assert notes == ([note] if note else [])


def test_a_stamp_has_names_sizes_and_times_of_all_files(tmp_path):
    names = ['a/1.jpg', 'a/é "x"\\.png', 'a b/\u2028\t.jpg', 'a.txt']
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(i))
    stats = [(name, (tmp_path / name).stat()) for name in names]
    expected = [str(tmp_path), *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)]
    assert source_stamp(tmp_path) == json.dumps(expected)


@pytest.mark.parametrize('name', ['images', 'photo'])
def test_unlabeled_images_in_a_folder_of_test_images_are_skipped_unless_it_is_a_class(tmp_path, name):
    draw_folders(tmp_path / 'pets', 5, 'train/cat', 'train/dog', f'test/{name}')
    found = load(str(tmp_path / 'pets'))
    assert found.classes == ['cat', 'dog'] and counts(found) == [8, 2, 0]
    assert any(note.startswith('skipped, in no folder of a class: 5 (test/') for note in found.notes)
    draw_folders(tmp_path / 'kinds', 5, f'train/{name}', 'train/sketch', f'test/{name}', 'test/sketch')
    assert counts(load(str(tmp_path / 'kinds'))) == [10, 10, 0]


OUTER = [
    'train/train',
    'train/brain',
    'train/images',
    'train/dataset/data',
    'test/a_test',
    'train/train/train',
    'a/val/b',
]


@pytest.mark.parametrize('splits', [('train', 'test'), ('train', 'valid', 'test')])
@pytest.mark.parametrize('outer', OUTER)
def test_several_outer_folders_may_be_named_like_splits(tmp_path, outer, splits):
    for n, split in zip((4, 2, 3), splits):
        draw_folders(tmp_path / 'pets' / outer / split, n, 'cat', 'dog')
    found = load(str(tmp_path / 'pets'))
    assert found.classes == ['cat', 'dog'] and counts(found) == [8, 4, 6 * (len(splits) > 2)]


@pytest.mark.parametrize('form', ['{name}/{split}/{label}', '{label}/{split}'])
@pytest.mark.parametrize('outer', ['train', 'data/train'])
def test_splits_in_folders_of_a_split_are_refused_with_the_path_to_give(tmp_path, outer, form):
    for n, split in ((4, 'train'), (2, 'test')):
        names = [form.format(name=name, split=split, label=label) for name in ('brain', 'lung') for label in 'ab']
        draw_folders(tmp_path / 'scans' / outer, n, *names)
    with pytest.raises(KdfastError, match='is in a folder of training images, and has folders of splits in it') as e:
        load(str(tmp_path / 'scans'))
    path = e.value.message.rpartition('--data ')[2]
    found = load(path)
    assert found.classes == ['a', 'b'] and counts(found) == [8, 4, 0]


@pytest.mark.parametrize('beside', [(), ('test',)])
@pytest.mark.parametrize('name', ['valid', 'val', 'Test', 'train', 'validation_set'])
def test_folders_of_splits_beside_classes_are_refused(tmp_path, name, beside):
    folders = ['train', f'train/{name}', *beside]
    draw_folders(tmp_path / 'pets', 4, *(f'{folder}/{label}' for folder in folders for label in ('cat', 'dog')))
    with pytest.raises(KdfastError, match=f'train/{name} is named after a split, .* classes cat, dog, .* move it out'):
        load(str(tmp_path / 'pets'))
    shutil.move(tmp_path / 'pets' / 'train' / name, tmp_path / 'pets' / f'{name}2')
    assert load(str(tmp_path / 'pets')).classes == ['cat', 'dog']


def test_classes_of_training_images_with_the_name_of_a_split_are_noted(tmp_path):
    draw_folders(tmp_path / 'pets', 5, 'train/cat', 'train/dog', 'train/val')
    note = 'classes that are named after splits, in the folder of training images: 1 (val)'
    assert note in load(str(tmp_path / 'pets')).notes
    draw_folders(
        tmp_path / 'rails', 5, *(f'{split}/{name}' for split in ('train', 'test') for name in ('bus', 'train'))
    )
    assert not any('named after splits' in note for note in load(str(tmp_path / 'rails')).notes)
