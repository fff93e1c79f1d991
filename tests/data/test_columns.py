"Columns, names and splits as people and programs write them in tables."

import pandas as pd
import pytest
from conftest import CLASSES, draw
from table_files import copy_to_class_folders, make_table_folder, write_labels

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.from_python import from_frame


@pytest.fixture
def folder(tmp_path):
    return make_table_folder(tmp_path)


@pytest.fixture
def same(folder, tmp_path):
    "The same images in folders of classes"
    return load(str(copy_to_class_folders(folder, tmp_path / 'same')))


def write_table(folder, text, name='labels.csv'):
    (folder / 'labels.csv').unlink(missing_ok=True)
    (folder / name).write_text(text)


def rows(folder):
    return [(f.name, f.name[:3]) for f in sorted((folder / 'pictures').iterdir())]


@pytest.mark.parametrize(
    'header',
    [
        'filename,label',
        'filenames,cats',
        'image_id,diagnosis',
        'Image,Id',
        'image,class_name',
        'FileName,Category',
        'img_path,target',
        'id,breed',
        'File Name,dx',
        'picture,what it shows',
        'path,y',
    ],
)
def test_usual_names_of_columns(folder, header):
    write_table(folder, header + '\n' + '\n'.join(f'pictures/{name},{label}' for name, label in rows(folder)))
    assert load(str(folder)).classes == CLASSES


@pytest.mark.parametrize(
    'name',
    [
        'pictures/{}',
        'pictures/{stem}',
        '{}',
        '{stem}',
        './pictures/{}',
        'elsewhere/pictures/{}',
        'pictures\\{}',
        '{folder}/pictures/{}',
    ],
)
@pytest.mark.parametrize('delimiter', [',', ';', '\t', '|'])
def test_usual_forms_of_image_names(folder, name, delimiter):
    lines = [delimiter.join((name.format(file, stem=file[:-4], folder=folder), label)) for file, label in rows(folder)]
    write_table(folder, '\n'.join([f'name{delimiter}label', *lines]))
    found = load(str(folder))
    assert found.classes == CLASSES and len(found.train[1]) + len(found.valid[1]) == 15


def test_table_without_header(folder):
    for delimiter in ',', ' ':
        write_table(folder, '\n'.join(f'pictures/{name}{delimiter}{label}' for name, label in rows(folder)))
        assert len(load(str(folder)).train[1]) == 12


@pytest.mark.parametrize(
    'column,words',
    [
        ('is_valid', ('1', '0')),
        ('is_valid', ('1.0', '0.0')),
        ('is_valid', ('yes', 'no')),
        ('is_test', ('true', 'false')),
        ('is_train', ('0', '1')),
        ('Split', ('Validation', 'Training')),
        ('subset', ('dev', 'train')),
        ('Usage', ('PublicTest', 'Training')),
        ('set', ('test', 'train')),
    ],
)
def test_usual_names_of_splits_in_columns(folder, same, column, words):
    write_labels(folder, f'name,label,{column}\n', words)
    assert load(str(folder)).fingerprint == same.fingerprint


def test_columns_option(folder, same):
    text = (
        (folder / 'labels.csv')
        .read_text()
        .replace('fname,label,is_valid', 'a,b,c')
        .replace('True', 'test')
        .replace('False', 'train')
    )
    write_table(folder, text)
    found = load(str(folder), columns='name=a,label=b,split=c')
    assert (
        found.fingerprint == same.fingerprint
        and found.load_arguments['columns'] == 'name=a,label=b,split=c'
        and load(**found.load_arguments).fingerprint == same.fingerprint
    )
    for wrong, message in {
        'name=a,label=z': 'no column z; the columns are a, b, c',
        'names=a': 'expected name=COLUMN,label=COLUMN,split=COLUMN',
        'name=': 'expected name=COLUMN',
    }.items():
        with pytest.raises(KdfastError, match=message):
            load(str(folder), columns=wrong)


def test_other_label_column_gets_its_own_run_directory(kdfast, folder, tmp_path):
    write_table(
        folder,
        'name,label,color\n'
        + '\n'.join(f'pictures/{name},{label},{"red" if label == "ape" else "blue"}' for name, label in rows(folder)),
    )
    for more in ([], ['--columns', 'label=color']):
        done = kdfast('run', 'baseline', '--data', folder, '--epochs', 1, '--runs', tmp_path / 'runs', *more)
        assert done.status == 0, done.err
    names = sorted(f.name for f in (tmp_path / 'runs').iterdir())
    assert (
        len(names) == 2 and names[0] == 'pets' and names[1].startswith('pets-') and 'runs on these are in' in done.err
    )


def test_columns_option_needs_a_table(images):
    with pytest.raises(KdfastError, match='--columns needs a table, but there is none'):
        load(str(images), columns='label=x')


def test_table_by_path_takes_precedence(folder, same):
    (folder / 'labels.csv').rename(folder / 'second.csv')
    (folder / 'first.csv').write_text('name,label\npictures/ape-000.png,x\n')
    found = load(str(folder / 'second.csv'))
    assert found.fingerprint == same.fingerprint and found.name == 'pets'
    with pytest.raises(
        KdfastError,
        match=r'found the tables first.csv, second.csv: pass one of them, such as --data .*/pets/first.csv',
    ):
        load(str(folder))


def test_unrelated_table_beside_folders_is_ignored(tmp_path):
    draw(tmp_path / 'pets', 3, seed=0)
    (tmp_path / 'pets' / 'prices.csv').write_text('what,price\nape,7\n')
    found = load(str(tmp_path / 'pets'))
    assert found.classes == CLASSES and 'skipped, not images: 1 (prices.csv)' in found.notes


def test_tables_of_a_competition(tmp_path):
    "train.csv with train_images, test.csv without labels, a sample submission"
    for split, n in (('train', 5), ('test', 2)):
        draw(tmp_path / split, n, seed=0)
    for split in ('train', 'test'):
        (tmp_path / 'set' / f'{split}_images').mkdir(parents=True)
        for f in (tmp_path / split).rglob('*.png'):
            f.rename(tmp_path / 'set' / f'{split}_images' / f'{split}{f.parent.name}{f.stem}.png')

    def ids(split):
        return [f.stem for f in sorted((tmp_path / 'set' / f'{split}_images').iterdir())]

    (tmp_path / 'set' / 'train.csv').write_text('image_id,label\n' + '\n'.join(f'{i},{i[5:8]}' for i in ids('train')))
    (tmp_path / 'set' / 'test.csv').write_text('image_id\n' + '\n'.join(ids('test')))
    (tmp_path / 'set' / 'sample_submission.csv').write_text(
        'image_id,label\n' + '\n'.join(f'{i},ape' for i in ids('test'))
    )
    found = load(str(tmp_path / 'set'))
    assert (
        found.classes == CLASSES
        and len(found.train[1]) == 12
        and any(note.startswith('skipped, test images without labels') for note in found.notes)
    )


def test_one_column_per_class(folder, same):
    lines = [
        f'pictures/{name},{",".join(str(int(label == c)) for c in CLASSES)},{int(name[4:7] < "002")}'
        for name, label in rows(folder)
    ]
    write_table(folder, f'image,{",".join(CLASSES)},is_valid\n' + '\n'.join(lines))
    assert load(str(folder)).fingerprint == same.fingerprint


def test_numbers_and_names_of_the_same_classes(folder):
    write_table(
        folder,
        'name,label,class_name\n'
        + '\n'.join(f'pictures/{name},{CLASSES.index(label)},{label}' for name, label in rows(folder)),
    )
    assert load(str(folder)).classes == CLASSES


def test_broken_rows_can_be_skipped(folder):
    with open(folder / 'labels.csv', 'a') as f:
        f.write('pictures/gone.png,ape,False\npictures/ape-000.png,bee\n')
    with pytest.raises(KdfastError, match='there is no file pictures/gone.png'):
        load(str(folder))
    found = load(str(folder), skip_broken=True)
    assert (len(found.train[1]), len(found.valid[1])) == (9, 6) and any(
        note.startswith('skipped, rows that cannot be read: 2 (line 17: there is no file') for note in found.notes
    )


@pytest.mark.parametrize('kind', ['table', 'frame'])
@pytest.mark.parametrize(
    'column,cells,found',
    [
        ('split', ['fold0', 'fold1'], "'fold0' in column split: expected train, valid or test"),
        ('split', ['train', 'test', 'train', ''], "'' in column split: expected train, valid or test"),
        ('subset', ['train', 'test', 'train', ''], "'' in column subset: expected train, valid or test"),
        ('is_valid', ['0', '1', '0', ''], "'' in column is_valid: expected true or false"),
    ],
)
def test_cells_that_are_no_splits_are_refused_with_what_to_do(tmp_path, column, cells, found, kind):
    draw(tmp_path / 'photos', 12, seed=0)
    names = [file.relative_to(tmp_path / 'photos').as_posix() for file in sorted((tmp_path / 'photos').rglob('*.png'))]
    n = len(names)
    part = ['test' if i % 4 == 3 else 'train' for i in range(n)]
    content = {'name': names, 'label': [name[:3] for name in names], column: [cells[i % len(cells)] for i in range(n)]}
    frame = pd.DataFrame(content | dict(part=part))

    def read(frame, **options):
        if kind == 'frame':
            return from_frame(frame, tmp_path / 'photos', **options)
        frame.to_csv(tmp_path / 'photos' / 'labels.csv', index=False)
        return load(str(tmp_path / 'photos'), **options)

    with pytest.raises(KdfastError) as e:
        read(frame)
    assert found in e.value.message
    advice = f'; splits are read from column {column}: choose another with --columns split=…, or rename {column}'
    assert e.value.message.endswith(advice)
    assert len(read(frame, columns='split=part').valid[1]) == part.count('test')
    read(frame.rename(columns={column: 'fold id'}))


def test_two_columns_of_splits_are_refused_with_what_to_do(tmp_path):
    draw(tmp_path / 'photos', 4, seed=0)
    names = [file.relative_to(tmp_path / 'photos').as_posix() for file in sorted((tmp_path / 'photos').rglob('*.png'))]
    rows = [f'{name},{name[:3]},{"test" if i % 4 == 3 else "train"},train' for i, name in enumerate(names)]
    (tmp_path / 'photos' / 'labels.csv').write_text('\n'.join(['name,label,split,subset', *rows]))
    with pytest.raises(KdfastError, match='found split and subset: .* choose with --columns split=…$'):
        load(str(tmp_path / 'photos'))
    found = load(str(tmp_path / 'photos'), columns='split=split')
    assert len(found.valid[1]) == len(names) // 4
    assert 'columns that are not used beside split: 1 (subset)' in found.notes
