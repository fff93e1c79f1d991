"Archives: harmful ones are rejected, broken ones named."

import io
import tarfile
import zipfile

import pytest
import samples
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.core.notes import Notes
from kdfast.data import archives, files, load
from kdfast.data.archives import open_entries
from kdfast.data.layouts.registry import all_layouts


def test_broken_archive_is_rejected(tmp_path):
    for name in ('a.tar.xz', 'b.zip', 'c.tar.gz'):
        (tmp_path / name).write_bytes(b'PK or not')
        with pytest.raises(KdfastError, match=f'{name} is not a readable archive'):
            load(str(tmp_path / name))


def tar(path, change=lambda member: member, more=()):
    "An archive of two classes, with changed or additional members"
    png = io.BytesIO()
    Image.new('RGB', (8, 8)).save(png, 'png')
    with tarfile.open(path, 'w') as t:
        for name in [f'{split}/{label}/1.png' for split in ('train', 'test') for label in 'ab']:
            member = tarfile.TarInfo(name)
            member.size = len(png.getvalue())
            t.addfile(change(member), io.BytesIO(png.getvalue()))
        for member in more:
            t.addfile(member)
    return path


def member(name, kind=tarfile.REGTYPE, link='', size=0):
    m = tarfile.TarInfo(name)
    m.type, m.linkname, m.size = kind, link, size
    return m


@pytest.mark.parametrize(
    'more,message',
    [
        (member('../../canary.png'), 'is a path outside the archive'),
        (member('/tmp/canary.png'), 'is a path outside the archive'),
        (member('C:\\canary.png'), 'is a path outside the archive'),
        (member('train/a/2.png', tarfile.SYMTYPE, '/etc/passwd'), 'is a link'),
        (member('train/a/2.png', tarfile.LNKTYPE, 'train/a/1.png'), 'is a link'),
        (member('train/a/2.png', tarfile.CHRTYPE), 'is a link, a device'),
        (member('train/a/2.png', tarfile.FIFOTYPE), 'is a link, a device or a pipe'),
        (member('train/a/1.png'), 'appears twice'),
    ],
)
def test_harmful_archive_is_rejected(tmp_path, more, message):
    with pytest.raises(KdfastError, match=message):
        load(str(tar(tmp_path / 'x.tar', more=[more])))


def test_names_with_a_colon_are_no_drives(tmp_path):
    names = [f'{split}/{label}/1.png' for split in ('train', 'test') for label in 'ab']
    content = samples.writer('PNG')(samples.make_image('train', 0, 0))
    files = {**dict.fromkeys(names, content), '1:2.png': content, 'train/a/c:1.png': content, '_:/x.txt': b''}
    (tmp_path / 'x.tar').write_bytes(samples.tar_bytes(files))
    assert load(str(tmp_path / 'x.tar')).train[1].tolist() == [0, 0, 1]
    for name in ('c:1.png', 'Z:/1.png'):
        (tmp_path / 'y.tar').write_bytes(samples.tar_bytes(files | {name: content}))
        with pytest.raises(KdfastError, match='is a path outside the archive'):
            load(str(tmp_path / 'y.tar'))


def test_archive_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, 'MEMBER_LIMIT', 3)
    with pytest.raises(KdfastError, match='more than 3'):
        load(str(tar(tmp_path / 'x.tar')))
    monkeypatch.setattr(archives, 'MEMBER_LIMIT', 9)
    monkeypatch.setattr(archives, 'SIZE_LIMIT', 200)
    with pytest.raises(KdfastError, match='more than 0 GB unpacked'):
        load(str(tar(tmp_path / 'x.tar')))
    monkeypatch.setattr(archives, 'SIZE_LIMIT', 10**6)
    all_layouts()  # they import the limit, which would stay for later tests
    monkeypatch.setattr(files, 'FILE_LIMIT', 20)
    with pytest.raises(KdfastError, match=r'train/a/1.png, .*, test/b/1.png \(more than 0 MB\)'):
        load(str(tar(tmp_path / 'x.tar')))


def test_encrypted_zip_is_rejected(tmp_path):
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as z:
        for split in ('train', 'test'):
            for label in 'ab':
                z.writestr(f'{split}/{label}/1.png', b'secret')
    content = (tmp_path / 'x.zip').read_bytes()
    (tmp_path / 'x.zip').write_bytes(content.replace(b'PK\1\2\x14\x03\x14\0\0\0', b'PK\1\2\x14\x03\x14\0\1\0'))
    with pytest.raises(KdfastError, match='encrypted'):
        load(str(tmp_path / 'x.zip'))


def test_tar_that_ends_like_a_zip(tmp_path):
    archive = samples.to_zip(tmp_path / 'inner', {'x.txt': b'x'})
    archive = samples.to_tar(
        tmp_path / 'photos', samples.layout_files('class', 'PNG') | {'inner.zip': archive.read_bytes()}
    )
    data = load(str(archive))
    assert (len(data.train[1]), len(data.valid[1]), data.test) == (9, 3, None)


def test_unmarked_utf8_names_in_a_zip(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as z:
        z.writestr('кошка/1.png', b'x')
    content = bytearray((tmp_path / 'x.zip').read_bytes())
    for magic, at in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
        content[content.index(magic) + at + 1] &= ~8  # the mark
    (tmp_path / 'x.zip').write_bytes(content)
    with open_entries(tmp_path / 'x.zip', Notes()) as found:
        assert list(found) == ['кошка/1.png']


@pytest.mark.parametrize(
    'content,message',
    [
        (b'7z\xbc\xaf\x27\x1c', 'a 7z archive: unpack it'),
        (b'Rar!\x1a\7', 'a RAR archive: unpack it'),
        (b'<html>', 'a web page'),
        (b'', 'it is empty'),
        (b'\x1f\x8b\x08\0', 'truncated'),
        (b'hello', 'neither a zip nor a tar'),
    ],
)
def test_file_that_is_not_an_archive_is_rejected(tmp_path, content, message):
    (tmp_path / 'x.zip').write_bytes(content)
    with pytest.raises(KdfastError, match=message):
        load(str(tmp_path / 'x.zip'))


def test_truncated_zstandard_is_rejected(tmp_path):
    archive = samples.to_tar(tmp_path / 'x', samples.layout_files('class', 'PNG'), 'zst')
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(KdfastError, match='is not a readable archive'):
        load(str(archive))
