"kdfast check describes a data set and suggests a command; kdfast cache lists and clears decoded data sets."

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import samples
from conftest import draw, make
from PIL import Image

from kdfast.core.atomic import sha256
from kdfast.data import cache, cache_entries
from kdfast.data.naming import run_name
from kdfast.data.sources import load, with_own_name
from kdfast.study import schedule


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "photos/<class>/*.jpg of several sizes, and nothing else: as they come from a phone"
    folder, random = tmp_path_factory.mktemp('data') / 'photos', np.random.default_rng(0)
    for k, name in enumerate(('cats', 'dogs')):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = random.integers(0, 120, (*random.integers(34, 47, 2), 3), dtype=np.uint8)
            pixels[..., k] += 100
            Image.fromarray(pixels).save(folder / name / f'{i}.jpg')
    return folder


def test_next_command_of_check_gives_a_verdict(kdfast, photos, tmp_path, monkeypatch):
    "tests/slow/layouts.py runs this command"
    planned = []
    monkeypatch.setattr(schedule, 'rehearse_tasks', lambda *_: None)
    monkeypatch.setattr(schedule, 'run_tasks', lambda tasks, *_: planned.extend(tasks) or [])
    command = kdfast('check', photos).out.splitlines()[-1].removeprefix('next  ')
    assert command == f'kdfast study baseline kd --data {photos} --size 32'
    kdfast(*shlex.split(command)[1:], '--runs', tmp_path)
    assert {task.folder.recipe for task in planned} == {'baseline', 'teacher', 'kd'} and len(planned) == 15


def test_check_describes_photographs(kdfast, photos):
    done = kdfast('check', photos)
    for words in (
        f'{photos}: 32 training and 8 validation images of 32×32 in 2 classes, all readable',
        'folders of classes;',
        'JPEG RGB 40',
        '16           4  cats  ━━━',
        '20% of each class validates',
        'their shorter side is 37 pixels, and cropped to the central 37×37; training takes random crops of 32×32',
        '--size 32 was chosen here',
        'training mirrors images at random',
    ):
        assert words in done.out, words


def test_check_lists_notes_once(kdfast, photos, monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    done = kdfast('check', photos)
    assert done.out.count('no validation images') == 1 and done.out.count('training mirrors') == 1
    assert 'validates' not in done.err and 'mirrors' not in done.err  # though the images are decoded now


def test_check_as_json(kdfast, tmp_path):
    folder = samples.to_folder(tmp_path / 'photos', samples.layout_files('train, valid, test', 'PNG'))
    found = json.loads(kdfast('check', folder, '--json').out)
    assert found['images'] == dict(training=12, validation=6, test=3)
    assert found['classes']['bee'] == dict(training=4, validation=2, test=1) and found['shown'] == [16, 16]
    assert found['files'] == dict(kinds={'PNG RGB': 21}, widths=[16] * 3, heights=[16] * 3) and found['skipped'] == 0
    assert found['next'] == f'kdfast study baseline kd --data {folder}'
    assert found['layout'] == 'folders of classes in folders of splits'
    assert found['notes'] == ['test images, evaluated once, after training: 3']


def test_check_reports_duplicates(kdfast, tmp_path):
    draw(tmp_path / 'train', 4, seed=0)
    draw(tmp_path / 'valid', 3, seed=1)
    shutil.copy(tmp_path / 'train' / 'ape' / '000.png', tmp_path / 'train' / 'ape' / 'copy.png')
    shutil.copy(tmp_path / 'train' / 'bee' / '000.png', tmp_path / 'valid' / 'bee' / 'copy.png')
    notes = json.loads(kdfast('check', tmp_path, '--json').out)['notes']
    assert notes == [
        'duplicates among the training images: 1 of 13',
        'validation images that are also training images: 1 of 10',
    ]
    shutil.copy(tmp_path / 'train' / 'ape' / '001.png', tmp_path / 'train' / 'bee' / 'copy.png')
    shutil.copy(tmp_path / 'train' / 'ape' / '002.png', tmp_path / 'valid' / 'bee' / 'copy2.png')
    notes = json.loads(kdfast('check', tmp_path, '--json').out)['notes']
    assert notes[-1] == 'images that occur with different labels: 2'


def test_check_shows_largest_and_smallest_classes(kdfast, tmp_path):
    for k in range(60):
        (tmp_path / 'many' / f'class{k:02}').mkdir(parents=True)
        for i in range(2 + (k == 7)):
            Image.fromarray(np.random.default_rng([k, i]).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                tmp_path / 'many' / f'class{k:02}' / f'{i}.png'
            )
    done = kdfast('check', tmp_path / 'many', '--holdout', 0.5)
    assert done.status == 0 and '… 20 more' in done.out and 'class07' in done.out, done.err
    assert sum('━' in line for line in done.out.splitlines()) == 40


def test_next_command_repeats_options(kdfast, tmp_path):
    draw(tmp_path / 'my photos', 5, seed=0)
    command = kdfast(
        'check', tmp_path / 'my photos', '--holdout', 0.4, '--size', 16, '--augment', 'shift', '--skip-broken'
    ).out.splitlines()[-1]
    assert shlex.split(command.removeprefix('next  '))[5:] == [
        str(tmp_path / 'my photos'),
        '--size',
        '16',
        '--holdout',
        '0.4',
        '--augment',
        'shift',
        '--skip-broken',
    ]


def test_check_of_runs_as_json(kdfast, tmp_path):
    folder = make(tmp_path, 'kd', 0)
    assert list(json.loads(kdfast('check', tmp_path, '--json').out)) == [str(folder)]


def test_check_suggests_a_size_for_published_images(kdfast, photos, monkeypatch, home):
    "As of food101, whose images differ in size; torchvision returns them one by one"
    from torchvision import datasets

    class Food101(datasets.ImageFolder):
        def __init__(self, root, split, download):
            super().__init__(photos)

    monkeypatch.setattr(datasets, 'Food101', Food101)
    done = kdfast('check', 'food101')
    assert done.status == 0 and done.out.splitlines()[-1].endswith('--data food101 --size 32'), done.err


# The cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path


def test_cache_list_size_and_clear(kdfast, home):
    draw(home / 'pets', 4, seed=0)
    draw(home / 'gone', 4, seed=1)
    load(str(home / 'pets'))
    load(str(home / 'gone'))
    draw(home / 'more', 1, seed=5)
    shutil.copy(home / 'more' / 'ape' / '000.png', home / 'pets' / 'ape' / 'new.png')
    load(str(home / 'pets'))
    shutil.rmtree(home / 'gone')
    (home / 'cache' / 'kdfast' / 'new-x').mkdir()
    listed = json.loads(kdfast('cache', 'list', '--json').out)
    assert sorted((entry['name'], entry['state'], entry['images']) for entry in listed) == [
        ('gone', 'gone', 12),
        ('new-x', 'unfinished', 0),
        ('pets', 'current', 13),
        ('pets', 'stale', 12),
    ]
    assert all(entry['bytes'] > 12 * 8 * 8 * 3 for entry in listed if entry['images'])
    total = sum(file.stat().st_size for file in (home / 'cache').rglob('*') if file.is_file())
    assert int(kdfast('cache', 'size').out) == total and 'pets' in kdfast('cache').out
    assert 'stale' in kdfast('cache').out
    assert kdfast('cache', 'clear').status == 2
    assert 'there are gone, new-x, pets' in kdfast('cache', 'clear', 'dogs').err
    assert 'removed 2' in kdfast('cache', 'clear', '--stale').out
    assert [entry.state for entry in cache_entries.entries() if entry.images] == ['current']
    assert 'removed 1' in kdfast('cache', 'clear', 'pets').out and 'removed 1' in kdfast('cache', 'clear', '--all').out
    assert cache_entries.entries() == []
    assert (home / 'pets' / 'ape' / 'new.png').exists()  # images themselves are never touched


def break_source(home, entry):
    (home / 'pets' / 'ape' / 'gone.png').symlink_to('nowhere.png')


def break_labels(home, entry):
    (entry / 'train_labels.npy').write_bytes(b'x')


def break_links(home, entry):
    (entry / 'train_labels.npy').unlink()
    (entry / 'train_labels.npy').symlink_to('nowhere')
    (entry / 'folder').symlink_to('nowhere')


def break_origin(home, entry):
    (entry / 'data.json').write_text('{"name": "pets", "origin": {"source": 1}}')


@pytest.mark.parametrize(
    'damage,state',
    [(break_source, 'stale'), (break_labels, 'current'), (break_links, 'current'), (break_origin, 'unknown')],
)
def test_a_damaged_entry_is_listed_and_cleared(kdfast, home, damage, state):
    for name in ('pets', 'others'):
        draw(home / name, 4, seed=0)
        load(str(home / name))
    (entry,) = [found.folder for found in cache_entries.entries() if found.name == 'pets']
    damage(home, entry)
    listed = json.loads(kdfast('cache', 'list', '--json').out)
    assert {Path(found['path']).name: found['state'] for found in listed}[entry.name] == state and len(listed) == 2
    assert kdfast('cache', 'size').status == 0
    assert 'removed 1' in kdfast('cache', 'clear', entry.name).out
    assert [found.name for found in cache_entries.entries()] == ['others']


def test_changed_archive_is_stale(home):
    archive = samples.to_zip(home / 'photos', samples.layout_files('class', 'PNG'))
    load(str(archive))
    assert [entry.state for entry in cache_entries.entries()] == ['current']
    samples.to_zip(home / 'photos', samples.layout_files('class', 'BMP'))
    assert [entry.state for entry in cache_entries.entries()] == ['stale']


def test_large_archive_is_hashed_once(home, monkeypatch):
    archive = samples.to_zip(home / 'photos', samples.layout_files('class', 'PNG'))
    hashed = []
    monkeypatch.setattr(cache, 'sha256', lambda path: hashed.append(path) or sha256(path))

    def hashes():
        "How often another process would read the whole archive"
        cache._large_sha256.cache_clear()
        hashed.clear()
        return load(str(archive)).fingerprint, len(hashed)

    first = hashes()
    assert first[1] == 1 and hashes() == first  # a small one always, and once while it is decoded
    monkeypatch.setattr(cache, 'LARGE_ARCHIVE', 0)
    samples.to_zip(home / 'photos', samples.layout_files('class', 'BMP'))
    fingerprint, n = hashes()
    assert n == 1 and hashes() == (fingerprint, 0)
    samples.to_zip(home / 'photos', samples.layout_files('class', 'TIFF'))  # replaced
    fingerprint, n = hashes()
    assert n == 1 and hashes() == (fingerprint, 0)
    copy = shutil.copy(archive, home / 'copy.zip')
    assert load(str(copy)).fingerprint == fingerprint and len(hashed) == 1


@pytest.mark.parametrize('content', ['', '[]', '{}', '{"origin": null}', '{"origin": {"source": 1}}'])
def test_damaged_facts_of_other_images_are_skipped(home, monkeypatch, content):
    monkeypatch.setattr(cache, 'LARGE_ARCHIVE', 0)
    archive = samples.to_zip(home / 'photos', samples.layout_files('class', 'PNG'))
    other = cache.cache_home() / 'other'
    other.mkdir(parents=True)
    (other / 'data.json').write_text(content)
    cache._large_sha256.cache_clear()
    assert cache.archive_sha256(archive) == sha256(archive)


@pytest.mark.parametrize('content', ['', '{"name"', '5', b'\xff\xfe'])
def test_damaged_facts_of_the_images_themselves_are_named(home, kdfast, content):
    archive = samples.to_zip(home / 'photos', samples.layout_files('class', 'PNG'))
    load(str(archive))
    (file,) = cache.cache_home().glob('*/data.json')
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    done = kdfast('check', archive)
    assert done.status == 2 and f'{file} is damaged' in done.err and done.err.count('\n') == 1
    assert [entry.state for entry in cache_entries.entries()] == ['unknown']
    shutil.rmtree(file.parent)
    assert kdfast('check', archive).status == 0


@pytest.mark.parametrize('name', [*cache.LABELED_FACTS, 'data.json'])
def test_facts_that_are_missing_are_named(home, kdfast, name):
    archive = samples.to_zip(home / 'photos', samples.layout_files('class', 'PNG'))
    load(str(archive))
    (file,) = cache.cache_home().glob('*/data.json')
    facts = json.loads(file.read_text())
    file.unlink()
    if name != 'data.json':
        file.write_text(json.dumps({key: value for key, value in facts.items() if key != name}))
    done = kdfast('check', archive)
    assert done.status == 2 and f'{file} is damaged (' in done.err and name in done.err and done.err.count('\n') == 1
    assert f'delete {file.parent}, and the images are decoded again' in done.err
    shutil.rmtree(file.parent)
    assert kdfast('check', archive).status == 0


@pytest.mark.parametrize('recorded', [None, 5, 'of the archive'])
def test_a_damaged_hash_is_computed_again(home, monkeypatch, recorded):
    monkeypatch.setattr(cache, 'LARGE_ARCHIVE', 0)
    archive = samples.to_zip(home / 'photos', samples.layout_files('class', 'PNG'))
    other = cache.cache_home() / 'other'
    other.mkdir(parents=True)
    (other / 'data.json').write_text(json.dumps(dict(origin=cache.origin(archive) | dict(sha256=recorded))))
    cache._large_sha256.cache_clear()
    assert cache.archive_sha256(archive) == sha256(archive)


# Names of data sets


@pytest.mark.parametrize(
    'name,expected',
    [
        ('кошки', 'кошки'),
        ('猫の写真', '猫の写真'),
        ('my photos', 'my_photos'),
        ('a/b', 'a_b'),
        ('..', 'data'),
        ('', 'data'),
        ('x,size=8', 'x_size_8'),
        ('cafe\u0301', 'caf\u00e9'),
    ],
)
def test_run_name_is_safe(name, expected):
    assert run_name(name, None) == expected and run_name(name, 8) == f'{expected},size=8'


def test_long_names_are_shortened():
    a, b = (run_name('ж' * 200 + end, 1024) for end in 'ab')
    assert a != b and len(a.encode()) < 200


def test_data_sets_of_one_name_get_different_run_names(home):
    for n, folder in enumerate(('a', 'b', 'c')):
        draw(home / folder / 'pets', 4, seed=n)
    sets = [load(str(home / folder / 'pets')) for folder in 'abc']
    (home / 'runs' / 'pets' / 'kd' / '0').mkdir(parents=True)
    (home / 'runs' / 'pets' / 'kd' / '0' / 'run.json').write_text(json.dumps(dict(data_sha256=sets[0].fingerprint)))
    names = [with_own_name(data, home / 'runs').name for data in sets]
    assert names == ['pets', f'pets-{sets[1].fingerprint[:8]}', f'pets-{sets[2].fingerprint[:8]}']
    assert with_own_name(sets[1], home / 'elsewhere').name == 'pets'
