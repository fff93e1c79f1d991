"Networks that fail in a rehearsal, and folders in which rehearsals leave nothing."

import random
import signal
import tempfile

import numpy as np
import torch

from kdfast.training import execute

NETS = '''
import torch
from torch import nn

def body(n): return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), \
nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n))

class Net(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.body = body(n)
    def forward(self, x): return self.body(x)

class Pair(Net):
    def forward(self, x): return (self.body(x), x) if self.training else self.body(x)

class Detached(Net):
    def forward(self, x): return self.body(x).detach()

class Forgets(Net):
    def __init__(self, n):
        super().__init__(n)
        self.scale = torch.rand(1)
    def forward(self, x): return self.body(x)*self.scale

class Breaks(Net):
    def forward(self, x):
        if len(x) == 8 and self.training: raise RuntimeError('eight images')
        return self.body(x)

class Undefined(Net):
    def forward(self, x): return self.body(x.log()) if self.training else self.body(x)

def good(n): return Net(n)
def pair(n): return Pair(n)
def detached(n): return Detached(n)
def forgets(n): return Forgets(n)
def breaks(n): return Breaks(n)
def number(n): return 5
def undefined(n): return Undefined(n)

def parallel(n): return nn.DataParallel(Net(n))
def compiled(n): return torch.compile(Net(n), backend='eager')
def double(n): return Net(n).double()
def half(n): return Net(n).half()
def bfloat16(n): return Net(n).bfloat16()

class Counts(Net):
    def __init__(self, n):
        super().__init__(n)
        self.register_buffer('calls', torch.zeros(()))
    def forward(self, x):
        self.calls += 1
        return self.body(x) * (1 + self.calls / 10)

def counts(n): return Counts(n)

def prepared(n):
    import torch.ao.quantization as quantization

    net = quantization.QuantWrapper(Net(n)).train()
    net.qconfig = quantization.get_default_qat_qconfig('x86')
    return quantization.prepare_qat(net)
'''


def temporary(tmp_path, monkeypatch):
    "Where rehearsals are: empty in the end"
    folder = tmp_path / 'temporary'
    folder.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    yield folder
    assert not list(folder.glob('kdfast-*'))  # torch keeps a folder of its own there


def never_trained(monkeypatch):
    def train(*_):
        raise AssertionError('it was trained')

    monkeypatch.setattr(execute, 'train_alone', train)


def nets(tmp_path, name):
    (tmp_path / 'nets.py').write_text(NETS)
    return f'{tmp_path}/nets.py:{name}'


# What it leaves: nothing


def here():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.backends.cudnn.deterministic,
        torch.is_autocast_enabled('cpu'),
        signal.getsignal(signal.SIGTERM),
    )
