"Official files of published data sets, and shards."

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import samples
from conftest import CLASSES

from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.safe_pickle import load_pickle


class Python2(pickle._Pickler):
    "Pickle text as Python 2 did, which wrote CIFAR"

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, text):
        text = text.encode() if isinstance(text, str) else bytes(text)
        self.write(pickle.BINSTRING + len(text).to_bytes(4, 'little') + text)

    dispatch[bytes] = dispatch[str] = save_text


def as_python2(value):
    out = io.BytesIO()
    Python2(out, protocol=2).dump(value)
    return out.getvalue().replace(b'numpy._core', b'numpy.core')


@pytest.mark.parametrize(
    'dump',
    [as_python2, *(lambda value, protocol=protocol: pickle.dumps(value, protocol) for protocol in range(6))],
    ids=['Python 2', *map(str, range(6))],
)
@pytest.mark.parametrize('make', [samples.cifar10, samples.cifar100])
def test_cifar_pickles_of_every_protocol_are_read(dump, make, tmp_path):
    assert not samples.find_difference(load(str(samples.to_folder(tmp_path, make(dump)))), samples.BOTH, side=32)


@pytest.mark.parametrize('name,make', [('CIFAR10', samples.cifar10), ('CIFAR100', samples.cifar100)])
def test_official_archive_equals_torchvision(name, make, tmp_path, monkeypatch):
    "The same images in the same order, by name and by path"
    from torchvision import datasets

    monkeypatch.setattr(getattr(datasets, name), '_check_integrity', lambda self: True)
    monkeypatch.setattr(getattr(datasets, name), '_load_meta', lambda self: setattr(self, 'classes', CLASSES))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    samples.to_folder(tmp_path / 'cache' / 'kdfast' / 'torchvision', make(as_python2))
    by_path, by_name = load(str(samples.to_tar(tmp_path / 'cifar', make(as_python2), 'gz'))), load(name.lower())
    assert by_path.fingerprint == by_name.fingerprint and (by_path.mean, by_path.std) == (by_name.mean, by_name.std)
    assert by_path.augment == by_name.augment == 'flip'


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize(
    'wrap',
    [
        lambda p: p,
        lambda p: {b'data': p},
        lambda p: np.array([p], object),
        lambda p: {b'data': np.array([p], object)},
        lambda p: {b'data': np.zeros(2), b'labels': [p]},
    ],
    ids=range(5),
)
def test_pickle_runs_no_code(tmp_path, wrap, protocol):
    content = pickle.dumps(wrap(Payload(tmp_path / 'canary')), protocol)
    with pytest.raises(KdfastError, match='it would run|Python objects'):
        load_pickle(lambda: io.BytesIO(content), 'x')
    assert not (tmp_path / 'canary').exists()


def test_published_data_sets_exist_in_torchvision():
    from torchvision import datasets

    from kdfast.data import published

    assert all(hasattr(datasets, kind) for kind, _ in published.NAMES.values())


def test_failed_download_gives_a_remedy(monkeypatch):
    def offline(root, download, **how):
        raise OSError('no route to host')

    monkeypatch.setattr('torchvision.datasets.CIFAR100', offline)
    with pytest.raises(
        KdfastError,
        match=r'CIFAR100 could not be downloaded from .*\(no route to host\): go online once, or pass '
        r'its official archive with --data PATH',
    ):
        load('cifar100')


def test_single_shard_and_numbered_classes(tmp_path):
    shard = samples.shards(samples.TRAIN)['train-000000.tar']
    (tmp_path / 'x.tar').write_bytes(shard)
    assert not samples.find_difference(load(str(tmp_path / 'x.tar')), samples.TRAIN)
    files = {'0.png': b'', '1.png': b'', '0.cls': b'0', '1.cls': b'1'} | {
        f'{i}.png': samples.writer('PNG')(samples.make_image('train', i, 0)) for i in range(2)
    }
    samples.to_folder(
        tmp_path / 'numbered',
        {'train-0.tar': samples.tar_bytes(files), 'val-0.tar': samples.tar_bytes(files), 'classes.txt': b'ape\nbee\n'},
    )
    assert load(str(tmp_path / 'numbered')).classes == ['ape', 'bee']


def test_shard_with_path_outside_is_rejected(tmp_path):
    samples.to_folder(tmp_path / 'set', {'train-0.tar': samples.tar_bytes({'../0.png': b'x', '../0.cls': b'0'})})
    with pytest.raises(KdfastError, match='is a path outside the archive'):
        load(str(tmp_path / 'set'))


# Files that are missing, twice there, or of several data sets


@pytest.mark.parametrize('make', [samples.SOURCES['CIFAR-10, Python'][0], samples.SOURCES['CIFAR-10, binary'][0]])
def test_all_missing_batches_are_named(make, tmp_path):
    files = {name: content for name, content in make().items() if not any(f'batch_{k}' in name for k in (2, 4, 5))}
    with pytest.raises(KdfastError, match=r'no data_batch_2\S*, data_batch_4\S*, data_batch_5\S*: download'):
        load(str(samples.to_folder(tmp_path / 'cifar', files)))


def official(name, folder):
    return {f'{folder}/{file}': content for file, content in samples.SOURCES[name][0]().items()}


@pytest.mark.parametrize(
    'name', [name for name in samples.SOURCES if name.startswith(('CIFAR', 'MNIST', 'SVHN', 'STL', 'Oxford 102'))]
)
def test_two_copies_of_a_data_set_are_refused(name, tmp_path):
    with pytest.raises(KdfastError, match=r'found (a/\S+)(,| and) b/.*: pass the folder of one of the data sets'):
        load(str(samples.to_folder(tmp_path / 'sets', official(name, 'a') | official(name, 'b'))))


@pytest.mark.parametrize('kind', ['Python', 'binary'])
def test_two_data_sets_in_a_folder_are_refused(kind, tmp_path):
    files = official(f'CIFAR-10, {kind}', 'a') | official(f'CIFAR-100, {kind}', 'b')
    with pytest.raises(KdfastError, match='found CIFAR-10 and CIFAR-100: pass the folder of one of them'):
        load(str(samples.to_folder(tmp_path / 'sets', files)))


def test_packed_copies_beside_unpacked_files_are_one_data_set(tmp_path):
    "As torchvision leaves them"
    files = samples.SOURCES['MNIST, compressed'][0]() | samples.SOURCES['MNIST, uncompressed'][0]()
    data = load(str(samples.to_folder(tmp_path / 'mnist', files)))
    assert not samples.find_difference(data, samples.BOTH, brightest=True, classes=['0', '1', '2'])
    assert not [note for note in data.notes if 'skipped' in note]


@pytest.mark.parametrize(
    'name', [name for name in samples.SOURCES if name.startswith(('CIFAR', 'MNIST', 'SVHN', 'STL', 'Oxford 102'))]
)
def test_other_files_beside_official_ones_give_a_note(name, tmp_path):
    files = samples.SOURCES[name][0]() | {'readme.txt': b'x'}
    notes = load(str(samples.to_folder(tmp_path / 'set', files))).notes
    assert any(note.startswith('skipped, not part of') and '1 (readme.txt)' in note for note in notes)


@pytest.mark.parametrize(
    'content,message',
    [
        ('ape\nb\xe9e\ncat\n'.encode('latin-1'), r'\.txt is not UTF-8 \(.*\): save it as UTF-8'),
        (b'ape\nbee\n', r'has the label 2, but 2 names of classes in \S*\.txt'),
        (b'\n', r'\.txt has no names of classes'),
    ],
)
@pytest.mark.parametrize('name', ['CIFAR-10, binary', 'CIFAR-100, binary', 'STL-10'])
def test_wrong_names_of_classes_are_named(name, content, message, tmp_path):
    files = samples.SOURCES[name][0]()
    files = {file: content if file.endswith('.txt') else old for file, old in files.items()}
    with pytest.raises(KdfastError, match=message):
        load(str(samples.to_folder(tmp_path / 'set', files)))


def test_names_of_classes_that_are_not_unique_are_not_merged(tmp_path):
    "ImageNet has two classes called crane"
    files = samples.SOURCES['STL-10'][0]() | {'stl10_binary/class_names.txt': b'crane\nbee\ncrane\n'}
    data = load(str(samples.to_folder(tmp_path / 'set', files)))
    assert data.classes == ['0', '1', '2']
    assert 'names of classes ignored, because they are not unique: 1 (crane)' in data.notes


# Shards


@pytest.mark.parametrize('there,missing', [((0, 2, 4), '2 (data/train-00001-of-00005.parquet, …)'), (range(5), '')])
def test_missing_shards_of_parquet_give_a_note(there, missing, tmp_path):
    "One may train on a part of a data set"
    content = samples.parquet(samples.TRAIN)['data/train-00000-of-00001.parquet']
    files = {f'data/train-{k:05}-of-00005.parquet': content for k in there}
    notes = load(str(samples.to_folder(tmp_path / 'set', files))).notes
    assert [note for note in notes if 'shards' in note] == [f'shards that are missing: {missing}'] * bool(missing)


@pytest.mark.parametrize('seed', range(40))
@pytest.mark.parametrize(
    'name', ['Hugging Face Parquet', 'Arrow, save_to_disk', 'CIFAR-10, Python', 'WebDataset, .json']
)
def test_changed_bytes_are_no_error_of_another_kind(name, seed, tmp_path):
    random, files = np.random.default_rng(seed), dict(samples.SOURCES[name][0]())
    file = random.choice(sorted(files))
    content = bytearray(files[file])
    for place in random.integers(min(len(content), random.choice([128, len(content)])), size=5):
        content[place] = random.integers(256)
    try:
        load(str(samples.to_folder(tmp_path / 'set', files | {file: bytes(content)})))
    except KdfastError:
        pass


def shard(*members):
    "A tar of (name, content), in which names may be repeated; a link has no content"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.LNKTYPE, members[0][0]
            info.size = len(content or b'')
            tar.addfile(info, io.BytesIO(content or b''))
    return out.getvalue()


IMAGES = [samples.writer('PNG')(samples.make_image('train', i % 3, i)) for i in range(6)]
SAMPLES = [
    (f'{i}.{suffix}', content)
    for i, image in enumerate(IMAGES)
    for suffix, content in (('png', image), ('cls', str(i % 3).encode()))
]


@pytest.mark.parametrize(
    'more,message',
    [
        ([('0.png', IMAGES[1]), ('0.cls', b'1')], "'0.png' appears twice"),
        ([('./0.png', IMAGES[1])], r"'(\./)?0.png' appears twice"),
        ([('0.PNG', IMAGES[1])], r'the key 0 is of several samples \(0.png, 0.PNG\)'),
        ([('7.png', None), ('7.cls', b'1')], "'7.png' is a link"),
        ([('7.png', IMAGES[1]), ('7.cls', b'b\xe9e')], r'7\.cls is not UTF-8'),
    ],
)
@pytest.mark.parametrize('alone', [True, False])
def test_repeated_keys_of_a_shard_are_refused(more, message, alone, tmp_path):
    samples.to_folder(tmp_path / 'set', {'train-0.tar': shard(*SAMPLES, *more)})
    with pytest.raises(KdfastError, match=f'train-0.tar.*{message}'):
        load(str(tmp_path / 'set' / 'train-0.tar' if alone else tmp_path / 'set'))


def test_one_key_in_two_shards_is_two_samples(tmp_path):
    files = {f'train-{k}.tar': shard(*SAMPLES) for k in range(2)}
    data = load(str(samples.to_folder(tmp_path / 'set', files)))
    assert len(data.train[1]) + len(data.valid[1]) == 12


@pytest.mark.parametrize('alone', [True, False])
def test_a_shard_that_ends_between_two_members_is_refused(alone, tmp_path):
    "tarfile takes the rest for the end"
    content = shard(*SAMPLES)
    for n_bytes in (*range(512, len(SAMPLES) * 1024, 1024), len(SAMPLES) * 1024 - 300):
        samples.to_folder(tmp_path / 'set', {'train-0.tar': content[:n_bytes]})
        with pytest.raises(KdfastError, match=r'train-0\.tar'):
            load(str(tmp_path / 'set' / 'train-0.tar' if alone else tmp_path / 'set'))


@pytest.mark.parametrize('alone', [True, False])
def test_a_shard_with_a_damaged_header_is_refused(alone, tmp_path):
    content = bytearray(shard(*SAMPLES))
    start = content.index(b'3.png')
    content[start + 148 : start + 156] = b'damaged!'  # the checksum
    samples.to_folder(tmp_path / 'set', {'train-0.tar': bytes(content)})
    with pytest.raises(KdfastError, match='train-0.tar.*truncated or damaged'):
        load(str(tmp_path / 'set' / 'train-0.tar' if alone else tmp_path / 'set'))


@pytest.mark.parametrize('folder', ['data', 'v1.0', 'a.b/c.d', '.'])
@pytest.mark.parametrize('suffix', ['json', 'cls'])
def test_dots_in_folders_of_a_shard_are_no_suffixes(folder, suffix, tmp_path):
    labels = {i: json.dumps(dict(label='ab'[i % 2])) if suffix == 'json' else 'ab'[i % 2] for i in range(8)}
    files = {f'{folder}/{i:03}.{suffix}': label.encode() for i, label in labels.items()}
    files |= {f'{folder}/{i:03}.png': samples.writer('PNG')(samples.make_image('train', i % 2, i)) for i in range(8)}
    (tmp_path / 'x.tar').write_bytes(samples.tar_bytes({name.removeprefix('./'): files[name] for name in files}))
    assert load(str(tmp_path / 'x.tar')).classes == ['a', 'b']
