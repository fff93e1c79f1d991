"Photographs of any size: squares of them are kept, training crops them at random, validation centrally."

import json
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import decode, load
from kdfast.data.dataloaders import crop_and_flip, generator, loaders
from kdfast.data.dataset import presized_side
from kdfast.data.pixels import square
from kdfast.study import schedule

SIZES = [(40, 30), (30, 50), (64, 64), (21, 33), (19, 19)]


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def take(folder, n, seed):
    "n photographs of two classes, hardly two of one size"
    for k, name in enumerate('ab'):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            noise(*SIZES[(i + k) % len(SIZES)], seed=(seed, k, i)).save(folder / name / f'{i:02}.png')


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'photos'
    take(folder / 'train', 8, seed=0), take(folder / 'valid', 3, seed=1)
    return folder


# What is kept


@pytest.mark.parametrize('size,side', [(8, 9), (16, 18), (128, 146), (192, 219), (224, 256), (1024, 1170)])
def test_room_for_the_crop_is_as_fastai_presizes(size, side):
    assert presized_side(size) == side


@pytest.mark.parametrize('width,height', [(72, 36), (36, 72), (36, 36), (18, 90), (9, 27)])
def test_a_square_is_the_middle_of_the_whole_image_scaled_until_its_shorter_side_fits(width, height):
    image = noise(width, height)
    scale = 18 / min(width, height)
    whole = image.resize((round(width * scale), round(height * scale)), Image.BILINEAR)
    left, top = ((side - 18) // 2 for side in whole.size)
    difference = np.asarray(square(image, 18)).astype(int) - np.asarray(whole.crop((left, top, left + 18, top + 18)))
    assert abs(difference).max() <= 1  # Pillow rounds between its two passes, whose order depends on what is cut off


def test_scaling_down_averages():
    "A chequered board becomes grey: no pixel is simply left out"
    board = Image.fromarray(np.uint8(255 * (np.indices((90, 90)).sum(0) % 2))).convert('RGB')
    assert abs(np.asarray(square(board, 9)).astype(int) - 127).max() < 16


def test_what_is_decoded_is_those_squares(photos):
    found = load(str(photos), size=16)
    assert (
        found.name == 'photos,size=16'
        and found.shape == (16, 16)
        and found.train[0].shape == (16, 18, 18, 3)
        and isinstance(found.train[0], np.memmap)
    )
    for row, file in enumerate(sorted((photos / 'train').rglob('*.png'))):
        assert (found.train[0][row] == np.asarray(square(Image.open(file), 18))).all()
    assert found.mean[1] == pytest.approx(found.train[0][..., 1].mean() / 255)


def test_a_photograph_is_turned_before_it_is_cut(tmp_path, photos):
    shutil.copytree(photos, tmp_path / 'photos')
    exif, picture = Image.Exif(), noise(18, 36)
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    picture.save(tmp_path / 'photos' / 'train' / 'a' / '00.png', exif=exif)
    assert (load(str(tmp_path / 'photos'), size=16).train[0][0] == np.rot90(np.asarray(picture)[9:27], -1)).all()


def test_each_size_has_a_cache_and_a_name_of_its_own(photos):
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


def test_without_a_size_they_are_still_refused_and_the_way_out_is_named(photos):
    before = set(cache_home().glob('*'))
    with pytest.raises(
        KdfastError,
        match=r'images differ in size: train/a/00.png is 40×30, train/a/01.png is 30×50; .* such as --size 128',
    ):
        load(str(photos))
    assert set(cache_home().glob('*')) == before


@pytest.mark.parametrize('size', [-1, 0, 7, 1025])
def test_a_size_out_of_range(size):
    with pytest.raises(KdfastError, match=f'--size {size}: expected 8 to 1024'):
        load('digits', size=size)


def test_digits_can_be_scaled():
    small, large = load('digits'), load('digits', size=32)
    assert (
        large.name == 'digits,size=32'
        and large.shape == (32, 32)
        and large.augment == 'shift'
        and (large.valid[1] == small.valid[1]).all()
    )
    assert (large.train[0][5] == np.asarray(square(Image.fromarray(small.train[0][5]), 37))).all()


def test_digits_out_of_range():
    with pytest.raises(KdfastError, match='expected at most 64'):
        load('digits', size=65)


def test_cifar10_can_be_scaled(tmp_path, monkeypatch):
    "By its own name, from images that lie there in place of the official ones, in their order"
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
    assert (scaled.train[0] == [np.asarray(square(Image.fromarray(image), 18)) for image in images]).all()


def test_a_full_disk_is_refused_before_anything_is_decoded(photos, monkeypatch, capsys):
    needed, before = 22 * 3 * 23 * 23, set(cache_home().glob('*'))
    monkeypatch.setattr(decode.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        KdfastError,
        match='the decoded images need 0.0 GB in .*kdfast, 0.0 GB are free: make room, take a smaller --size',
    ):
        load(str(photos), size=20)
    assert set(cache_home().glob('*')) == before
    (
        monkeypatch.setattr(decode.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=needed)),
        monkeypatch.setattr(decode, 'LARGE', needed - 1),
    )
    load(str(photos), size=20)
    assert capsys.readouterr().err.count('kdfast: the decoded images take 0.0 GB in') == 1


# What networks see


def batches(data, epoch, seed=3):
    "Every training image as the loader shows it, before normalisation, in the order of the files"
    dls = loaders(data, seed)
    dls.train.epoch = epoch
    order = dls.train.get_idxs()
    shown = torch.cat([x for x, _ in dls.train.create_batches(iter(order))])
    return shown[torch.tensor(order).argsort()].permute(0, 2, 3, 1).numpy()


def places(crop, image):
    "Where in the image the crop lies: (top, left, mirrored)"
    size, room = len(crop), len(image) - len(crop) + 1
    return [
        (top, left, flip)
        for top in range(room)
        for left in range(room)
        for flip in (False, True)
        if (image[top : top + size, left : left + size][:, :: -1 if flip else 1] == crop).all()
    ]


def test_training_sees_a_crop_of_each_photograph_another_one_each_epoch(photos):
    data = load(str(photos), size=24, augment='flip')  # of 27
    found = [[places(crop, image) for crop, image in zip(batches(data, epoch), data.train[0])] for epoch in range(12)]
    assert all(len(where) == 1 for epoch in found for where in epoch)
    for of_image in zip(*found):
        assert len({where for (where,) in of_image}) > 4
    seen = {where for epoch in found for (where,) in epoch}
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(4)) and {
        flip for *_, flip in seen
    } == {False, True}


def test_seed_and_epoch_decide_the_crops(photos):
    data = load(str(photos), size=16)
    one = batches(data, 1)
    torch.manual_seed(99), np.random.seed(99)
    assert (
        (one == batches(data, 1)).all() and (one != batches(data, 2)).any() and (one != batches(data, 1, seed=4)).any()
    )


def test_validation_and_prediction_see_the_middle(photos):
    data = load(str(photos), size=16)
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    dls = loaders(data)
    plain = dls.train.new(dls.train_ds.plain(), shuffle=False, drop_last=False)
    for dl, (images, _) in ((dls.valid, data.valid), (plain, data.train)):
        x = torch.cat([x.cpu() for x, _ in dl])
        middle = images[:, 1:17, 1:17]
        torch.testing.assert_close(
            (torch.Tensor(x) * std + mean) * 255,
            torch.from_numpy(np.array(middle)).permute(0, 3, 1, 2).float(),
            rtol=0,
            atol=1e-3,
        )
        assert (data.shown(images) == middle).all()


def test_without_a_size_everything_is_shown(data):
    assert data.shown(data.valid[0]) is data.valid[0] and data.size is None and data.shape == (8, 8)


def test_without_a_size_a_crop_has_the_bits_it_always_had():
    "Written out: rows are drawn, then columns, then mirrors, each for the whole batch"
    x, draws = torch.arange(5 * 3 * 32 * 32).reshape(5, 3, 32, 32), generator(7)
    tops, lefts, mirrored = (
        torch.randint(5, (5, 1), generator=draws),
        torch.randint(5, (5, 1), generator=draws),
        torch.rand(5, 1, generator=draws) >= 0.5,
    )
    wide = torch.nn.functional.pad(x, (2, 2, 2, 2))
    expected = [
        wide[i, :, t : t + 32, l : l + 32].flip(-1) if m else wide[i, :, t : t + 32, l : l + 32]
        for i, (t, l, m) in enumerate(zip(tops, lefts, mirrored))
    ]
    assert crop_and_flip(x, True, generator(7)).equal(torch.stack(expected))


# The command line


def test_a_run_on_photographs(kdfast, photos, tmp_path):
    done = kdfast('run', 'baseline', '--data', photos, '--size', 16, '--epochs', 1, '--runs', tmp_path)
    assert done.status == 0, done.err
    folder = tmp_path / 'photos,size=16' / 'baseline,epochs=1' / '0'
    assert json.loads((folder / 'result.json').read_text())['data'] == 'photos,size=16'
    assert f'kdfast run teacher --data {photos} --size 16 --runs {tmp_path}' in done.out
    from kdfast.models.description import read_description

    assert read_description(folder / 'weights.safetensors')['size'] == [16, 16]
    kept, valid = np.load(folder / 'confused.npz'), load(str(photos), size=16).valid[0]
    assert len(kept['index']) and (kept['images'] == valid[kept['index']][:, 1:17, 1:17]).all()


@pytest.mark.parametrize('command', ['study', 'matrix'])
def test_a_study_tells_its_runs_the_size(kdfast, photos, tmp_path, monkeypatch, command):
    "What the command line of each of its runs says is read back by that run's own command"
    from kdfast import cli

    planned = []
    monkeypatch.setattr(
        schedule,
        'run_tasks',
        lambda tasks, common, *_: planned.extend((task, task.command(common)[6:]) for task in tasks) or [],
    )
    kdfast(command, '--seeds', 1, '--data', photos, '--size', 16, '--holdout', 0.25, '--runs', tmp_path)
    assert planned
    for task, words in planned:
        asked = cli.command(task.recipe, cli.run_recipe).make_context('run', words).params
        assert (asked['data'], asked['size'], asked['holdout']) == (
            str(photos),
            16,
            0.25,
        ) and task.folder.path.is_relative_to(tmp_path / 'photos,size=16,holdout=0.25')


def test_check_of_photographs(kdfast, photos, tmp_path):
    done = kdfast('check', photos, '--size', 16)
    assert done.status == 0 and '16 training and 6 validation images of 16×16 in 2 classes' in done.out
    (tmp_path / 'run.json').write_text('{}')
    assert 'is a folder of runs' in kdfast('check', tmp_path, '--size', 16).err


@pytest.mark.parametrize('command', ['run', 'lr-find', 'study'])
@pytest.mark.parametrize('name', ['size', 'seed'])
def test_a_recipes_parameter_that_every_recipe_has_is_refused(kdfast, tmp_path, command, name):
    (tmp_path / 'mine.py').write_text(f'"Mine."\ndef main(run, {name}:int=1): pass\n')
    done = kdfast(command, tmp_path / 'mine.py')
    assert (
        done.status == 2
        and done.err
        == f'kdfast: error: {tmp_path / "mine.py"}: --{name} is an option of every recipe; give that parameter of main another name\n'
    )


# Imagenette


@pytest.fixture
def published(photos, tmp_path, monkeypatch):
    "An archive of fastai's kind, at a local address, and a home of its own for what fastai downloads"
    from fastai.data import external

    archive = tmp_path / 'served' / 'imagenette2-160.tgz'
    archive.parent.mkdir()
    with tarfile.open(archive, 'w:gz') as t:
        for split, there in (('train', 'train'), ('val', 'valid')):
            for label, there_too in (('n01440764', 'a'), ('n03888257', 'b')):
                t.add(photos / there / there_too, f'imagenette2-160/{split}/{label}')
    (
        monkeypatch.setattr(external.URLs, 'IMAGENETTE_160', archive.as_uri()),
        monkeypatch.setenv('FASTAI_HOME', str(tmp_path / 'fastai')),
    )
    external.fastai_cfg.cache_clear()
    yield archive
    external.fastai_cfg.cache_clear()


def test_imagenette_is_fetched_once_and_never_unpacked(published, photos, tmp_path, capsys):
    found = load('imagenette', size=16)
    assert (
        found.name == 'imagenette,size=16'
        and found.classes == ['tench', 'parachute']
        and (found.train[0] == load(str(photos), size=16).train[0]).all()
    )
    assert [f.name for f in (tmp_path / 'fastai').rglob('*') if f.is_file()] == [
        'config.ini',
        'imagenette2-160.tgz',
    ] and capsys.readouterr().out == ''
    kept = tmp_path / 'fastai' / 'archive' / 'imagenette2-160.tgz'
    assert load(str(kept), size=16).classes == ['n01440764', 'n03888257']  # the same file, asked for as anybody's
    published.unlink()
    assert load('imagenette', size=16).fingerprint == found.fingerprint


def test_imagenette_without_a_size_or_a_network_is_refused(published, monkeypatch):
    with pytest.raises(KdfastError, match='imagenette holds photographs of any size: .* such as --size 128'):
        load('imagenette')
    published.unlink()
    with pytest.raises(
        KdfastError,
        match='imagenette could not be downloaded from file://.*imagenette2-160.tgz .*: go online once, or pass a copy with --data PATH',
    ):
        load('imagenette', size=16)


def test_every_class_of_both_has_a_name():
    from kdfast.data.imagenette import WORDNET

    assert len(WORDNET) == len(set(WORDNET.values())) == 20 and all(len(i) == 9 and i[1:].isdigit() for i in WORDNET)
