import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from conftest import CLASSES, draw
from PIL import Image

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import arrays, decode, load
from kdfast.data.built_in import PHOTOGRAPHS_FILE


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / 'pets' / 'train', 3, seed=0)
    draw(tmp_path / 'pets' / 'test', 2, seed=1)
    return tmp_path / 'pets'


def test_folder_is_decoded_in_order_of_class_and_name(folder):
    found = load(str(folder))
    assert found.name == 'pets' and found.classes == CLASSES
    assert found.train[0].shape == (9, 8, 8, 3) and found.train[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (found.train[0][4] == np.asarray(Image.open(folder / 'train' / 'bee' / '001.png'))).all()
    assert found.mean[0] == pytest.approx(found.train[0][..., 0].mean() / 255)


@pytest.mark.parametrize('suffix', ['.tar.xz', '.tar.gz', '.tar.bz2', '.zip'])
@pytest.mark.parametrize('top', ['', 'inside/'])
def test_archive_equals_its_folder(folder, tmp_path, suffix, top):
    archive = tmp_path / f'pets{suffix}'
    files = sorted((f for f in folder.rglob('*.png')), reverse=True)  # in another order
    if suffix == '.zip':
        with zipfile.ZipFile(archive, 'w') as z:
            for f in files:
                z.write(f, top + f.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, 'w:' + suffix.rpartition('.')[2]) as t:
            for f in files:
                t.add(f, top + f.relative_to(folder).as_posix())
    a, b = load(str(archive)), load(str(folder))
    assert a.fingerprint == b.fingerprint and a.name == 'pets' and (a.train[0] == b.train[0]).all()


def test_second_load_decodes_nothing(folder, monkeypatch):
    first = load(str(folder))
    monkeypatch.setattr(decode, 'decode_image', None)
    second = load(str(folder))
    assert second.fingerprint == first.fingerprint and isinstance(second.train[0], np.memmap)


def test_changed_folder_is_decoded_again(folder):
    before = load(str(folder)).fingerprint
    Image.new('RGB', (8, 8)).save(folder / 'train' / 'ape' / '000.png')
    assert load(str(folder)).fingerprint != before


def test_val_takes_precedence_over_test(folder):
    draw(folder / 'val', 1, seed=2)
    assert len(load(str(folder)).valid[1]) == 3


def test_gray_and_palette_images_become_rgb(folder):
    Image.open(folder / 'train' / 'ape' / '000.png').convert('L').save(folder / 'train' / 'ape' / '000.png')
    Image.open(folder / 'train' / 'ape' / '001.png').convert('P').save(folder / 'train' / 'ape' / '001.png')
    assert load(str(folder)).train[0].shape == (9, 8, 8, 3)


def break_image(f):
    (f / 'train' / 'cat' / '001.png').write_bytes(b'not an image')


def empty_file(f):
    (f / 'train' / 'cat' / '001.png').write_bytes(b'')


def break_many(f):
    for i in range(12):
        (f / 'train' / 'cat' / f'{i:03}.png').write_bytes(b'<svg/>')


def not_finite(f):
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(f / 'train' / 'cat' / '001.tif')


def huge(f):
    Image.new('1', (10_000, 10_000)).save(f / 'train' / 'cat' / '001.png')


def empty_class(f):
    (f / 'train' / 'dog').mkdir()
    (f / 'test' / 'dog').mkdir()


def escape(f):
    for split in ('train', 'test'):
        (f / split / 'cat').rename(f / split / 'c\x1b[31mt')


def dangling(f):
    (f / 'train' / 'cat' / 'gone.png').symlink_to('nowhere.png')


def truncate(f):
    (f / 'train' / 'cat' / '001.png').write_bytes((f / 'train' / 'cat' / '001.png').read_bytes()[:60])


def enlarge(f):
    Image.new('RGB', (9, 8)).save(f / 'train' / 'cat' / '001.png')


def drop_class(f):
    shutil.rmtree(f / 'train' / 'bee')


def only_test(f):
    shutil.rmtree(f / 'train')


def one_class(f):
    for split in ('train', 'test'):
        for name in CLASSES[1:]:
            shutil.rmtree(f / split / name)


def flatten(f):
    shutil.rmtree(f / 'train')
    shutil.rmtree(f / 'test')


@pytest.mark.parametrize(
    'damage,message',
    [
        (break_image, 'cannot read train/cat/001.png (not an image but text): replace or remove'),
        (truncate, 'train/cat/001.png (truncated: '),
        (empty_file, 'train/cat/001.png (an empty file)'),
        (break_many, 'train/cat/009.png and 2 more (SVG: render it as PNG): replace or remove'),
        (huge, '10000×10000 is more than 67,108,864 pixels: scale it down with --size'),
        (not_finite, 'train/cat/001.tif (some of its values are not finite)'),
        (empty_class, 'no images in train/dog: add images or remove the folder'),
        (escape, "names of classes 'c\\x1b[31mt'"),
        (dangling, 'train/cat/gone.png is a broken link'),
        (enlarge, 'train/cat/001.png is 9×8'),
        (drop_class, 'no training image of bee, which the validation images have'),
        (one_class, 'found one class, ape'),
        (flatten, 'found no images, it is empty; expected <class>/<image>, train/<class>/<image>'),
        (only_test, 'found 6 images for test and none to train on'),
    ],
)
def test_damaged_data_is_rejected_each_time(folder, damage, message):
    "Nothing is cached but the images that --skip-broken will use"
    before = set(cache_home().glob('*'))
    damage(folder)
    for _ in range(2):
        with pytest.raises(KdfastError) as e:
            load(str(folder))
        assert message in e.value.message
    assert len(set(cache_home().glob('*')) - before) <= ('--skip-broken' in e.value.message)


def test_missing_path_is_rejected():
    with pytest.raises(KdfastError, match='no data at /nowhere'):
        load('/nowhere')


def test_digits_need_no_download():
    digits = load('digits')
    assert digits.train[0].shape == (599, 16, 16, 3) and len(digits.valid[1]) == 1198 and digits.augment == 'shift'
    assert digits.fingerprint == load('digits').fingerprint


def test_photographs_come_with_kdfast_and_are_the_default():
    photographs = load()
    assert photographs.fingerprint == load('cifar10-small').fingerprint and photographs.augment == 'flip'
    assert (photographs.name, photographs.load_arguments['source']) == ('cifar10-small', 'cifar10-small')
    for (images, labels), n in ((photographs.train, 300), (photographs.valid, 300)):
        assert images.shape == (10 * n, 32, 32, 3) and (np.bincount(labels) == n).all()
    pixels = {image.tobytes() for images, _ in (photographs.train, photographs.valid) for image in images}
    assert len(pixels) == 6000  # none is in both splits, or twice in one
    assert PHOTOGRAPHS_FILE.stat().st_size < 2e6
    assert 'Krizhevsky' in PHOTOGRAPHS_FILE.with_name('cifar10-small.txt').read_text()


@pytest.mark.parametrize('shape', [(72, 8, 8, 3), (333, 9, 7, 3), (50, 33, 33, 3)])
def test_statistics_equal_those_of_numpy(shape, monkeypatch):
    "Mean to the bit; the standard deviation is rounded once, that of NumPy more often"
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mean = [float(images[..., c].mean(dtype=float)) / 255 for c in range(3)]
    std = [float(images[..., c].std(dtype=float) / 255) for c in range(3)]
    for rows in 7, 256:
        monkeypatch.setattr(arrays, 'ROWS', rows)
        for whole in (images, arrays.Rows(images, np.arange(len(images)))):
            found = arrays.summarize(['a'], (whole, np.zeros(len(images))), (255 - images, np.zeros(1)))
            assert found['mean'] == mean and found['std'] == pytest.approx(std, rel=1e-15, abs=0)
            assert (np.float32(found['std']) == np.float32(std)).all()


def test_statistics_of_equal_pixels():
    found = arrays.summarize(['a'], (np.full((5, 2, 2, 3), 51, np.uint8), np.zeros(5)))
    assert found['mean'] == [0.2] * 3 and found['std'] == [1.0] * 3


def save(image, folder, **how):
    image.save(folder / 'train' / 'ape' / '000.png', **how)


def first(folder):
    return load(str(folder)).train[0][0]


def test_16_bits_are_scaled_not_clipped(folder):
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    save(Image.fromarray(deep), folder)
    found = load(str(folder))
    assert (found.train[0][0] == (deep / 257).round()[..., None]).all() and found.notes == [
        'scaled from 16 bits (0 … 65535) to 8 bits: 1 (train/ape/000.png)'
    ]


def test_transparent_pixels_become_white(folder):
    clear = np.full((8, 8, 4), (255, 0, 0, 0), np.uint8)
    clear[0, 0, 3] = 255
    save(Image.fromarray(clear), folder)
    image = first(folder)
    assert image[0, 0].tolist() == [255, 0, 0] and (image[1:] == 255).all()


def test_exif_orientation_is_applied(folder):
    exif, picture = Image.Exif(), np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    save(Image.fromarray(picture), folder, exif=exif)
    assert (first(folder) == np.rot90(picture, -1)).all()


def test_unusual_data_gives_notes(folder, capsys):
    (folder / 'train' / 'ape' / 'notes.txt').write_text('x')
    (folder / 'train' / 'ape' / 'logo.svg').write_text('x')
    shutil.copy(folder / 'train' / 'ape' / '000.png', folder / 'test' / 'cat' / '000.png')
    for split in ('train', 'test'):
        shutil.copytree(folder / split / 'bee', folder / split / 'Bee')
    found = load(str(folder))
    assert found.notes == [
        'skipped, not images: 2 (train/ape/logo.svg, …)',
        'classes whose names differ only in case or accents: 1 (bee)',
        'duplicates among the training images: 3 of 12',
        'validation images that are also training images: 1 of 8',
        'images that occur with different labels: 6',  # bee and Bee: 3 + 2; ape and cat: 1
    ]
    assert all(note in capsys.readouterr().err for note in found.notes[:1]) and load(str(folder)).notes == found.notes
