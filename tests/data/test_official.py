"Official files of published data sets, and shards."

import io
import pickle

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
