"Tables of labels: splits, classes, errors by line."

import csv
import json
import shutil
import tarfile
import unicodedata
import zipfile

import pytest
import samples
from conftest import CLASSES
from table_files import HEADER, copy_to_class_folders, make_table_folder, write_labels

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import files, load
from kdfast.data.layouts.registry import all_layouts


@pytest.fixture
def folder(tmp_path):
    return make_table_folder(tmp_path)


@pytest.fixture
def same(folder, tmp_path):
    "The same images in folders of classes"
    return load(str(copy_to_class_folders(folder, tmp_path / 'same')))


@pytest.mark.parametrize(
    'header,words,encoding',
    [
        (HEADER, ('True', 'False'), 'utf-8'),
        ('name,class,split\n', ('valid', 'train'), 'utf-8-sig'),
        (' File , Category , SPLIT \n', ('VAL', 'Train'), 'utf-8'),
        ('image,label,split\n', ('test', 'train'), 'utf-8'),
        ('image,label,split\n', ('valid', 'train'), 'utf-16'),
    ],
)
def test_table_equals_folders_of_classes(folder, same, header, words, encoding):
    write_labels(folder, header, words, encoding)
    found = load(str(folder))
    assert (
        found.fingerprint == same.fingerprint
        and found.classes == CLASSES
        and (len(found.train[1]), len(found.valid[1])) == (9, 6)
        and found.notes == []
    )


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_json_lines_end_at_line_ends_alone(folder, same, encoding):
    "A caption may have other separators, such as U+2028"
    with (folder / 'labels.csv').open() as f:
        rows = [json.dumps(row | dict(caption='a\u2028b\x85c'), ensure_ascii=False) for row in csv.DictReader(f)]
    (folder / 'labels.csv').unlink()
    (folder / 'labels.jsonl').write_bytes('\r\n'.join(rows).encode(encoding))
    assert load(str(folder)).fingerprint == same.fingerprint


def test_quotes_spaces_and_line_ends(folder, same):
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
def test_table_in_an_archive(folder, same, tmp_path, suffix, top):
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


def test_changed_table_is_decoded_again(folder):
    before = load(str(folder))
    rows = (folder / 'labels.csv').read_text()
    (folder / 'labels.csv').write_text(rows.replace('ape-002.png,ape', 'ape-002.png,bee'))
    after = load(str(folder))
    assert after.train[1].tolist() != before.train[1].tolist() and (after.train[0] == before.train[0]).all()


def test_links_are_followed_except_cycles(folder, same, tmp_path):
    (folder / 'pictures').rename(tmp_path / 'elsewhere')
    (folder / 'pictures').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(folder)
    assert load(str(folder)).fingerprint == same.fingerprint


def test_skipped_images_give_notes(folder):
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
        and found.notes
        == ['skipped, not in labels.csv: 1 (pictures/bee-000.png)', 'test images, evaluated once, after training: 1']
        and len(found.test[1]) == 1
    )


@pytest.mark.parametrize(
    'rename,note',
    [
        (lambda name: f'/home/ann/pets/{name}', 'by a path elsewhere, and found by its last parts'),
        (lambda name: 'D:\\pets\\' + name.replace('/', '\\'), 'by a path elsewhere, and found by its last parts'),
        (lambda name: name.upper(), 'without their folder or suffix'),
        (lambda name: unicodedata.normalize('NFD', name.replace('.png', 'é.png')), 'without their folder or suffix'),
    ],
)
def test_names_from_another_computer_are_found(folder, same, rename, note):
    header, *rows = (folder / 'labels.csv').read_text().splitlines()
    if 'e\u0301' in rename('.png'):
        for file in (folder / 'pictures').iterdir():
            file.rename(file.with_name(file.name.replace('.png', 'é.png')))
    cells = [row.split(',') for row in rows]
    (folder / 'labels.csv').write_text('\n'.join([header, *(','.join([rename(c[0]), *c[1:]]) for c in cells)]))
    found = load(str(folder))
    assert found.fingerprint == same.fingerprint
    assert [n.partition(':')[0] for n in found.notes] == [f'named in the table {note}']


def test_absolute_names_inside_the_folder_are_complete(folder, same):
    text = (folder / 'labels.csv').read_text().replace('pictures/', f'{folder}/pictures/')
    (folder / 'labels.csv').write_text(text)
    found = load(str(folder))
    assert found.fingerprint == same.fingerprint and found.notes == []


def test_column_of_folds_gives_a_note(folder):
    rows = (folder / 'labels.csv').read_text().replace('True', '1').replace('False', '2').splitlines()
    (folder / 'labels.csv').write_text('\n'.join(['fname,label,fold', *rows[1:]]))
    found = load(str(folder))
    assert 'columns that are not used, because they do not say train, valid or test: 1 (fold)' in found.notes


def test_kinds_of_wrong_rows_are_listed_once_each(folder):
    rows = (folder / 'labels.csv').read_text().splitlines()
    rows[1:4] = [row.replace(',ape', ',') for row in rows[1:4]]
    (folder / 'labels.csv').write_text('\n'.join([*rows, 'gone/1.png,ape,True', 'gone/2.png,ape,True']))
    with pytest.raises(KdfastError) as e:
        load(str(folder))
    assert e.value.message.endswith(
        'labels.csv: line 2: pictures/ape-000.png has no label (3 such rows); '
        'line 17: there is no file gone/1.png (2 such rows)'
    )


def test_folders_of_classes_and_splits_take_precedence_over_a_table(images, tmp_path):
    "The samples of fastai have both, and a table without splits"
    shutil.copytree(images, tmp_path / 'tiny')
    (tmp_path / 'tiny' / 'labels.csv').write_text('name,label\ntrain/ape/000.png,cat\n')
    found = load(str(tmp_path / 'tiny'))
    assert found.fingerprint == load(str(images)).fingerprint and found.notes == ['skipped, not images: 1 (labels.csv)']


def test_table_without_split_holds_out_images(folder, capsys):
    write_labels(folder, 'name,label\n', ('', ''))
    usual, held = load(str(folder)), load(str(folder), holdout=0.4)
    assert (
        usual.name == 'pets'
        and usual.valid[1].tolist() == [0, 1, 2]
        and 'no validation images: 20% of each class validates' in usual.notes[0]
    )
    assert capsys.readouterr().err.count('no validation images: 20%') == 1  # not for the explicit option
    assert (
        held.name == 'pets,holdout=0.4'
        and held.train[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        and held.valid[1].tolist() == [0, 0, 1, 1, 2, 2]
    )
    assert (
        load(str(folder), holdout=0.2).name == 'pets'
        and load(str(folder), holdout=0.2).fingerprint == usual.fingerprint
    )


def test_run_on_a_table_without_split(kdfast, folder, tmp_path):
    write_labels(folder, 'name,label\n', ('', ''))
    for share, name in ((0.4, 'pets,size=8,holdout=0.4'), (0, 'pets,size=8')):
        done = kdfast(
            'run', 'baseline', '--data', folder, '--size', 8, '--holdout', share, '--epochs', 1, '--runs', tmp_path
        )
        assert done.status == 0 and (tmp_path / name / 'baseline,epochs=1' / '0' / 'result.json').exists(), done.err


GOOD = 'pictures/ape-000.png,ape,False\n'


@pytest.mark.parametrize(
    'content,message',
    [
        (
            '',
            'line 1: found no column with names of images; the columns are missing: '
            'choose with --columns name=…,label=…',
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
        (HEADER + ''.join(f'{i}.png,ape,True\n' for i in range(12)), 'line 2: there is no file 0.png (12 such rows)'),
    ],
)
def test_errors_of_tables_name_the_line(folder, content, message):
    (folder / 'pictures' / 'notes.txt').write_text('x')
    (folder.parent / 'canary.png').write_bytes((folder / 'pictures' / 'ape-000.png').read_bytes())
    (folder / 'labels.csv').write_text(content)
    before = set(cache_home().glob('*'))
    with pytest.raises(KdfastError) as e:
        load(str(folder))
    assert str(folder) in e.value.message and message in e.value.message and set(cache_home().glob('*')) == before


@pytest.mark.parametrize(
    'content,message',
    [
        ((HEADER + GOOD + 'pictures/\xe4ffe.png,ape,True\n').encode('latin-1'), 'line 3: not UTF-8'),
        ((HEADER + GOOD).encode('utf-16')[:-1], 'line 2: not UTF-16'),
        ((HEADER + GOOD + '\u0a0a').encode('utf-16') + b'\x00\xd8', 'line 3: not UTF-16'),
        ((HEADER + GOOD).encode('utf-16-le'), r'line 1: not UTF-8 \(it has a NUL\)'),
        ((HEADER + GOOD).encode('utf-16-be'), r'line 1: not UTF-8 \(it has a NUL\)'),
        ((HEADER + GOOD).encode('utf-32'), r'line 1: not UTF-16 \(it has a NUL\)'),
        (b'\x89PNG\r\n\x1a\n', 'line 1: not UTF-8'),
    ],
)
def test_table_that_is_not_utf8_is_rejected(folder, content, message):
    (folder / 'labels.csv').write_bytes(content)
    with pytest.raises(KdfastError, match=f'labels.csv, {message}'):
        load(str(folder))


def test_too_large_table_is_rejected(folder, monkeypatch):
    all_layouts()  # they import the limit, which would stay for later tests
    monkeypatch.setattr(files, 'FILE_LIMIT', 100)
    with pytest.raises(KdfastError, match=r'cannot read .*labels.csv \(more than 0 MB\)'):
        load(str(folder))


def test_error_with_control_characters_is_one_line(kdfast, folder):
    (folder / 'labels.csv').write_text(HEADER + '"a\x1b[31m\nb.png",ape,False\n')
    done = kdfast('check', folder)
    assert done.status == 2 and done.err.count('\n') == 1 and '\x1b' not in done.err and 'there is no file' in done.err


# Tables beside folders of classes


@pytest.fixture
def pets(tmp_path):
    "Folders of two classes, whose images are numbered"
    for number in range(12):
        name = tmp_path / 'pets' / ('cat' if number < 6 else 'dog') / f'{number}.png'
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(samples.writer('PNG')(samples.make_image('train', number // 6, number)))
    return tmp_path / 'pets'


NO_TABLES = {  # content that names no image, or no more than one for each class
    'lines': 'cat\ndog\n',
    'numbers and names': '0 cat\n1 dog\n',
    'from one': '1: cat\n2: dog\n',
    'a header': 'id,name\n0,cat\n1,dog\n',
    'WordNet': '0\tn02123045 tabby cat\n1\tn02085620 Chihuahua dog\n',
    'prose': 'Some prose: images of pets, from "the web\nsee README.md\n',
    'facts': json.dumps(dict(title='Pets', classes=['cat', 'dog'], license='CC0')),
    'by number': json.dumps({'0': 'cat', '1': 'dog'}),
    'a list': json.dumps(['cat', 'dog']),
    'COCO': json.dumps(dict(images=[dict(id=0, file_name='0.png')], annotations=[dict(image_id=0, category_id=1)])),
    'nothing': '',
}


def fits(name, content):
    "Whether a file may have a content: JSON or not; prose in a .csv is an error that names the line"
    is_json = content.startswith(('{', '['))
    return not content or is_json == name.endswith('.json') and not (name == 'labels.csv' and 'prose' in content)


@pytest.mark.parametrize(
    'name,content',
    [
        (name, content)
        for name in ('labels.txt', 'labels.csv', 'metadata.json', 'annotations.json', 'classes.csv')
        for content in NO_TABLES
        if fits(name, NO_TABLES[content])
    ],
)
def test_a_file_that_names_no_image_leaves_folders_of_classes(pets, name, content):
    expected = load(str(pets)).fingerprint
    (pets / name).write_text(NO_TABLES[content])
    found = load(str(pets))
    assert found.fingerprint == expected and found.classes == ['cat', 'dog']
    assert f'skipped, not images: 1 ({name})' in found.notes


@pytest.mark.parametrize(
    'cell', [lambda n: f'{"cat" if n < 6 else "dog"}/{n}.png', lambda n: f'{n}.png', str], ids=['path', 'name', 'bare']
)
@pytest.mark.parametrize('name', ['labels.csv', 'metadata.csv', 'labels.txt', 'all.csv'])
def test_a_table_of_images_is_preferred_to_folders(pets, name, cell):
    (pets / name).write_text('name,label\n' + ''.join(f'{cell(n)},{"odd" if n % 2 else "even"}\n' for n in range(12)))
    assert load(str(pets)).classes == ['even', 'odd']


def test_a_list_of_classes_does_not_hide_the_table(pets):
    (pets / 'labels.txt').write_text('0 cat\n1 dog\n')
    (pets / 'metadata.csv').write_text('name,label\n' + ''.join(f'{n}.png,{n % 2}\n' for n in range(12)))
    assert load(str(pets)).classes == ['0', '1']


@pytest.mark.parametrize(
    'content,message',
    [
        ('name,label\ngone.png,a\n', 'labels.csv: line 2: there is no file gone.png'),
        ('name,label\n0.png,\xe4\n', 'labels.csv, line 2: not UTF-8'),
    ],
)
def test_a_wrong_table_beside_folders_is_an_error(pets, content, message):
    (pets / 'labels.csv').write_bytes(content.encode('latin-1'))
    with pytest.raises(KdfastError, match=message):
        load(str(pets))


def test_a_table_that_the_user_names_is_read(pets):
    (pets / 'labels.txt').write_text('0 cat\n6 dog\n')
    for source, options in ((pets / 'labels.txt', {}), (pets, dict(columns='name=name,label=label'))):
        with pytest.raises(KdfastError, match='takes none of the 2 training images'):
            load(str(source), **options)


@pytest.mark.parametrize('name', ['.labels.csv', '~$labels.csv'])
def test_a_hidden_table_is_refused(pets, name):
    (pets / name).write_text('name,label\n0.png,a\n6.png,b\n')
    with pytest.raises(KdfastError, match='is named like a system file, and these are never read: rename it'):
        load(str(pets / name))
