"Python files of a user, written into a folder; networks are built from them."

from kdfast.models.build import build_network

NET = '''from torch import nn
import blocks
def tiny(n, width=8):
    return nn.Sequential(blocks.conv(3, width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n))
'''


BLOCKS = 'from torch import nn\ndef conv(n_in, n_out): return nn.Conv2d(n_in, n_out, {size})\n'


def write(folder, files=(), **more):
    for name, text in (dict(files) | more).items():
        file = folder / f'{name}.py'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def project(tmp_path):
    return write(tmp_path / 'project', nets=NET, blocks=BLOCKS.format(size=3))


def build(name):
    return build_network(str(name), 3)
