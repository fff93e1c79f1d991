"Names that differ only in the split are splits, of folders, shards, Parquet files, lists and tables."

import numpy as np
import pytest
import samples
from PIL import Image
from samples.hubs import arrow_bytes, hugging_face_table, parquet_bytes

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.layouts.splits import find_splits, split_of

JOINED = [('petstrain', 'petstest'), ('trainpets', 'valpets')]
PAIRS = [
    *JOINED,
    ('pets-train', 'pets-test'),
    ('flowers_train', 'flowers_val'),
    ('Pets Training Set', 'Pets Validation Set'),
    ('train_pets', 'test_pets'),
    ('PetsTrain', 'PetsTest'),
    ('imagenet1k-train-0000', 'imagenet1k-validation-00'),
    ('cifar10-train', 'cifar10-test'),
]

WORDS = [  # that contain the word of a split
    ('restrain',),
    ('latest', 'greatest'),
    ('contest', 'detest', 'restrain'),
    ('retrain', 'retest', 'pretrain', 'pretest', 'detrain', 'detest'),
    ('trainers', 'testers', 'trainees', 'testees', 'trainer', 'tester'),
    ('interval', 'intertest'),
    ('petstrain', 'dogstest'),
    ('value', 'device', 'carnival', 'rival'),
]


@pytest.mark.parametrize(
    'names,expected',
    [
        *((pair, ['train', 'valid' if 'val' in pair[1].lower() else 'test']) for pair in PAIRS),
        (('train_station', 'bus_stop'), [None, None]),
        (('bullet train', 'bus', 'train'), [None, None, 'train']),
        (('train_station', 'test_tube', 'eval'), [None, None, 'valid']),
        (('pets-train', 'dogs-test'), [None, None]),
        (('pets-train', 'pets-training'), [None, None]),
        (('train', 'test', 'old-train', 'old-test'), ['train', 'test', None, None]),
        (('pets-train-00000-of-00002.tar', 'pets-test.tar'), ['train', 'test']),
        (('pets-val', 'pets-test', 'pets-train_test'), ['valid', 'test', None]),
        (('petstrain', 'petsval', 'petstest', 'petstrainval'), ['train', 'valid', 'test', 'train']),
        (('pets-train', 'petstest'), ['train', 'test']),
        (('PETSTRAININGSET', 'PETSTESTIMAGES'), ['train', 'test']),
        *((words, [None] * len(words)) for words in WORDS),
    ],
)
def test_names_that_differ_in_the_split_alone(names, expected):
    assert [find_splits([('data', name) for name in names]).get(('data', name)) for name in names] == expected
    apart = [(str(n), name) for n, name in enumerate(names)]  # each in another folder
    assert set(find_splits(apart)) <= {path for path in apart if path[1] in ('train', 'test', 'eval')}


def draw_folders(folder, n, *names):
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng([n, k])
        for i in range(n):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f'of {name.replace("/", "-")}-{i}.png')


def counts(data):
    return [len(data.train[1]), len(data.valid[1])]


@pytest.mark.parametrize('form', ['{}/{}', 'data/{}/{}', '{1}/{0}', 'data/{0}/images/{1}'])
@pytest.mark.parametrize('pair', PAIRS)
def test_folders_that_differ_in_the_split(tmp_path, pair, form):
    for n, split in zip((5, 3), pair):
        draw_folders(tmp_path / 'photos', n, *(form.format(split, name) for name in ('cat', 'dog')))
    found = load(str(tmp_path / 'photos'))
    assert found.classes == ['cat', 'dog'] and counts(found) == [10, 6]
    assert_note_if_joined(found, pair)


def assert_note_if_joined(found, pair):
    said = [note for note in found.notes if note.startswith('taken for splits')]
    assert len(said) == (pair in JOINED) and all(name in note for name in pair for note in said), found.notes
    assert not said or ' is training' in said[0] and (' is test' in said[0] or ' is validation' in said[0])


@pytest.mark.parametrize('names', [('trainset', 'valset'), ('trainimages', 'testdata'), ('imgstrain', 'validation')])
def test_words_that_say_nothing_else_may_be_joined(names):
    assert [split_of(name) for name in names] == ['train', 'valid' if 'val' in names[1] else 'test']


@pytest.mark.parametrize('words', [words for words in WORDS if len(words) > 1])
def test_classes_whose_names_contain_a_split(tmp_path, words):
    draw_folders(tmp_path / 'photos', 5, *words)
    found = load(str(tmp_path / 'photos'))
    assert found.classes == sorted(words) and not any('splits' in note for note in found.notes)


@pytest.mark.parametrize(
    'form', ['{0}_x,{0}_y', 'x{0},y{0}', '{0}x,{0}y', '{0}images,{0}labels', 'pets{0}_x,pets{0}_y']
)
def test_arrays_whose_names_join_split_and_role(tmp_path, form):
    (tmp_path / 'arrays').mkdir()
    for split, n in (('train', 6), ('test', 4)):
        images = np.random.default_rng(n).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
        for name, array in zip(form.format(split).split(','), (images, np.arange(n) % 2)):
            np.save(tmp_path / 'arrays' / f'{name}.npy', array)
    assert counts(load(str(tmp_path / 'arrays'))) == [6, 4]


def test_unlabeled_images_beside_are_skipped(tmp_path):
    draw_folders(tmp_path / 'photos', 5, 'pets-train/cat', 'pets-train/dog', 'pets-test')
    found = load(str(tmp_path / 'photos'))
    assert found.classes == ['cat', 'dog'] and counts(found) == [8, 2]


def test_words_of_splits_in_names_of_classes(tmp_path):
    draw_folders(tmp_path / 'photos', 5, 'train_station', 'bullet train', 'test tube')
    assert load(str(tmp_path / 'photos')).classes == ['bullet train', 'test tube', 'train_station']


@pytest.mark.parametrize(
    'names', [('cat-train', 'cat-test', 'dog-train', 'dog-test'), ('trainA', 'trainB', 'testA', 'testB'), *JOINED]
)
def test_splits_without_folders_of_classes_are_refused(tmp_path, names):
    draw_folders(tmp_path / 'photos', 3, *names)
    with pytest.raises(KdfastError, match=f'{sorted(names)[0]}.* differ only in the split.*expected <class>/<image>'):
        load(str(tmp_path / 'photos'))


@pytest.mark.parametrize('pair', JOINED)
def test_a_note_names_joined_folders_below_a_table_and_none_below_classes(tmp_path, pair):
    draw_folders(tmp_path / 'table', 6, *pair)
    rows = [
        f'{f.relative_to(tmp_path / "table")},{"cat" if i % 2 else "dog"}'
        for i, f in enumerate(sorted((tmp_path / 'table').rglob('*.png')))
    ]
    (tmp_path / 'table' / 'labels.csv').write_text('\n'.join(['name,label', *rows]))
    assert_note_if_joined(load(str(tmp_path / 'table')), pair)
    draw_folders(tmp_path / 'classes', 5, *(f'cat/{name}' for name in pair), 'dog/other', 'eel/other')
    found = load(str(tmp_path / 'classes'))
    assert found.classes == ['cat', 'dog', 'eel'] and not any('taken for splits' in note for note in found.notes)


@pytest.mark.parametrize('pair', PAIRS)
def test_files_that_differ_in_the_split(tmp_path, pair):
    pytest.importorskip('pyarrow')
    shards = samples.shards()
    tables = {split: hugging_face_table(split, strings=False) for split in samples.BOTH}
    for kind, contents in dict(
        tar=[shards['train-000000.tar'], shards['valid-000000.tar']],
        parquet=[parquet_bytes(tables[split]) for split in samples.BOTH],
        arrow=[arrow_bytes(tables[split]) for split in samples.BOTH],
    ).items():
        folder = samples.to_folder(
            tmp_path / kind, {f'{name}.{kind}': content for name, content in zip(pair, contents)}
        )
        found = load(str(folder))
        assert not samples.find_difference(found, samples.BOTH), kind
        assert_note_if_joined(found, pair)


@pytest.mark.parametrize('pair', PAIRS[:-2])
def test_lists_and_tables_that_differ_in_the_split(tmp_path, pair):
    draw_folders(tmp_path / 'lists', 5, 'images/cat', 'images/dog')
    draw_folders(tmp_path / 'tables', 10, 'images')
    for i, split in enumerate(pair):
        names = sorted((tmp_path / 'lists').rglob('*.png'))[i::2]
        (tmp_path / 'lists' / f'{split}.txt').write_text('\n'.join(f'{f.parent.name}/{f.name}' for f in names))
        rows = [
            f'{f.name},{"cat" if k % 2 else "dog"}' for k, f in enumerate(sorted((tmp_path / 'tables').rglob('*.png')))
        ]
        (tmp_path / 'tables' / f'{split}.csv').write_text('\n'.join(['name,label', *(rows[6:] if i else rows[:6])]))
    for kind, expected in dict(lists=[5, 5], tables=[6, 4]).items():
        found = load(str(tmp_path / kind))
        assert counts(found) == expected
        assert_note_if_joined(found, pair)


@pytest.mark.parametrize('top', ['', 'data/'])
def test_splits_below_classes_with_an_image_beside_the_classes(tmp_path, top):
    names = [f'{top}{name}/{split}' for name in ('cat', 'dog') for split in ('train', 'test')]
    draw_folders(tmp_path / 'photos', 5, *names)
    draw_folders(tmp_path / 'photos', 1, '.' if not top else 'data')
    found = load(str(tmp_path / 'photos'))
    assert found.classes == ['cat', 'dog'] and counts(found) == [10, 10]
    assert any(note.startswith('skipped, in no folder of a class: 1 (') for note in found.notes)


@pytest.mark.parametrize('stray', ['cat', 'cat/other', 'eel'])
def test_images_of_classes_in_no_split_are_refused(tmp_path, stray):
    draw_folders(tmp_path / 'photos', 5, *(f'{name}/{split}' for name in ('cat', 'dog') for split in ('train', 'test')))
    draw_folders(tmp_path / 'photos', 1, stray)
    with pytest.raises(KdfastError, match=f'{stray}/.*png is in no folder of a split, but cat/test/'):
        load(str(tmp_path / 'photos'))
