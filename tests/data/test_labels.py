"labels.csv says which images train, which validate, and the class of each."

import shutil
import tarfile
import zipfile

import pytest
from conftest import CLASSES, draw

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import files, load

HEADER = 'fname,label,is_valid\n'


def listing(folder, header=HEADER, words=('True', 'False'), encoding='utf-8'):
    "Writes a labels.csv for pictures/<class>-<number>.png, two of each class for validation"
    names = [f.name for f in sorted((folder / 'pictures').iterdir())]
    rows = [
        f'pictures/{name},{name[:3]},{words[0] if name[4:7] < "002" else words[1]}'.removesuffix(',') for name in names
    ]
    (folder / 'labels.csv').write_text(header + '\n'.join(rows) + '\n', encoding=encoding)


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / 'drawn', 5, seed=0)
    (tmp_path / 'pets' / 'pictures').mkdir(parents=True)
    for f in (tmp_path / 'drawn').rglob('*.png'):
        f.rename(tmp_path / 'pets' / 'pictures' / f'{f.parent.name}-{f.name}')
    listing(tmp_path / 'pets')
    return tmp_path / 'pets'


@pytest.fixture
def same(folder, tmp_path):
    "The same images in folders of their classes"
    for f in (folder / 'pictures').iterdir():
        where = tmp_path / 'same' / ('valid' if f.name[4:7] < '002' else 'train') / f.name[:3]
        where.mkdir(parents=True, exist_ok=True)
        shutil.copy(f, where / f.name[4:])
    return load(str(tmp_path / 'same'))


@pytest.mark.parametrize(
    'header,words,encoding',
    [
        (HEADER, ('True', 'False'), 'utf-8'),
        ('name,class,split\n', ('valid', 'train'), 'utf-8-sig'),
        (' File , Category , SPLIT \n', ('VAL', 'Train'), 'utf-8'),
        ('image,label,split\n', ('test', 'train'), 'utf-8'),
    ],
)
def test_it_is_what_the_folders_would_say(folder, same, header, words, encoding):
    listing(folder, header, words, encoding)
    found = load(str(folder))
    assert (
        found.fingerprint == same.fingerprint
        and found.classes == CLASSES
        and (len(found.train[1]), len(found.valid[1])) == (9, 6)
        and found.notes == []
    )


def test_quotes_spaces_other_columns_and_line_ends(folder, same):
    rows = (folder / 'labels.csv').read_text().splitlines()[1:]
    cells = [row.split(',') for row in rows]
    (folder / 'labels.csv').write_bytes(
        '\r\n'.join(
            [
                ',is_valid,path,label',
                '',
                *(f'{i}, {v} ,"./{name}", "{label}"' for i, (name, label, v) in enumerate(cells)),
            ]
        ).encode()
    )
    assert load(str(folder)).fingerprint == same.fingerprint


@pytest.mark.parametrize('suffix', ['.tar.xz', '.zip'])
@pytest.mark.parametrize('top', ['', './', 'inside/'])
def test_an_archive_may_hold_it_too(folder, same, tmp_path, suffix, top):
    archive, files = tmp_path / f'pets{suffix}', sorted(f for f in folder.rglob('*') if f.is_file())  # the table first
    if suffix == '.zip':
        with zipfile.ZipFile(archive, 'w') as z:
            for f in reversed(files):
                z.write(f, top + f.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, 'w:xz') as t:
            for f in files:
                t.add(f, top + f.relative_to(folder).as_posix())
    assert load(str(archive)).fingerprint == same.fingerprint


def test_a_changed_table_is_read_again(folder):
    before = load(str(folder))
    rows = (folder / 'labels.csv').read_text()
    (folder / 'labels.csv').write_text(rows.replace('ape-002.png,ape', 'ape-002.png,bee'))
    after = load(str(folder))
    assert after.train[1].tolist() != before.train[1].tolist() and (after.train[0] == before.train[0]).all()


def test_linked_folders_are_followed_and_circles_are_not(folder, same, tmp_path):
    (folder / 'pictures').rename(tmp_path / 'elsewhere')
    (folder / 'pictures').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(folder)
    assert load(str(folder)).fingerprint == same.fingerprint


def test_what_is_left_out_is_said(folder):
    rows = (
        (folder / 'labels.csv')
        .read_text()
        .replace('is_valid', 'split')
        .replace('True', 'valid')
        .replace('False', 'train')
        .splitlines()
    )
    (folder / 'labels.csv').write_text('\n'.join([*rows[:5], rows[5].replace('train', 'test'), *rows[7:]]))
    found = load(str(folder))
    assert (
        (len(found.train[1]), len(found.valid[1])) == (8, 5)
        and found.notes == ['skipped, not in labels.csv: 1 (pictures/bee-000.png)', 'test images, kept apart: 1']
        and len(found.test[1]) == 1
    )


def test_where_folders_say_the_classes_the_table_does_not(images, tmp_path):
    "fastai's own samples have both, and their table has no split"
    shutil.copytree(images, tmp_path / 'tiny')
    (tmp_path / 'tiny' / 'labels.csv').write_text('name,label\ntrain/ape/000.png,cat\n')
    found = load(str(tmp_path / 'tiny'))
    assert found.fingerprint == load(str(images)).fingerprint and found.notes == ['skipped, not images: 1 (labels.csv)']


def test_without_a_split_a_share_is_held_out(folder, capsys):
    listing(folder, 'name,label\n', ('', ''))
    usual, held = load(str(folder)), load(str(folder), holdout=0.4)
    assert (
        usual.name == 'pets'
        and usual.valid[1].tolist() == [0, 1, 2]
        and 'no validation images: 20% of each class validates' in usual.notes[0]
    )
    assert (
        capsys.readouterr().err.count('no validation images: 20%') == 1
    )  # nobody need be told what they have asked for
    assert (
        held.name == 'pets,holdout=0.4'
        and held.train[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        and held.valid[1].tolist() == [0, 0, 1, 1, 2, 2]
    )
    assert (
        load(str(folder), holdout=0.2).name == 'pets'
        and load(str(folder), holdout=0.2).fingerprint == usual.fingerprint
    )


def test_a_run_without_a_split(kdfast, folder, tmp_path):
    listing(folder, 'name,label\n', ('', ''))
    for share, name in ((0.4, 'pets,size=8,holdout=0.4'), (0, 'pets,size=8')):
        done = kdfast(
            'run', 'baseline', '--data', folder, '--size', 8, '--holdout', share, '--epochs', 1, '--runs', tmp_path
        )
        assert done.status == 0 and (tmp_path / name / 'baseline,epochs=1' / '0' / 'result.json').exists(), done.err


GOOD = 'pictures/ape-000.png,ape,False\n'


@pytest.mark.parametrize(
    'content,said',
    [
        (
            '',
            'line 1: found no column with names of images; the columns are missing: choose with --columns name=…,label=…',
        ),
        ('a,b\n', 'line 1: found no column with names of images; the columns are a, b: choose'),
        ('name;label\n', 'lists no image'),
        ('name,label,label\n', 'the column label appears twice'),
        ('name,label,split,is_valid\n', 'found split and is_valid: expected one column of splits'),
        (
            'name,label,species\n' + GOOD + GOOD.replace('0,ape', '1,bee'),
            'found label and species: expected one column of labels',
        ),
        ('name,width,height\n' + GOOD, 'line 1: found no column of labels'),
        (HEADER, 'lists no image'),
        (HEADER + GOOD.replace('False', 'True'), 'found 1 images for valid and none to train on'),
        (HEADER + GOOD, 'found one class, ape'),
        (HEADER + GOOD + 'pictures/emu-000.png,emu,True\n', 'line 3: there is no file pictures/emu-000.png'),
        (HEADER + 'pictures,ape,True\n', 'line 2: there is no file pictures'),
        (HEADER + GOOD + '\n' + GOOD, 'line 4: pictures/ape-000.png appears twice, first in line 2'),
        (HEADER + GOOD + GOOD.replace('pictures', './pictures/'), 'line 3: pictures/ape-000.png appears twice'),
        (HEADER + GOOD.replace('False', 'maybe'), "line 2: 'maybe' in column is_valid: expected true or false"),
        (HEADER + GOOD.replace('False', ''), "line 2: '' in column is_valid"),
        ('name,label,split\n' + GOOD, "line 2: 'False' in column split: expected train, valid or test"),
        (HEADER + 'pictures/ape-000.png, ,False\n', 'line 2: pictures/ape-000.png has no label'),
        (HEADER + ',ape,False\n', 'line 2: no name'),
        (HEADER + 'pictures/ape-000.png,ape\n', 'line 2: 2 columns, but the header has 3'),
        (HEADER + GOOD.replace('e,F', 'e,x,F'), 'line 2: 4 columns'),
        (HEADER + 'labels.csv,ape,False\n', 'line 2: labels.csv is not an image'),
        (HEADER + 'pictures/notes.txt,ape,False\n', 'line 2: pictures/notes.txt is not an image'),
        (HEADER + '../canary.png,ape,False\n', "line 2: '../canary.png' is outside the folder"),
        (HEADER + '/etc/passwd,ape,True\n', "line 2: '/etc/passwd' is outside"),
        (HEADER + 'pictures/../../canary.png,ape,True\n', 'is outside the folder'),
        (HEADER + '//host/x.png,ape,True\n', 'is outside'),
        (HEADER + 'C:\\x.png,ape,True\n', 'is outside'),
        (HEADER + '\\\\host\\x.png,ape,True\n', 'is outside'),
        (HEADER + GOOD + 'pictures/ape-001.png,"ape,True\n', 'line 3: unexpected end of data'),
        (HEADER + 'x' * 200_000 + ',ape,True\n', 'line 2: field larger than field limit'),
        (HEADER + ''.join(f'{i}.png,ape,True\n' for i in range(12)), 'line 11: there is no file 9.png and 2 more'),
    ],
)
def test_what_is_wrong_with_a_table_is_named_by_its_line(folder, content, said):
    (
        (folder / 'pictures' / 'notes.txt').write_text('x'),
        (folder.parent / 'canary.png').write_bytes((folder / 'pictures' / 'ape-000.png').read_bytes()),
    )
    (folder / 'labels.csv').write_text(content)
    before = set(cache_home().glob('*'))
    with pytest.raises(KdfastError) as e:
        load(str(folder))
    assert str(folder) in e.value.message and said in e.value.message and set(cache_home().glob('*')) == before


@pytest.mark.parametrize(
    'content,said',
    [
        ((HEADER + GOOD + 'pictures/\xe4ffe.png,ape,True\n').encode('latin-1'), 'line 3: not UTF-8'),
        ((HEADER + GOOD).encode('utf-16'), 'line 1: not UTF-8'),
        (b'\x89PNG\r\n\x1a\n', 'line 1: not UTF-8'),
    ],
)
def test_a_table_that_is_no_text_is_refused(folder, content, said):
    (folder / 'labels.csv').write_bytes(content)
    with pytest.raises(KdfastError, match=f'labels.csv, {said}'):
        load(str(folder))


def test_a_table_not_to_be_read_is_refused(folder, monkeypatch):
    monkeypatch.setattr(files, 'FILE_LIMIT', 100)
    with pytest.raises(KdfastError, match=r'cannot read .*labels.csv \(more than 0 MB\)'):
        load(str(folder))


def test_hostile_text_of_a_table_is_refused_in_one_line(kdfast, folder):
    (folder / 'labels.csv').write_text(HEADER + '"a\x1b[31m\nb.png",ape,False\n')
    done = kdfast('check', folder)
    assert done.status == 2 and done.err.count('\n') == 1 and '\x1b' not in done.err and 'there is no file' in done.err


# Tables as people and programs write them


def table(folder, text, name='labels.csv'):
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
def test_columns_as_people_call_them(folder, header):
    table(folder, header + '\n' + '\n'.join(f'pictures/{name},{label}' for name, label in rows(folder)))
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
def test_names_as_people_write_them(folder, name, delimiter):
    lines = [delimiter.join((name.format(file, stem=file[:-4], folder=folder), label)) for file, label in rows(folder)]
    table(folder, '\n'.join([f'name{delimiter}label', *lines]))
    found = load(str(folder))
    assert found.classes == CLASSES and len(found.train[1]) + len(found.valid[1]) == 15


def test_a_table_without_a_header_and_a_list_with_spaces(folder):
    for delimiter in ',', ' ':
        table(folder, '\n'.join(f'pictures/{name}{delimiter}{label}' for name, label in rows(folder)))
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
def test_splits_as_people_write_them(folder, same, column, words):
    listing(folder, f'name,label,{column}\n', words)
    assert load(str(folder)).fingerprint == same.fingerprint


def test_columns_can_be_named(folder, same):
    text = (
        (folder / 'labels.csv')
        .read_text()
        .replace('fname,label,is_valid', 'a,b,c')
        .replace('True', 'test')
        .replace('False', 'train')
    )
    table(folder, text)
    found = load(str(folder), columns='name=a,label=b,split=c')
    assert (
        found.fingerprint == same.fingerprint
        and found.asked['columns'] == 'name=a,label=b,split=c'
        and load(**found.asked).fingerprint == same.fingerprint
    )
    for wrong, said in {
        'name=a,label=z': 'no column z; the columns are a, b, c',
        'names=a': 'expected name=COLUMN,label=COLUMN,split=COLUMN',
        'name=': 'expected name=COLUMN',
    }.items():
        with pytest.raises(KdfastError, match=said):
            load(str(folder), columns=wrong)


def test_another_column_of_labels_is_another_data_set_with_runs_of_its_own(kdfast, folder, tmp_path):
    table(
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


def test_columns_are_for_tables(images):
    with pytest.raises(KdfastError, match='--columns needs a table, but there is none'):
        load(str(images), columns='label=x')


def test_a_table_by_its_path_wins_over_folders_and_other_tables(folder, same):
    (folder / 'labels.csv').rename(folder / 'second.csv')
    (folder / 'first.csv').write_text('name,label\npictures/ape-000.png,x\n')
    found = load(str(folder / 'second.csv'))
    assert found.fingerprint == same.fingerprint and found.name == 'pets'
    with pytest.raises(
        KdfastError,
        match=r'found the tables first.csv, second.csv: pass one of them, such as --data .*/pets/first.csv',
    ):
        load(str(folder))


def test_other_tables_beside_folders_of_classes_are_no_labels(tmp_path):
    draw(tmp_path / 'pets', 3, seed=0)
    (tmp_path / 'pets' / 'prices.csv').write_text('what,price\nape,7\n')
    found = load(str(tmp_path / 'pets'))
    assert found.classes == CLASSES and 'skipped, not images: 1 (prices.csv)' in found.notes


def test_a_competition(tmp_path):
    "train.csv and train_images, test.csv and test_images without labels, a sample of a submission"
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


def test_one_column_a_class(folder, same):
    lines = [
        f'pictures/{name},{",".join(str(int(label == c)) for c in CLASSES)},{int(name[4:7] < "002")}'
        for name, label in rows(folder)
    ]
    table(folder, f'image,{",".join(CLASSES)},is_valid\n' + '\n'.join(lines))
    assert load(str(folder)).fingerprint == same.fingerprint


def test_a_number_and_a_name_of_one_class_are_one_column(folder):
    table(
        folder,
        'name,label,class_name\n'
        + '\n'.join(f'pictures/{name},{CLASSES.index(label)},{label}' for name, label in rows(folder)),
    )
    assert load(str(folder)).classes == CLASSES


def test_rows_that_cannot_be_read_can_be_left_out(folder):
    with open(folder / 'labels.csv', 'a') as f:
        f.write('pictures/gone.png,ape,False\npictures/ape-000.png,bee\n')
    with pytest.raises(KdfastError, match='there is no file pictures/gone.png'):
        load(str(folder))
    found = load(str(folder), skip_broken=True)
    assert (len(found.train[1]), len(found.valid[1])) == (9, 6) and any(
        note.startswith('skipped, rows that cannot be read: 2 (line 17: there is no file') for note in found.notes
    )
