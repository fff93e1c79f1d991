import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from conftest import CLASSES, draw
from kdfast import data as kdata
from kdfast.errors import KdfastError
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path/'pets'/'train', 3, seed=0)
    draw(tmp_path/'pets'/'test', 2, seed=1)
    return tmp_path/'pets'


def test_a_folder_is_decoded_in_order_of_class_and_name(folder):
    found = kdata.load(str(folder))
    assert found.name == 'pets' and found.classes == CLASSES
    assert found.train[0].shape == (9, 8, 8, 3) and found.train[1].tolist() == [0,0,0,1,1,1,2,2,2]
    assert (found.train[0][4] == np.asarray(Image.open(folder/'train'/'bee'/'001.png'))).all()
    assert found.mean[0] == pytest.approx(found.train[0][..., 0].mean()/255)


@pytest.mark.parametrize('suffix', ['.tar.xz', '.tar.gz', '.zip'])
@pytest.mark.parametrize('top', ['', 'inside/'])
def test_an_archive_is_the_folder_that_it_holds(folder, tmp_path, suffix, top):
    archive = tmp_path/f'pets{suffix}'
    files = sorted((f for f in folder.rglob('*.png')), reverse=True) # in another order
    if suffix == '.zip':
        with zipfile.ZipFile(archive, 'w') as z:
            for f in files: z.write(f, top + f.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, 'w:' + suffix[-2:]) as t:
            for f in files: t.add(f, top + f.relative_to(folder).as_posix())
    a,b = kdata.load(str(archive)),kdata.load(str(folder))
    assert a.fingerprint == b.fingerprint and a.name == 'pets' and (a.train[0] == b.train[0]).all()


def test_the_second_time_nothing_is_decoded(folder, monkeypatch):
    first = kdata.load(str(folder))
    monkeypatch.setattr(kdata, 'decode_image', None)
    second = kdata.load(str(folder))
    assert second.fingerprint == first.fingerprint and isinstance(second.train[0], np.memmap)


def test_a_changed_folder_is_read_again(folder):
    before = kdata.load(str(folder)).fingerprint
    Image.new('RGB', (8, 8)).save(folder/'train'/'ape'/'000.png')
    assert kdata.load(str(folder)).fingerprint != before


def test_val_is_taken_before_test(folder):
    draw(folder/'val', 1, seed=2)
    assert len(kdata.load(str(folder)).valid[1]) == 3


def test_grey_and_palette_images_become_colour(folder):
    Image.open(folder/'train'/'ape'/'000.png').convert('L').save(folder/'train'/'ape'/'000.png')
    Image.open(folder/'train'/'ape'/'001.png').convert('P').save(folder/'train'/'ape'/'001.png')
    assert kdata.load(str(folder)).train[0].shape == (9, 8, 8, 3)


def break_image(f): (f/'train'/'cat'/'001.png').write_bytes(b'not an image')
def truncate(f): (f/'train'/'cat'/'001.png').write_bytes((f/'train'/'cat'/'001.png').read_bytes()[:60])
def enlarge(f): Image.new('RGB', (9, 8)).save(f/'train'/'cat'/'001.png')
def drop_valid(f): shutil.rmtree(f/'test')
def drop_class(f): shutil.rmtree(f/'test'/'bee')
def one_class(f): [shutil.rmtree(f/s/c) for s in ('train', 'test') for c in CLASSES[1:]]
def flatten(f): shutil.rmtree(f/'train'), shutil.rmtree(f/'test')
def nest(f): (f/'train'/'cat'/'more').mkdir()
def other_split(f): (f/'test').rename(f/'holdout')


@pytest.mark.parametrize('damage,said', [
    (break_image, 'train/cat/001.png is not a readable image'), (truncate, 'train/cat/001.png is not a readable image'),
    (enlarge, 'train/cat/001.png is 9×8'), (drop_valid, 'found train;'), (drop_class, 'only in train: bee'),
    (one_class, 'found one class, ape'), (flatten, 'found no images; expected train/<class>/<image>'),
    (nest, 'train/cat/more is a folder; expected'), (other_split, 'found the image holdout/ape/000.png; expected'),
])
def test_what_is_wrong_is_named_and_nothing_is_kept(folder, damage, said):
    before = set(kdata.cache_home().glob('*'))
    damage(folder)
    with pytest.raises(KdfastError) as e: kdata.load(str(folder))
    assert said in e.value.message
    assert set(kdata.cache_home().glob('*')) == before


def test_a_broken_archive_is_named(tmp_path):
    for name in ('a.tar.xz', 'b.zip', 'c.tar.gz'):
        (tmp_path/name).write_bytes(b'PK or not')
        with pytest.raises(KdfastError, match=f'{name} is not a readable archive'): kdata.load(str(tmp_path/name))


def test_a_path_that_is_not_there(): 
    with pytest.raises(KdfastError, match='no data at /nowhere'): kdata.load('/nowhere')


def test_digits_come_with_the_installation():
    digits = kdata.load('digits')
    assert digits.train[0].shape == (599, 16, 16, 3) and len(digits.valid[1]) == 1198 and not digits.flip
    assert digits.fingerprint == kdata.load('digits').fingerprint


def test_a_holdout_comes_out_of_the_training_images_class_by_class(folder):
    draw(folder/'val', 1, seed=2)
    whole,held = kdata.load(str(folder)),kdata.load(str(folder), holdout=1/3)
    assert held.name == f'pets,holdout={1/3}' and held.classes == CLASSES
    assert held.train[1].tolist() == [0,0,1,1,2,2] and held.valid[1].tolist() == [0,1,2]
    both = sorted(image.tobytes() for images,_ in (held.train, held.valid) for image in images)
    assert both == sorted(image.tobytes() for image in whole.train[0])
    assert kdata.load(str(folder), holdout=1/3).fingerprint == held.fingerprint != whole.fingerprint


@pytest.mark.parametrize('share,said', [(1., 'from 0 to below 1'), (-.1, 'from 0 to below 1'), (float('nan'), 'from 0 to below 1'), (.01, 'takes 0 of the 3 training images of ape')])
def test_a_holdout_out_of_range(folder, share, said):
    with pytest.raises(KdfastError, match=said): kdata.load(str(folder), holdout=share)
