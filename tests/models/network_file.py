"A user's file with networks."

from fastai.vision.all import set_seed

from kdfast.models.build import build_network

MINE = '''from torch import nn

def tiny(n_classes):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_classes)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), *head)
def words(n_classes): return 'a network'
def soft(n_classes): return nn.Sequential(tiny(n_classes), nn.Softmax(1))
def flat(n_classes): return nn.Flatten()
'''


def mine(tmp_path):
    (tmp_path / 'mine.py').write_text(MINE)
    return f'{tmp_path / "mine.py"}:tiny'


def build(name, n_classes=3, **kwargs):
    set_seed(0)
    return build_network(name, n_classes, **kwargs)
