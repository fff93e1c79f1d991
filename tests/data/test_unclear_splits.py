"Names that may or may not be those of splits: the note or the error says what to do, and that works."

import shutil

import pandas as pd
import pytest
import samples
from samples.hubs import hugging_face_table, parquet_bytes
from test_split_names import JOINED, PAIRS, assert_note_if_joined, counts, draw_folders

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.from_python import from_frame
from kdfast.data.layouts.splits import find_splits


def draw_table(folder, column, words, columns='name,label,{}'):
    "Images of two classes; six of a class have the first word, the others the second"
    draw_folders(folder / 'images', 10, 'cat', 'dog')
    rows = [
        f'{file.name},{file.parent.name},{words[0] if i % 10 < 6 else words[1]}'
        for i, file in enumerate(sorted((folder / 'images').rglob('*.png')))
    ]
    (folder / 'labels.csv').write_text('\n'.join([columns.format(column), *rows]))


@pytest.mark.parametrize('column', ['split', 'set', 'partition', 'dataset'])
@pytest.mark.parametrize('pair', PAIRS)
def test_cells_of_a_column_of_splits(tmp_path, pair, column):
    draw_table(tmp_path / 'pets', column, pair)
    found = load(str(tmp_path / 'pets'))
    assert counts(found) == [12, 8]
    assert_note_if_joined(found, pair)
    for note in found.notes if pair in JOINED else ():
        assert 'taken for splits' not in note or f'(otherwise rename column {column}, or choose' in note
        assert 'folder' not in note.partition('(otherwise')[2]
    frame = pd.read_csv(tmp_path / 'pets' / 'labels.csv')
    frame['name'] = [f'images/{label}/{name}' for name, label in zip(frame.name, frame.label)]
    found = from_frame(frame, tmp_path / 'pets', name=f'{pair[0]} {column}')
    assert counts(found) == [12, 8]
    assert_note_if_joined(found, pair)


@pytest.mark.parametrize('words', [('petstrain', 'dogstest'), ('interval', 'intertest'), ('fold1train', 'fold2test')])
def test_cells_that_are_no_splits(tmp_path, words):
    draw_table(tmp_path / 'pets', 'set', words)
    assert any(note.startswith('columns that are not used') for note in load(str(tmp_path / 'pets')).notes)
    draw_table(tmp_path / 'dogs', 'split', words)
    with pytest.raises(KdfastError, match="in column split: expected train, valid or test"):
        load(str(tmp_path / 'dogs'))


@pytest.mark.parametrize('form', ['{0}/{0}/{1}', 'data/{0}/{0}/{1}', '{0}/{0}/{0}/{1}', '{0}_v1/{0}/images/{1}'])
@pytest.mark.parametrize('pair', PAIRS)
def test_folders_in_a_folder_of_the_same_name(tmp_path, pair, form):
    for n, split in zip((5, 3), pair):
        draw_folders(tmp_path / 'photos', n, *(form.format(split, name) for name in ('cat', 'dog')))
    found = load(str(tmp_path / 'photos'))
    assert found.classes == ['cat', 'dog'] and counts(found) == [10, 6]


@pytest.mark.parametrize('pair', [('train', 'test'), ('trainpets', 'testpets')])
def test_folders_of_splits_whose_only_folder_joins_the_word(tmp_path, pair):
    for n, split, inner in zip((5, 3), pair, ('petstrain', 'petstest')):
        draw_folders(tmp_path / 'photos', n, *(f'{split}/{inner}/{name}' for name in ('cat', 'dog')))
    found = load(str(tmp_path / 'photos'))
    assert found.classes == ['cat', 'dog'] and counts(found) == [10, 6]


UNLIKE = [('a/petstrain', 'b/petstest'), ('a/pets-train', 'b/pets-test'), ('fold1train', 'fold2test')]
UNLIKE += [('fold_1_train', 'fold_2_val'), ('train_fold1', 'test_fold2'), ('petstrain', 'dogstest')]


@pytest.mark.parametrize('pair', UNLIKE)
def test_folders_that_differ_in_more_are_refused_with_the_way_out(tmp_path, pair):
    for n, split in zip((5, 3), pair):
        draw_folders(tmp_path / 'photos', n, *(f'{split}/{name}' for name in ('cat', 'dog')))
    message = 'and .* seem to be named after splits, but .*: rename them, .* if they are classes, .* folder train/'
    with pytest.raises(KdfastError, match=f'{pair[0]} {message}'):
        load(str(tmp_path / 'photos'))
    for name in [file.name for file in (tmp_path / 'photos').iterdir()]:
        shutil.copytree(tmp_path / 'photos' / name, tmp_path / 'classes' / 'train' / name)
    assert load(str(tmp_path / 'classes')).classes == sorted(name.split('/')[0] for name in pair)
    for split, name in zip(pair, ('pets-train', 'pets-test')):
        shutil.move(tmp_path / 'photos' / split, tmp_path / 'renamed' / name)
    assert counts(load(str(tmp_path / 'renamed'))) == [10, 6]


@pytest.mark.parametrize('pair', UNLIKE)
@pytest.mark.parametrize('kind', ['tar', 'parquet'])
def test_files_that_differ_in_more_are_refused(tmp_path, pair, kind):
    pytest.importorskip('pyarrow')
    shards = [samples.shards()[f'{split}-000000.tar'] for split in samples.BOTH]
    tables = [parquet_bytes(hugging_face_table(split, strings=False)) for split in samples.BOTH]
    contents = dict(tar=shards, parquet=tables)[kind]
    folder = samples.to_folder(tmp_path / kind, {f'{name}.{kind}': c for name, c in zip(pair, contents)})
    with pytest.raises(KdfastError, match=f'{pair[0]}.* seem to be named after splits, but .*: rename them'):
        load(str(folder))


CLASSES = [('crashtest', 'crashtrain'), ('contest', 'contrain'), ('cat-test', 'cat-train')]


@pytest.mark.parametrize('form', ['{}', '{}/front'])
@pytest.mark.parametrize('pair', CLASSES)
def test_classes_that_look_like_splits(tmp_path, pair, form):
    "They are refused, or taken for splits with a note; what the message says then makes them classes"
    draw_folders(tmp_path / 'photos', 5, *map(form.format, pair))
    with pytest.raises(KdfastError, match='if they are classes, put them into a folder train/'):
        load(str(tmp_path / 'photos'))
    (tmp_path / 'moved').mkdir()
    shutil.move(tmp_path / 'photos', tmp_path / 'moved' / 'train')
    found = load(str(tmp_path / 'moved'))
    assert found.classes == list(pair) and not any('taken for splits' in note for note in found.notes)


def test_the_note_on_joined_names_says_the_way_out(tmp_path):
    draw_folders(tmp_path / 'photos', 5, *(f'{name}/{side}' for name in CLASSES[0] for side in ('front', 'rear')))
    found = load(str(tmp_path / 'photos'))
    assert found.classes == ['front', 'rear']
    assert any('otherwise rename them, or put folders of classes into a folder train/' in note for note in found.notes)
    (tmp_path / 'moved').mkdir()
    shutil.move(tmp_path / 'photos', tmp_path / 'moved' / 'train')
    assert load(str(tmp_path / 'moved')).classes == list(CLASSES[0])


@pytest.mark.parametrize('names', [('contrain', 'contest'), ('train', 'petstrain')])
def test_tables_that_are_taken_for_splits_or_not_used(tmp_path, names):
    draw_table(tmp_path / 'pets', 'number', '01')
    header, *rows = (tmp_path / 'pets' / 'labels.csv').read_text().splitlines()
    (tmp_path / 'pets' / 'labels.csv').unlink()
    for i, name in enumerate(names):
        lines = [header, *(row for row in rows if row.endswith(str(i)))]
        (tmp_path / 'pets' / f'{name}.csv').write_text('\n'.join(line.rpartition(',')[0] for line in lines))
    found = load(str(tmp_path / 'pets'))
    if names[0] == 'train':
        assert 'tables that are not used: 1 (petstrain.csv)' in found.notes
        return
    assert_note_if_joined(found, JOINED[0]) if names in JOINED else None
    assert counts(found) == [12, 8] and any('otherwise rename them' in note for note in found.notes)
    for old, new in zip(names, 'ab'):
        (tmp_path / 'pets' / f'{old}.csv').rename(tmp_path / 'pets' / f'{new}.csv')
    with pytest.raises(KdfastError, match='found the tables a.csv, b.csv: pass one of them'):
        load(str(tmp_path / 'pets'))


@pytest.mark.parametrize(
    'names,expected',
    [
        (('fold1train', 'fold1test'), ['train', 'test']),
        (('fold1train', 'fold2test'), [None, None]),
        (('pets_fold_1_train', 'pets_fold_2_val'), [None, None]),
        (('train_fold1', 'val_fold1', 'train_fold2'), ['train', 'valid', None]),
        (('01_pets_train', '02_pets_test'), ['train', 'test']),
        (('pets-train-0', 'pets-train-1', 'pets-test-2'), ['train', 'train', 'test']),
        (('cifar10-train', 'cifar100-test'), [None, None]),
    ],
)
def test_numbers_in_names_of_splits(names, expected):
    assert [find_splits([(name,) for name in names]).get((name,)) for name in names] == expected


@pytest.mark.parametrize('form', ['{}', 'pets{}', 'pets-{}', 'VOC_{}2012'])
@pytest.mark.parametrize('kind', ['folders', 'parquet', 'tables'])
def test_training_and_validation_images_together(tmp_path, form, kind):
    if kind == 'parquet':
        pytest.importorskip('pyarrow')
        contents = {split: parquet_bytes(hugging_face_table(split, strings=False)) for split in samples.BOTH}
        of_name = dict(train='train', val='valid', trainval='train')
        files = {f'{form.format(name)}.parquet': contents[split] for name, split in of_name.items()}
        samples.to_folder(tmp_path / 'pets', files)
    elif kind == 'tables':
        draw_folders(tmp_path / 'pets' / 'images', 10, 'cat', 'dog')
        files = sorted((tmp_path / 'pets').rglob('*.png'))
        rows = [f'{file.name},{file.parent.name}' for file in files]
        for name, of_split in dict(train=rows[::2], val=rows[1::2], trainval=rows).items():
            (tmp_path / 'pets' / f'{form.format(name)}.csv').write_text('\n'.join(['name,label', *of_split]))
    else:
        for n, name in zip((5, 3, 8), ('train', 'val', 'trainval')):
            draw_folders(tmp_path / 'pets', n, *(f'{form.format(name)}/{c}' for c in ('cat', 'dog')))
    expected = {'folders': [10, 6], 'tables': [10, 10]}.get(kind)
    found = load(str(tmp_path / 'pets'))
    assert expected is None and not samples.find_difference(found, samples.BOTH) or counts(found) == expected
    is_said = 'training and validation images that are also in', 'tables that are not used: 1'
    assert any(said in note for note in found.notes for said in is_said)
    for path in list((tmp_path / 'pets').iterdir()):
        if path.stem == form.format('train'):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(KdfastError, match='trainval.* is named after training and validation images together'):
        load(str(tmp_path / 'pets'))


@pytest.mark.parametrize('name', ['imagelabels.MAT', 'devkit/cars_annos.mat', 'y.npy', 'labels.pkl', 'cat.xml'])
@pytest.mark.parametrize('folders', [('jpg',), ('.',), ('train', 'test'), ('cars_train', 'cars_test')])
def test_files_that_may_hold_labels_are_named(tmp_path, folders, name):
    draw_folders(tmp_path / 'cars', 5, *folders)
    (tmp_path / 'cars' / name).parent.mkdir(exist_ok=True)
    (tmp_path / 'cars' / name).write_bytes(b'x')
    message = f'labels in {name[-4:].lower()} files such as {name} are not read beside images: write them to labels.csv'
    with pytest.raises(KdfastError, match=message):
        load(str(tmp_path / 'cars'))


@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_list_of_one_split_is_refused(tmp_path, split):
    "Food-101 without meta/train.txt: its test images would be among the training images"
    draw_folders(tmp_path / 'food', 5, 'images/cake', 'images/soup')
    whole = load(str(tmp_path / 'food'))
    assert whole.classes == ['cake', 'soup'] and any('no validation images: 20%' in note for note in whole.notes)
    names = [f'{file.parent.name}/{file.stem}' for file in sorted((tmp_path / 'food').rglob('*.png'))]
    (tmp_path / 'food' / 'meta').mkdir()
    (tmp_path / 'food' / 'meta' / 'classes.txt').write_text('cake\nsoup\n')
    (tmp_path / 'food' / 'meta' / f'{split}.txt').write_text('\n'.join(names[::2]))
    other = dict(
        train='validation or test images, such as meta/test.txt', test='training images, such as meta/train.txt'
    )
    with pytest.raises(KdfastError, match=f'meta/{split}.txt lists .*, but there is no list of {other[split]}: add it'):
        load(str(tmp_path / 'food'))
    (tmp_path / 'food' / 'meta' / f'{split}.txt').unlink()
    assert load(str(tmp_path / 'food')).fingerprint == whole.fingerprint


@pytest.mark.parametrize('pair', [*CLASSES, *JOINED])
def test_folders_of_different_classes_are_no_splits(tmp_path, pair):
    for name, inside in zip(sorted(pair, key=lambda name: 'train' in name), (('a', 'x'), ('a', 'b'))):
        draw_folders(tmp_path / 'photos', 5, *(f'{name}/{one}' for one in inside))
    with pytest.raises(KdfastError, match='differ only in the split, but only some have x .*into a folder train/'):
        load(str(tmp_path / 'photos'))


@pytest.mark.parametrize('kind', ['table', 'frame'])
@pytest.mark.parametrize('pair', UNLIKE[:4])
def test_folders_of_a_table_that_differ_in_more_are_refused(tmp_path, pair, kind):
    folder = tmp_path / 'photos'
    draw_folders(folder, 6, *pair)
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob('*.png'))
    frame = pd.DataFrame(dict(name=names, label=['cat', 'dog'] * 6))

    def read(frame):
        if kind == 'frame':
            return from_frame(frame, folder, name=' and '.join(pair))
        frame.to_csv(folder / 'labels.csv', index=False)
        return load(str(folder))

    with pytest.raises(KdfastError, match='seem to be named after splits, .*, or add a column split to the table'):
        read(frame)
    assert (
        counts(read(frame.assign(split=['train' if name.startswith(pair[0]) else 'test' for name in names]))) == [6] * 2
    )


@pytest.mark.parametrize(
    'names', [('fold1', 'fold2', 'fold3'), ('Fold_0', 'Fold_1'), ('cv-1', 'cv-2'), ('split1', 'split2')]
)
@pytest.mark.parametrize('inside', [('cat', 'dog'), ('train/cat', 'train/dog', 'test/cat', 'test/dog')])
def test_folds_of_a_cross_validation_are_refused_with_the_way_out(tmp_path, names, inside):
    for name in names:
        draw_folders(tmp_path / 'pets' / name, 10, *inside)
    with pytest.raises(KdfastError, match='seem to be folds of a cross-validation') as e:
        load(str(tmp_path / 'pets'))
    assert f'--data {tmp_path}/pets/{names[0]}' in e.value.message
    assert load(str(tmp_path / 'pets' / names[0])).classes == ['cat', 'dog']


def test_classes_that_are_named_like_folds_are_read_where_the_error_says(tmp_path):
    for name in ('cv1', 'cv2'):
        draw_folders(tmp_path / 'valves' / name, 10, 'front', 'back')
    with pytest.raises(KdfastError, match='if they are classes, put them into a folder train/'):
        load(str(tmp_path / 'valves'))
    (tmp_path / 'valves' / 'train').mkdir()
    for name in ('cv1', 'cv2'):
        shutil.move(tmp_path / 'valves' / name, tmp_path / 'valves' / 'train' / name)
    assert load(str(tmp_path / 'valves')).classes == ['cv1', 'cv2']


def test_other_folders_with_the_same_folders_may_be_classes(tmp_path):
    for label in ('chair', 'table'):
        draw_folders(tmp_path / 'rooms' / label, 10, 'indoor', 'outdoor')
    assert load(str(tmp_path / 'rooms')).classes == ['chair', 'table']


@pytest.mark.parametrize('names', [('train1', 'train2'), ('test', 'test2'), ('val2014', 'val2017')])
def test_folders_of_one_split_are_read_together_with_a_note(tmp_path, names):
    for name in {'train', 'test', *names} - ({'train'} if 'train1' in names else set()):
        draw_folders(tmp_path / 'pets' / name, 4, 'cat', 'dog')
    found = load(str(tmp_path / 'pets'))
    assert [note for note in found.notes if f'{names[0]}, {names[1]} are read together' in note]


@pytest.mark.parametrize('held_out', ['test', 'valid', 'val_images'])
def test_a_table_of_images_of_which_only_some_are_in_folders_of_splits_is_refused(tmp_path, held_out):
    rows = ['name,label']
    for folder in ('train', held_out, 'extra'):
        draw_folders(tmp_path / 'pets', 8, folder)
        rows += [f'{folder}/of {folder}-{i}.png,{"cat" if i % 2 else "dog"}' for i in range(8)]
    table = tmp_path / 'pets' / 'labels.csv'
    table.write_text('\n'.join(rows))
    with pytest.raises(KdfastError, match='add a column split to the table, or leave out the rows'):
        load(str(tmp_path / 'pets'))
    table.write_text('\n'.join(row for row in rows if not row.startswith('extra')))
    assert counts(load(str(tmp_path / 'pets')))[0] == 8
    frame = pd.DataFrame([row.split(',') for row in rows[1:]], columns=['name', 'label'])
    with pytest.raises(KdfastError, match='add a column split'):
        from_frame(frame, tmp_path / 'pets', name='pets')


@pytest.mark.parametrize('doubled', [False, True])
def test_unlabeled_images_directly_in_a_folder_of_test_images_are_skipped(tmp_path, doubled):
    draw_folders(tmp_path / 'asl' / 'asl_train' / 'asl_train', 10, 'A', 'B')
    draw_folders(tmp_path / 'asl' / 'asl_test', 3, 'asl_test' if doubled else '.')
    found = load(str(tmp_path / 'asl'))
    assert found.classes == ['A', 'B'] and any('in no folder of a class: 3' in note for note in found.notes)


def test_tables_of_roboflow_are_joined(tmp_path):
    for split, n in dict(train=8, valid=4, test=4).items():
        draw_folders(tmp_path / 'zoo', n, split)
        rows = [f'of {split}-{i}.png, {i % 2}, {1 - i % 2}' for i in range(n)]
        (tmp_path / 'zoo' / split / '_classes.csv').write_text('\n'.join(['filename, cat, dog', *rows]))
    found = load(str(tmp_path / 'zoo'))
    assert found.classes == ['cat', 'dog'] and [len(found.train[1]), len(found.valid[1]), len(found.test[1])] == [
        8,
        4,
        4,
    ]
