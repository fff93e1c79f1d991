"Containers: folders, zip and tar archives, with system files and with additional folders."

import io
import tarfile
import zipfile
from pathlib import Path

from samples.images import make_image, writer

SYSTEM_FILES = {
    '.DS_Store': b'x',
    '__MACOSX/._x.png': b'x',
    'Thumbs.db': b'x',
    '@eaDir/SYNOPHOTO_THUMB_M.jpg': writer('JPEG')(make_image('train', 0, 0)),
    '.ipynb_checkpoints/0-checkpoint.png': writer('PNG')(make_image('train', 0, 0)),
}


def with_system_files(files):
    folders = sorted({str(Path(name).parent) for name in files})
    return files | {f'{folder}/{name}': content for folder in folders for name, content in SYSTEM_FILES.items()}


def in_folder(files, top='photos'):
    return {f'{top}/{name}': content for name, content in files.items()}


def to_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def to_zip(path, files, backslashes=False):
    archive = path.with_name(f'{path.name}.zip')
    with zipfile.ZipFile(archive, 'w') as z:
        for name, content in files.items():
            info = zipfile.ZipInfo('x')
            info.filename = name.replace('/', '\\') if backslashes else name
            z.writestr(info, content)
    return archive


def to_tar(path, files, compression=''):
    archive = path.with_name(f'{path.name}.tar' + (f'.{compression}' if compression else ''))
    if compression == 'zst':
        from backports import zstd

        archive.write_bytes(zstd.compress(tar_bytes(files)))
    else:
        archive.write_bytes(tar_bytes(files, compression))
    return archive


def tar_bytes(files, compression=''):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f'w:{compression}') as t:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return out.getvalue()


CONTAINERS = {
    'folder': to_folder,
    'one folder too many': lambda path, files: to_folder(path, in_folder(files)),
    'folder with system files': lambda path, files: to_folder(path, with_system_files(files)),
    'zip': to_zip,
    'zip of Windows': lambda path, files: to_zip(path, files, True),
    'zip, a folder inside': lambda path, files: to_zip(path, in_folder(files)),
    'zip with system files': lambda path, files: to_zip(path, with_system_files(files)),
    'tar': to_tar,
    'tar.gz': lambda path, files: to_tar(path, files, 'gz'),
    'tar.bz2': lambda path, files: to_tar(path, files, 'bz2'),
    'tar.xz': lambda path, files: to_tar(path, files, 'xz'),
    'tar.zst': lambda path, files: to_tar(path, files, 'zst'),
}
