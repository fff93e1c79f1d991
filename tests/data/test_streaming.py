"Images that are decoded in every epoch: the same pixels, identity and weights as from arrays; changed files are named."

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import samples
import torch
from conftest import draw, equal, until, weights
from photo_files import make_photos
from PIL import Image
from test_arrays import INDICES, outcome, random_index

from kdfast.core.cache_home import cache_home
from kdfast.core.errors import KdfastError
from kdfast.data import decode as scan
from kdfast.data import decode_choice, from_arrays, from_frame, load
from kdfast.data.arrays import Joined, summarize
from kdfast.data.dataloaders import loaders
from kdfast.data.file_images import FileImages, is_decoded_from_files
from kdfast.data.image_table import read_table, write_table
from kdfast.data.places import Place
from kdfast.data.unlabeled import with_unlabeled
from kdfast.runs.run_dir import RunDir


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))


def both(source, **options):
    "The data set as arrays, and decoded from files"
    found = [load(str(source), decode=decode, **options) for decode in ('once', 'each-epoch')]
    assert [is_decoded_from_files(data.train[0]) for data in found] == [False, True]
    return found


def differing(arrays, streamed):
    "What differs between the two, beside how it was loaded and kept"
    splits = [name for name in ('train', 'valid', 'test') if getattr(arrays, name) is not None]
    found = [
        name
        for name in splits
        if not (np.asarray(getattr(arrays, name)[0][:]) == getattr(streamed, name)[0][:]).all()
        or not (getattr(arrays, name)[1] == getattr(streamed, name)[1]).all()
    ]
    same = {name: None for name in ('load_arguments', 'train', 'valid', 'test')}
    a, b = (vars(data) | same | dict(notes=sorted(data.notes)) for data in (arrays, streamed))
    return found + [name for name in a if a[name] != b[name]]


LAYOUTS = [(container, layout) for container in ('folder', 'zip', 'tar') for layout in samples.LAYOUTS]


@pytest.mark.parametrize('container,layout', LAYOUTS)
def test_layouts_and_archives_give_the_same_data(container, layout, tmp_path):
    files = samples.layout_files(layout, 'PNG')
    assert not differing(*both(samples.CONTAINERS[container](tmp_path / 'photos', files)))


@pytest.mark.parametrize('name', ['zip of Windows', 'one folder too many', 'folder with system files'])
def test_other_containers(name, tmp_path):
    assert not differing(*both(samples.CONTAINERS[name](tmp_path / 'photos', samples.layout_files('class', 'JPEG'))))


@pytest.mark.parametrize('kind', ['JPEG', 'TIFF', 'PNG, 16 bits', 'TIFF, float', 'no suffix'])
def test_formats_and_depths(kind, tmp_path):
    assert not differing(
        *both(samples.to_folder(tmp_path / 'photos', samples.layout_files('train, valid, test', kind)))
    )


@pytest.mark.parametrize('name', ['WebDataset, .cls', 'WebDataset, .json', 'Food-101'])
def test_shards_and_official_folders(name, tmp_path):
    files = samples.SOURCES[name][0]()
    assert not differing(*both(samples.to_folder(tmp_path / 'photos', files), size=8))
    assert not differing(*both(samples.to_tar(tmp_path / 'photos', files), size=8))


def test_several_labels(tmp_path):
    files = samples.layout_files('labels.csv', 'PNG')
    table = files['labels.csv'].decode().replace(',ape,', ',ape;bee,').encode()
    folder = samples.to_folder(tmp_path / 'photos', files | {'labels.csv': table})
    arrays, streamed = both(folder, labels='several')
    assert streamed.several and not differing(arrays, streamed)


def test_a_deflated_zip(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / 'photos.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in samples.layout_files('train, valid', 'BMP').items():
            archive.writestr(name, content)
    assert not differing(*both(tmp_path / 'photos.zip'))


@pytest.mark.parametrize('container', ['tar.gz', 'tar.xz'])
def test_what_cannot_be_read_at_random_is_rejected(container, tmp_path):
    path = samples.CONTAINERS[container](tmp_path / 'photos', samples.layout_files('class', 'PNG'))
    with pytest.raises(KdfastError, match='photos.tar.* cannot be read at random .*: expected image files in a folder'):
        load(str(path), decode='each-epoch')
    with pytest.raises(KdfastError, match='cannot be read at random'):
        from_arrays((np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2), decode='each-epoch')
    with pytest.raises(KdfastError, match='--decode often: expected once or each-epoch'):
        load(str(path), decode='often')


OPTIONS = [
    dict(),
    dict(holdout=0.3),
    dict(holdout=0.3, resplit=2),
    dict(size=16, augment='strong'),
    dict(grow=0.5, size=16),
]


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp('data') / 'photos')


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_options_and_batches(photos, options):
    options = dict(size=20) | options
    arrays, streamed = both(photos, **options)
    assert not differing(arrays, streamed)
    for a, b in zip(*([*loaders(data, 3).train, *loaders(data, 3).valid] for data in (arrays, streamed)), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert loaders(streamed).train.reads_ahead and not loaders(arrays).train.reads_ahead


def test_unlabeled_images(photos, tmp_path):
    (tmp_path / 'more').mkdir()
    for i in range(9):
        Image.fromarray(np.full((30, 40, 3), 20 * i, np.uint8)).save(tmp_path / 'more' / f'{i}.png')
    arrays, streamed = (with_unlabeled(data, str(tmp_path / 'more')) for data in both(photos, size=16))
    assert isinstance(streamed.train[0], Joined) and is_decoded_from_files(streamed.train[0].parts[1])
    assert not differing(arrays, streamed)


def test_a_frame(photos):
    import pandas as pd

    files = sorted(str(file.relative_to(photos)) for file in photos.rglob('*.png'))
    frame = pd.DataFrame(dict(name=files, label=[file.split('/')[1] for file in files]))
    arrays, streamed = (from_frame(frame, photos, size=16, decode=decode) for decode in ('once', 'each-epoch'))
    assert is_decoded_from_files(streamed.train[0]) and not differing(arrays, streamed)
    again = load(**streamed.load_arguments)
    assert is_decoded_from_files(again.train[0]) and again.fingerprint == arrays.fingerprint


@pytest.mark.parametrize('index', INDICES)
def test_index_like_an_array(images, index):
    arrays, streamed = both(images)
    assert outcome(streamed.train[0], index) == outcome(arrays.train[0], index)


def test_random_indices_behave_like_numpy(images):
    arrays, streamed = both(images)
    whole, draw = np.asarray(arrays.train[0]), random.Random(0)
    for _ in range(200):
        index = tuple(random_index(draw, whole.shape[min(axis, 3)]) for axis in range(draw.randint(1, 4)))
        assert outcome(streamed.train[0], index) == outcome(whole, index), index


def test_nothing_is_written_but_the_table(photos):
    load(str(photos), size=200, decode='each-epoch')
    (folder,) = cache_home().iterdir()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10**4 < 228**2 * 3
    assert not list(folder.glob('*images*')) and len(np.load(folder / 'train_labels.npy')) == 16


def test_each_image_is_decoded_once_at_first_and_not_at_the_next_start(images, monkeypatch):
    from kdfast.data import file_images

    decoded = []
    for module in scan, file_images:
        monkeypatch.setattr(module, 'decode_image', lambda *a, of=module.decode_image: decoded.append(1) or of(*a))
    load(str(images), decode='each-epoch')
    assert len(decoded) == 72 + 36
    load(str(images), decode='each-epoch')
    assert len(decoded) == 72 + 36


def test_broken_images_are_skipped_or_rejected_as_before(tmp_path):
    draw(tmp_path / 'photos', 10, seed=0)
    (tmp_path / 'photos' / 'bee' / '003.png').write_bytes(b'x')
    with pytest.raises(KdfastError, match='bee/003.png .*skip-broken'):
        load(str(tmp_path / 'photos'), decode='each-epoch')
    arrays, streamed = both(tmp_path / 'photos', skip_broken=True)
    assert not differing(arrays, streamed) and streamed.skipped == 1


def test_images_of_several_sizes_need_a_size(photos):
    with pytest.raises(KdfastError, match='images differ in size'):
        load(str(photos), decode='each-epoch')


def test_the_disk_decides_by_default(photos, monkeypatch, capsys):
    needed = 22 * 23 * 23 * 3
    usage = SimpleNamespace(free=needed * 4 // 3 - 1)
    monkeypatch.setattr(decode_choice.shutil, 'disk_usage', lambda folder: usage)
    assert is_decoded_from_files(load(str(photos), size=20).train[0])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if '--decode once' in line]
    assert line.startswith(f'kdfast: decoded, the images of {photos} would take 0.0 MB of the 0.0 MB free in')
    assert (
        is_decoded_from_files(load(str(photos), size=20).train[0])
        and capsys.readouterr().err.count('--decode once') == 1
    )
    assert not is_decoded_from_files(load(str(photos), size=20, decode='once').train[0])
    usage.free = needed * 4 // 3
    shutil.rmtree(cache_home())
    assert not is_decoded_from_files(load(str(photos), size=20).train[0]) and '--decode' not in capsys.readouterr().err
    assert is_decoded_from_files(load(str(photos), size=20, decode='each-epoch').train[0])


def test_a_moved_archive_is_found(tmp_path):
    path = samples.to_tar(tmp_path / 'photos', samples.layout_files('train, valid', 'PNG'))
    first = load(str(path), decode='each-epoch')
    (tmp_path / 'elsewhere').mkdir()
    path = path.rename(tmp_path / 'elsewhere' / path.name)
    again = load(str(path), decode='each-epoch')
    assert again.train[0].folder == first.train[0].folder and len(again.train[0][:])


@pytest.mark.parametrize('change', ['gone', 'other pixels', 'truncated'])
def test_changed_files_are_named(tmp_path, images, change):
    folder = Path(shutil.copytree(images, tmp_path / 'photos'))
    data = load(str(folder), decode='each-epoch')
    file = folder / 'train' / 'bee' / '005.png'
    content = file.read_bytes()
    if change == 'gone':
        file.unlink()
    elif change == 'truncated':
        file.write_bytes(content[: len(content) // 2])
    else:
        shutil.copy(folder / 'train' / 'bee' / '006.png', file)
    with pytest.raises(
        KdfastError, match='photos: train/bee/005.png has changed since .*: restore it, and start again'
    ):
        list(loaders(data).train)
    file.write_bytes(content)
    assert len(list(loaders(data).train))


def test_names_of_any_characters(tmp_path):
    names = ['a', 'bé', b'c\xff'.decode(errors='surrogateescape'), '日本']
    places = [
        Place(''),
        Place('x/1.tar', 5, 6, 1),
        Place(str(tmp_path / 'x' / '1.tar'), 7, 8, 1),
        Place('/else/2', 0, 1, 1),
    ]
    os.chdir(tmp_path)
    write_table(tmp_path, 'train', names, places, np.zeros((4, 32), np.uint8), tmp_path)
    table = read_table(tmp_path, 'train')
    assert [table.name(row) for row in range(4)] == names and table.files == ['', 'x/1.tar', 'x/1.tar', '/else/2']


def train_once(folder, data, decode, kill=False):
    "Weights of a run of a recipe on the command line; optionally killed after its first checkpoint"
    command = [
        sys.executable,
        '-P',
        '-m',
        'kdfast',
        'run',
        'baseline',
        '--epochs',
        '2',
        '--data',
        data,
        '--runs',
        folder,
    ]
    command += ['--decode', decode]
    run = folder / 'photos' / 'baseline,epochs=2' / '0'
    if kill:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: list(run.glob('resume/*.safetensors')), lambda: process.poll() is not None)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return run


def test_weights_are_the_same_also_of_a_killed_run(images, tmp_path):
    data = shutil.copytree(images, tmp_path / 'photos')
    arrays = train_once(tmp_path / 'a', data, 'once')
    killed = train_once(tmp_path / 'b', data, 'each-epoch', kill=True)
    assert equal(weights(arrays), weights(killed))
    (one, other) = (json.loads((run / 'run.json').read_text()) for run in (arrays, killed))
    assert one['data_sha256'] == other['data_sha256']
    assert (arrays / 'confusion.csv').read_bytes() == (killed / 'confusion.csv').read_bytes()


def test_a_file_that_changes_during_training_interrupts_the_run_which_resumes(images, tmp_path, monkeypatch, kdfast):
    data = Path(shutil.copytree(images, tmp_path / 'photos'))
    file, decoded = data / 'train' / 'cat' / '007.png', []
    content = file.read_bytes()
    os.utime(file, ns=(10**18, 10**18))

    def decode(self, row, of=FileImages.decode):
        decoded.append(row)
        if len(decoded) == 250 and remove:
            file.unlink()
        return of(self, row)

    monkeypatch.setattr(FileImages, 'decode', decode)
    command = ('run', 'baseline', '--epochs', 3, '--data', data, '--decode', 'each-epoch', '--runs', tmp_path / 'runs')
    remove = True
    done = kdfast(*command)
    assert done.status == 2 and 'train/cat/007.png has changed since it was read first' in done.err, done.err
    run = tmp_path / 'runs' / 'photos' / 'baseline,epochs=3' / '0'
    assert json.loads((run / 'run.json').read_text())['status'] == 'interrupted'
    file.write_bytes(content)
    os.utime(file, ns=(10**18, 10**18))
    remove = False
    done = kdfast(*command)
    assert done.status == 0 and 'resumes at epoch' in done.err, done.err


def noted_threads(monkeypatch, n):
    "The names of threads that decode, as they begin; each waits for n of them, so that n decode at the same time"
    names, barrier = set(), threading.Barrier(n, timeout=20)

    def noted(*given, of):
        name = threading.current_thread().name
        if name.startswith('kdfast-decode') and name not in names:
            names.add(name)
            barrier.wait()
        return of(*given)

    monkeypatch.setattr(FileImages, 'decode', partialmethod(noted, of=FileImages.decode))
    monkeypatch.setattr(scan, '_decode_group', partial(noted, of=scan._decode_group))
    monkeypatch.setattr(scan, 'SMALL_FILE', 0)  # else the thread of the caller decodes these images
    return names


@pytest.mark.parametrize('how', ['once', 'each-epoch'])
def test_workers_limit_the_threads_that_decode_and_change_nothing(images, tmp_path, monkeypatch, kdfast, how):
    words = ['run', 'baseline', '--epochs', 1, '--data', images, '--decode', how, '--runs']
    runs = []
    for n in (1, 3):
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / f'cache{n}'))
        runs.append(tmp_path / str(n) / 'tiny' / 'baseline,epochs=1' / '0')
        with monkeypatch.context() as patch:
            names = noted_threads(patch, n)
            done = kdfast(*words, tmp_path / str(n), '--workers', n)
        assert done.status == 0 and len(names) == n, done.err
    assert equal(*map(weights, runs))
    one, other = (RunDir(run).run for run in runs)
    assert one['data_sha256'] == other['data_sha256'] and 'workers' not in {**one, **one['images']}
    again = kdfast(*words, tmp_path / '1', '--workers', 2)
    assert again.status == 0 and 'is finished; nothing to train' in again.err


def test_without_workers_each_core_has_a_thread(images, tmp_path, monkeypatch, kdfast):
    kdfast('check', images, '--workers', 3)
    monkeypatch.setenv('LOKY_MAX_CPU_COUNT', '1')
    for how in ('once', 'each-epoch'):
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / how))
        with monkeypatch.context() as patch:
            names = noted_threads(patch, 1)
            done = kdfast('check', images, '--decode', how)
        assert done.status == 0 and len(names) == 1, done.err


@pytest.mark.parametrize('n', [0, -1, 'many', 1.5])
@pytest.mark.parametrize('command', [('run', 'kd'), ('lr-find', 'kd'), ('study',), ('worth',), ('plan',), ('check',)])
def test_a_number_of_workers_that_is_none_is_refused(kdfast, command, n):
    done = kdfast(*command, '--workers', n)
    assert done.status == 2 and '--workers' in done.err and done.err.count('\n') == 1


def test_check_predicts_and_confused_images(images, tmp_path, kdfast):
    done = kdfast('check', images, '--decode', 'each-epoch')
    assert done.status == 0 and '--decode each-epoch' in done.out, done.err
    data = load(str(images), decode='each-epoch')
    assert replace(data, size=8).shown(data.valid[0][np.arange(3)]).shape == (3, 8, 8, 3)


@pytest.mark.parametrize('decode', ['once', 'each-epoch'])
@pytest.mark.parametrize(
    'case', ['in order', 'in another order', 'one is broken', 'more than 8 bits', 'renamed classes']
)
def test_facts_found_while_decoding_are_those_of_the_arrays(tmp_path, monkeypatch, case, decode):
    "Without reading the images again, if they arrive in the order of the rows and all can be used as they are"
    files = samples.layout_files('train, valid, test', 'PNG, 16 bits' if case == 'more than 8 bits' else 'PNG')
    if case == 'one is broken':
        files['train/bee/9.png'] = b'x'
    if case == 'in another order':
        files = dict(reversed(files.items()))
    path = samples.to_tar(tmp_path / 'photos', files)
    if case == 'renamed classes':
        path = tmp_path / 'photos.tar'
        rename = {'ape': 'zebra'}
        monkeypatch.setattr('kdfast.data.imagenette.WORDNET', rename)
        monkeypatch.setattr('kdfast.data.imagenette.download', lambda name: path)
    again = []
    monkeypatch.setattr('kdfast.data.cache.summarize', lambda *a: again.append(1) or summarize(*a))
    source = 'imagenette' if case == 'renamed classes' else str(path)
    data = load(source, size=8, decode=decode, skip_broken=True)
    expected = summarize(data.classes, data.train, data.valid, data.test)
    assert expected == {name: getattr(data, name) for name in expected}
    assert bool(again) == (case != 'in order' and (case, decode) != ('in another order', 'each-epoch'))
