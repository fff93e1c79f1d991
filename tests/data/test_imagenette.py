"Imagenette and Imagewoof: downloaded once, never unpacked."

import tarfile

import pytest
from photo_files import make_photos

from kdfast.core.errors import KdfastError
from kdfast.data import load


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp('data') / 'photos')


@pytest.fixture
def published(photos, tmp_path, monkeypatch):
    "An archive like fastai's at a local URL, and an empty folder for downloads"
    from fastai.data import external

    archive = tmp_path / 'served' / 'imagenette2-160.tgz'
    archive.parent.mkdir()
    with tarfile.open(archive, 'w:gz') as t:
        for split, there in (('train', 'train'), ('val', 'valid')):
            for label, there_too in (('n01440764', 'a'), ('n03888257', 'b')):
                t.add(photos / there / there_too, f'imagenette2-160/{split}/{label}')
    monkeypatch.setattr(external.URLs, 'IMAGENETTE_160', archive.as_uri())
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path / 'fastai'))
    external.fastai_cfg.cache_clear()
    yield archive
    external.fastai_cfg.cache_clear()


def test_imagenette_is_downloaded_once_and_not_unpacked(published, photos, tmp_path, capsys):
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
    assert load(str(kept), size=16).classes == ['n01440764', 'n03888257']  # the same file, by its path
    published.unlink()
    assert load('imagenette', size=16).fingerprint == found.fingerprint


def test_imagenette_needs_a_size_and_a_network(published, monkeypatch):
    with pytest.raises(KdfastError, match='imagenette has photographs of any size: .* such as --size 128'):
        load('imagenette')
    published.unlink()
    with pytest.raises(
        KdfastError,
        match='imagenette could not be downloaded from file://.*imagenette2-160.tgz .*: '
        'go online once, or pass a copy with --data PATH',
    ):
        load('imagenette', size=16)


def test_every_wordnet_class_has_a_name():
    from kdfast.data.imagenette import WORDNET

    assert len(WORDNET) == len(set(WORDNET.values())) == 20 and all(len(i) == 9 and i[1:].isdigit() for i in WORDNET)
