"labels.csv says which images train, which validate, and the class of each."
import shutil
import tarfile
import zipfile

import pytest
from conftest import CLASSES, draw
from kdfast import data as kdata
from kdfast.errors import KdfastError

HEADER = 'fname,label,is_valid\n'


def listing(folder, header=HEADER, words=('True', 'False'), encoding='utf-8'):
    "Writes a labels.csv for pictures/<class>-<number>.png, two of each class for validation"
    names = [f.name for f in sorted((folder/'pictures').iterdir())]
    rows = [f'pictures/{name},{name[:3]},{words[0] if name[4:7] < "002" else words[1]}'.removesuffix(',') for name in names]
    (folder/'labels.csv').write_text(header + '\n'.join(rows) + '\n', encoding=encoding)


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path/'drawn', 5, seed=0)
    (tmp_path/'pets'/'pictures').mkdir(parents=True)
    for f in (tmp_path/'drawn').rglob('*.png'): f.rename(tmp_path/'pets'/'pictures'/f'{f.parent.name}-{f.name}')
    listing(tmp_path/'pets')
    return tmp_path/'pets'


@pytest.fixture
def same(folder, tmp_path):
    "The same images in folders of their classes"
    for f in (folder/'pictures').iterdir():
        where = tmp_path/'same'/('valid' if f.name[4:7] < '002' else 'train')/f.name[:3]
        where.mkdir(parents=True, exist_ok=True)
        shutil.copy(f, where/f.name[4:])
    return kdata.load(str(tmp_path/'same'))


@pytest.mark.parametrize('header,words,encoding', [
    (HEADER, ('True', 'False'), 'utf-8'), ('name,class,split\n', ('valid', 'train'), 'utf-8-sig'), (' File , Category , SPLIT \n', ('VAL', 'Train'), 'utf-8'), ('image,label,split\n', ('test', 'train'), 'utf-8'),
])
def test_it_is_what_the_folders_would_say(folder, same, header, words, encoding):
    listing(folder, header, words, encoding)
    found = kdata.load(str(folder))
    assert found.fingerprint == same.fingerprint and found.classes == CLASSES and (len(found.train[1]), len(found.valid[1])) == (9, 6) and found.notes == []


def test_quotes_spaces_other_columns_and_line_ends(folder, same):
    rows = (folder/'labels.csv').read_text().splitlines()[1:]
    cells = [row.split(',') for row in rows]
    (folder/'labels.csv').write_bytes('\r\n'.join([',is_valid,path,label', '', *(f'{i}, {v} ,"./{name}", "{label}"' for i,(name,label,v) in enumerate(cells))]).encode())
    assert kdata.load(str(folder)).fingerprint == same.fingerprint


@pytest.mark.parametrize('suffix', ['.tar.xz', '.zip'])
@pytest.mark.parametrize('top', ['', './', 'inside/'])
def test_an_archive_may_hold_it_too(folder, same, tmp_path, suffix, top):
    archive,files = tmp_path/f'pets{suffix}',sorted(f for f in folder.rglob('*') if f.is_file()) # the table first
    if suffix == '.zip':
        with zipfile.ZipFile(archive, 'w') as z:
            for f in reversed(files): z.write(f, top + f.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, 'w:xz') as t:
            for f in files: t.add(f, top + f.relative_to(folder).as_posix())
    assert kdata.load(str(archive)).fingerprint == same.fingerprint


def test_a_changed_table_is_read_again(folder):
    before = kdata.load(str(folder))
    rows = (folder/'labels.csv').read_text()
    (folder/'labels.csv').write_text(rows.replace('ape-002.png,ape', 'ape-002.png,bee'))
    after = kdata.load(str(folder))
    assert after.train[1].tolist() != before.train[1].tolist() and (after.train[0] == before.train[0]).all()


def test_linked_folders_are_followed_and_circles_are_not(folder, same, tmp_path):
    (folder/'pictures').rename(tmp_path/'elsewhere')
    (folder/'pictures').symlink_to(tmp_path/'elsewhere')
    (tmp_path/'elsewhere'/'back').symlink_to(folder)
    assert kdata.load(str(folder)).fingerprint == same.fingerprint


def test_what_is_left_out_is_said(folder):
    rows = (folder/'labels.csv').read_text().replace('is_valid', 'split').replace('True', 'valid').replace('False', 'train').splitlines()
    (folder/'labels.csv').write_text('\n'.join([*rows[:5], rows[5].replace('train', 'test'), *rows[7:]]))
    found = kdata.load(str(folder))
    assert (len(found.train[1]), len(found.valid[1])) == (8, 5) and found.notes == ['left out, not in labels.csv: 1 (pictures/bee-000.png)', 'test images, kept apart: 1'] and len(found.test[1]) == 1


def test_where_folders_say_the_classes_the_table_does_not(images, tmp_path):
    "fastai's own samples have both, and their table has no split"
    shutil.copytree(images, tmp_path/'tiny')
    (tmp_path/'tiny'/'labels.csv').write_text('name,label\ntrain/ape/000.png,cat\n')
    found = kdata.load(str(tmp_path/'tiny'))
    assert found.fingerprint == kdata.load(str(images)).fingerprint and found.notes == ['left out, not images: 1 (labels.csv)']


def test_without_a_split_a_share_is_held_out(folder, capsys):
    listing(folder, 'name,label\n', ('', ''))
    usual,held = kdata.load(str(folder)),kdata.load(str(folder), holdout=.4)
    assert usual.name == 'pets' and usual.valid[1].tolist() == [0,1,2] and 'no validation images: 20% of each class validates' in usual.notes[0]
    assert capsys.readouterr().err.count('no validation images: 20%') == 1 # nobody need be told what they have asked for
    assert held.name == 'pets,holdout=0.4' and held.train[1].tolist() == [0,0,0,1,1,1,2,2,2] and held.valid[1].tolist() == [0,0,1,1,2,2]
    assert kdata.load(str(folder), holdout=.2).name == 'pets' and kdata.load(str(folder), holdout=.2).fingerprint == usual.fingerprint


def test_a_run_without_a_split(kdfast, folder, tmp_path):
    listing(folder, 'name,label\n', ('', ''))
    for share,name in ((.4, 'pets,size=8,holdout=0.4'), (0, 'pets,size=8')):
        done = kdfast('run', 'baseline', '--data', folder, '--size', 8, '--holdout', share, '--epochs', 1, '--runs', tmp_path)
        assert done.status == 0 and (tmp_path/name/'baseline,epochs=1'/'0'/'result.json').exists(), done.err


GOOD = 'pictures/ape-000.png,ape,False\n'


@pytest.mark.parametrize('content,said', [
    ('', 'line 1: found no column with the names of images; there are none: say which with --columns name=…,label=…'),
    ('a,b\n', 'line 1: found no column with the names of images; there are a, b: say which'),
    ('name;label\n', 'lists no image'), ('name,label,label\n', 'the column label is there twice'), ('name,label,split,is_valid\n', 'found split and is_valid, expected one column of splits'),
    ('name,label,species\n' + GOOD + GOOD.replace('0,ape', '1,bee'), 'found label and species, expected one column of labels'), ('name,width,height\n' + GOOD, 'line 1: found no column of labels'),
    (HEADER, 'lists no image'), (HEADER + GOOD.replace('False', 'True'), 'found 1 images for valid and none to train on'), (HEADER + GOOD, 'found one class, ape'),
    (HEADER + GOOD + 'pictures/emu-000.png,emu,True\n', 'line 3: there is no file pictures/emu-000.png'),
    (HEADER + 'pictures,ape,True\n', 'line 2: there is no file pictures'),
    (HEADER + GOOD + '\n' + GOOD, 'line 4: pictures/ape-000.png is there twice, first in line 2'),
    (HEADER + GOOD + GOOD.replace('pictures', './pictures/'), 'line 3: pictures/ape-000.png is there twice'),
    (HEADER + GOOD.replace('False', 'maybe'), "line 2: 'maybe' in column is_valid, expected true or false"),
    (HEADER + GOOD.replace('False', ''), "line 2: '' in column is_valid"),
    ('name,label,split\n' + GOOD, "line 2: 'False' in column split, expected train, valid or test"),
    (HEADER + 'pictures/ape-000.png, ,False\n', 'line 2: pictures/ape-000.png has no label'), (HEADER + ',ape,False\n', 'line 2: no name'),
    (HEADER + 'pictures/ape-000.png,ape\n', 'line 2: 2 columns, the header has 3'), (HEADER + GOOD.replace('e,F', 'e,x,F'), 'line 2: 4 columns'),
    (HEADER + 'labels.csv,ape,False\n', 'line 2: there is no file labels.csv'), (HEADER + 'pictures/notes.txt,ape,False\n', 'line 2: pictures/notes.txt is not an image'),
    (HEADER + '../canary.png,ape,False\n', "line 2: '../canary.png' leads out of the folder"), (HEADER + '/etc/passwd,ape,True\n', "line 2: '/etc/passwd' leads out"),
    (HEADER + 'pictures/../../canary.png,ape,True\n', 'leads out of the folder'), (HEADER + '//host/x.png,ape,True\n', 'leads out'), (HEADER + 'C:\\x.png,ape,True\n', 'leads out'), (HEADER + '\\\\host\\x.png,ape,True\n', 'leads out'),
    (HEADER + GOOD + 'pictures/ape-001.png,"ape,True\n', 'line 3: unexpected end of data'), (HEADER + 'x'*200_000 + ',ape,True\n', 'line 2: field larger than field limit'),
    (HEADER + ''.join(f'{i}.png,ape,True\n' for i in range(12)), 'line 11: there is no file 9.png and 2 more'),
])
def test_what_is_wrong_with_a_table_is_named_by_its_line(folder, content, said):
    (folder/'pictures'/'notes.txt').write_text('x'), (folder.parent/'canary.png').write_bytes((folder/'pictures'/'ape-000.png').read_bytes())
    (folder/'labels.csv').write_text(content)
    before = set(kdata.cache_home().glob('*'))
    with pytest.raises(KdfastError) as e: kdata.load(str(folder))
    assert str(folder) in e.value.message and said in e.value.message and set(kdata.cache_home().glob('*')) == before


@pytest.mark.parametrize('content,said', [
    ((HEADER + GOOD + 'pictures/\xe4ffe.png,ape,True\n').encode('latin-1'), 'line 3: not UTF-8'), ((HEADER + GOOD).encode('utf-16'), 'line 1: not UTF-8'), (b'\x89PNG\r\n\x1a\n', 'line 1: not UTF-8'),
])
def test_a_table_that_is_no_text_is_refused(folder, content, said):
    (folder/'labels.csv').write_bytes(content)
    with pytest.raises(KdfastError, match=f'labels.csv, {said}'): kdata.load(str(folder))


def test_a_table_not_to_be_read_is_refused(folder, monkeypatch):
    from kdfast import files
    monkeypatch.setattr(files, 'FILE_LIMIT', 100)
    with pytest.raises(KdfastError, match=r'labels.csv cannot be read \(more than 0 MB\)'): kdata.load(str(folder))


def test_hostile_text_of_a_table_is_refused_in_one_line(kdfast, folder):
    (folder/'labels.csv').write_text(HEADER + '"a\x1b[31m\nb.png",ape,False\n')
    done = kdfast('check', folder)
    assert done.status == 2 and done.err.count('\n') == 1 and '\x1b' not in done.err and 'there is no file' in done.err
