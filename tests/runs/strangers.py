"A run with its own code, and the same run on a machine that never trained with it."

import shutil

from kdfast.runs import trust

SOURCE = '''from pathlib import Path
from torch import nn
(Path(__file__).parent/'ran').touch()
def tiny(n): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n))
def other(n): return tiny(n)
'''


def made(kdfast, images, tmp_path_factory):
    "A run of somebody's, and an export of it"
    home = tmp_path_factory.mktemp('theirs')
    (home / 'mine.py').write_text(SOURCE)
    done = kdfast(
        'run', 'baseline', '--student', f'{home}/mine.py:tiny', '--epochs', 1, '--data', images, '--runs', home / 'runs'
    )
    assert done.status == 0, done.err
    (run,) = home.glob('runs/*/*/0')
    assert kdfast('export', run, '--to', home / 'x.safetensors').status == 0
    return run, home / 'x.safetensors'


def stranger(made, tmp_path, monkeypatch):
    "Both, on a machine that has not trained with them"
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(trust, 'accepted', set())
    shutil.copytree(made[0], tmp_path / 'run')
    for name in ('source', 'x.safetensors'):
        copy = shutil.copytree if name == 'source' else shutil.copy
        copy(made[1].parent / name, tmp_path / name)
    for ran in tmp_path.rglob('ran'):
        ran.unlink()
    return tmp_path


def ran(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob('ran'))


def commands(folder, images):
    image = images / 'valid' / 'bee' / '000.png'
    return [
        ('predict', folder / 'run', image),
        ('predict', folder / 'x.safetensors', image),
        ('export', folder / 'run', '--to', folder / 'y.onnx'),
        ('layers', 'thin', '--teacher', folder / 'run'),
        ('layers', folder / 'run'),
        ('run', 'kd', '--epochs', 1, '--teacher', folder / 'run', '--data', images, '--runs', folder / 'runs'),
    ]
