"Photographs of any size: presized squares, random crops for training, center crops for validation."

import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from photo_files import make_photos, noise
from PIL import Image

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import disk_space, load
from kdfast.data.dataset import presized_side
from kdfast.data.pixels import resize_center_crop
from kdfast.study import schedule


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp('data') / 'photos')


@pytest.mark.parametrize('size,side', [(8, 9), (16, 18), (128, 146), (192, 219), (224, 256), (1024, 1170)])
def test_presized_side(size, side):
    assert presized_side(size) == side


@pytest.mark.parametrize('width,height', [(72, 36), (36, 72), (36, 36), (18, 90), (9, 27)])
def test_resize_center_crop_equals_resize_then_crop(width, height):
    image = noise(width, height)
    scale = 18 / min(width, height)
    whole = image.resize((round(width * scale), round(height * scale)), Image.BILINEAR)
    left, top = ((side - 18) // 2 for side in whole.size)
    difference = np.asarray(resize_center_crop(image, 18)).astype(int) - np.asarray(
        whole.crop((left, top, left + 18, top + 18))
    )
    assert abs(difference).max() <= 1  # Pillow rounds between its two passes, whose order depends on what is cut off


def test_scaling_down_averages():
    "A checkerboard becomes gray: no pixel is dropped"
    board = Image.fromarray(np.uint8(255 * (np.indices((90, 90)).sum(0) % 2))).convert('RGB')
    assert abs(np.asarray(resize_center_crop(board, 9)).astype(int) - 127).max() < 16


def test_decoded_images_are_squares(photos):
    found = load(str(photos), size=16)
    assert (
        found.name == 'photos,size=16'
        and found.shape == (16, 16)
        and found.train[0].shape == (16, 18, 18, 3)
        and isinstance(found.train[0], np.memmap)
    )
    for row, file in enumerate(sorted((photos / 'train').rglob('*.png'))):
        assert (found.train[0][row] == np.asarray(resize_center_crop(Image.open(file), 18))).all()
    assert found.mean[1] == pytest.approx(found.train[0][..., 1].mean() / 255)


def test_orientation_is_applied_before_cropping(tmp_path, photos):
    shutil.copytree(photos, tmp_path / 'photos')
    exif, picture = Image.Exif(), noise(18, 36)
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    picture.save(tmp_path / 'photos' / 'train' / 'a' / '00.png', exif=exif)
    assert (load(str(tmp_path / 'photos'), size=16).train[0][0] == np.rot90(np.asarray(picture)[9:27], -1)).all()


def test_each_size_has_its_own_cache_and_name(photos):
    a, b, held = load(str(photos), size=16), load(str(photos), size=24), load(str(photos), holdout=0.25, size=16)
    assert (
        a.train[0].filename != b.train[0].filename
        and b.train[0].shape[1:3] == (27, 27)
        and load(str(photos), size=16).train[0].filename == a.train[0].filename
    )
    assert (
        held.name == 'photos,size=16,holdout=0.25'
        and held.shape == (16, 16)
        and held.valid[0].array.filename == a.train[0].filename
    )


def test_several_sizes_without_size_are_rejected(photos):
    before = set(cache_home().glob('*'))
    with pytest.raises(
        KdfastError,
        match=r'images differ in size: train/a/00.png is 40×30, train/a/01.png is 30×50; .* such as --size 128',
    ):
        load(str(photos))
    assert set(cache_home().glob('*')) == before


@pytest.mark.parametrize('size', [-1, 0, 7, 1025])
def test_size_out_of_range(size):
    with pytest.raises(KdfastError, match=f'--size {size}: expected 8 to 1024'):
        load('digits', size=size)


def test_digits_with_size():
    small, large = load('digits'), load('digits', size=32)
    assert (
        large.name == 'digits,size=32'
        and large.shape == (32, 32)
        and large.augment == 'shift'
        and (large.valid[1] == small.valid[1]).all()
    )
    assert (large.train[0][5] == np.asarray(resize_center_crop(Image.fromarray(small.train[0][5]), 37))).all()


def test_digits_size_out_of_range():
    with pytest.raises(KdfastError, match='expected at most 64'):
        load('digits', size=65)


def test_cifar10_with_size(tmp_path, monkeypatch):
    "By its name, with other images instead of the official ones"
    images = np.stack([np.asarray(noise(32, 32, seed)) for seed in range(4)])

    class Official(list):
        classes, targets = ['bee', 'ape'], [0, 1, 0, 1]

    monkeypatch.setattr(
        'torchvision.datasets.CIFAR10',
        lambda root, train, download: Official(zip(map(Image.fromarray, images), Official.targets)),
    )
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    plain, scaled = load('cifar10'), load('cifar10', size=16)
    assert (
        plain.classes == ['bee', 'ape']
        and plain.train[1].tolist() == [0, 1, 0, 1]
        and (plain.valid[0] == images).all()
        and plain.augment == 'flip'
    )
    assert (scaled.train[0] == [np.asarray(resize_center_crop(Image.fromarray(image), 18)) for image in images]).all()


@pytest.mark.skipif(sys.platform == 'win32', reason='needs a limit for the size of files')
@pytest.mark.parametrize('n_bytes', [100, 10_000, 30_000])
def test_a_disk_that_becomes_full_while_images_are_written(photos, n_bytes, capsys):
    "At the first byte, or after some images; what was written does not remain"
    from resource import RLIMIT_FSIZE, getrlimit, setrlimit

    before, (soft, hard) = set(cache_home().glob('*')), getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (n_bytes, hard))
    try:
        with pytest.raises(KdfastError, match=r'cannot write the decoded images in .* \(.+\): make room'):
            load(str(photos), size=64, decode='once')
    finally:
        setrlimit(RLIMIT_FSIZE, (soft, hard))
    assert set(cache_home().glob('*')) == before


def test_full_disk_is_rejected_before_decoding(photos, monkeypatch, capsys):
    needed, before = 22 * 3 * 23 * 23, set(cache_home().glob('*'))
    monkeypatch.setattr(disk_space.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        KdfastError,
        match='the decoded images need 0.0 MB in .*kdfast, 0.0 MB are free: make room, use a smaller --size',
    ):
        load(str(photos), size=20, decode='once')
    assert set(cache_home().glob('*')) == before
    monkeypatch.setattr(disk_space.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=needed))
    monkeypatch.setattr(disk_space, 'LARGE', needed - 1)
    load(str(photos), size=20, decode='once')
    assert capsys.readouterr().err.count('kdfast: the decoded images take 0.0 MB in') == 1


def test_run_on_photographs(kdfast, photos, tmp_path):
    done = kdfast('run', 'baseline', '--data', photos, '--size', 16, '--epochs', 1, '--runs', tmp_path)
    assert done.status == 0, done.err
    folder = tmp_path / 'photos,size=16' / 'baseline,epochs=1' / '0'
    assert json.loads((folder / 'result.json').read_text())['data'] == 'photos,size=16'
    assert f'kdfast run kd --epochs 1 --data {photos} --size 16 --runs {tmp_path}' in done.out
    from kdfast.models.description import read_description

    assert read_description(folder / 'weights.safetensors')['size'] == [16, 16]
    kept, valid = np.load(folder / 'confused.npz'), load(str(photos), size=16).valid[0]
    assert len(kept['index']) and (kept['images'] == valid[kept['index']][:, 1:17, 1:17]).all()


@pytest.mark.parametrize('command', ['study', 'matrix'])
def test_study_passes_data_options_to_runs(kdfast, photos, tmp_path, monkeypatch, command):
    "The command line of each run is parsed by the command of that run"
    from kdfast.cli.recipes import recipe_command
    from kdfast.cli.run import run_recipe

    planned = []
    monkeypatch.setattr(
        schedule,
        'run_tasks',
        lambda tasks, common, *_: planned.extend((task, task.command(common)[6:]) for task in tasks) or [],
    )
    kdfast(command, '--seeds', 1, '--data', photos, '--size', 16, '--holdout', 0.25, '--runs', tmp_path)
    assert planned
    for task, words in planned:
        parameters = recipe_command(task.recipe, run_recipe).make_context('run', words).params
        assert (parameters['data'], parameters['size'], parameters['holdout']) == (
            str(photos),
            16,
            0.25,
        ) and task.folder.path.is_relative_to(tmp_path / 'photos,size=16,holdout=0.25')


def test_check_of_photographs(kdfast, photos, tmp_path):
    done = kdfast('check', photos, '--size', 16)
    assert done.status == 0 and '16 training and 6 validation images of 16×16 in 2 classes' in done.out
    (tmp_path / 'run.json').write_text('{}')
    assert 'contains runs' in kdfast('check', tmp_path, '--size', 16).err


@pytest.mark.parametrize('command', ['run', 'lr-find', 'study'])
@pytest.mark.parametrize('name', ['size', 'seed'])
def test_recipe_parameter_that_hides_an_option_is_rejected(kdfast, tmp_path, command, name):
    (tmp_path / 'mine.py').write_text(f'"Mine."\ndef main(run, {name}:int=1): pass\n')
    done = kdfast(command, tmp_path / 'mine.py')
    assert done.status == 2 and done.err.count('\n') == 1
    assert done.err.startswith(f'kdfast: error: {tmp_path / "mine.py"}: --{name} ')
