"Objects with state, and how training changes it."

import json
import operator
import random
import re
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from fastai.vision.all import SGD, Adam, AvgSmoothLoss, L, OptimWrapper, TensorImage, ranger
from torch import nn

from kdfast.training.snapshot import StateSaver

Point = namedtuple('Point', 'x y')


class Thing:
    "An object that holds something"

    def __init__(self, held):
        self.held = held


class Slotted:
    __slots__ = 'a', 'b'

    def __init__(self):
        self.a, self.b = 1, [1]


class Lamp:
    "Says what its state is"

    def __init__(self):
        self.on = False

    def state_dict(self):
        return dict(on=self.on)

    def load_state_dict(self, state):
        self.on = state['on']


def counter(start=0):
    n, calls = start, []

    def step():
        nonlocal n
        n += 1
        calls.append(n)
        return n, len(calls)

    return step


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).to(memory_format=torch.channels_last)


def optimized(make):
    model = net()
    return SimpleNamespace(model=model, opt=make(model))


def trained(o, steps=3):
    for _ in range(steps):
        o.model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        o.opt.step()
        o.opt.zero_grad()


def set_(**values):
    return lambda o: vars(o).update(values)


HELD = {  # what an object holds at first, and what happens to it
    'numbers': (
        lambda: SimpleNamespace(i=1, f=0.1, inf=0.0, big=0, text='a', none=None),
        set_(i=2, f=1 / 3, inf=float('-inf'), big=2**80, text='é"\n', none=False),
    ),
    'list': (lambda: [1, [2]], lambda o: (o[1].append({'a': (1, 2)}), o.append(o[1]))),
    'long lists': (list, lambda o: o.extend([[1 / (i + 1) for i in range(100)], list(range(100)), [2**70] * 100])),
    'L': (lambda: L(1, 2), lambda o: o.append(torch.ones(2))),
    'set': (lambda: {1}, lambda o: o.update({5, 3})),
    'dict': (lambda: {'a': 1}, lambda o: (o.pop('a'), o.update({1: 'x', None: 2, (1, 'a'): {}, 'b': 3}))),
    'dicts': (
        lambda: [defaultdict(list), OrderedDict(), Counter(), deque([1, 2], 3)],
        lambda o: (o[0]['x'].append(1), o[1].update(b=1, a=2), o[2].update('abca'), o[3].extend((3, 4))),
    ),
    'tuple': (lambda: [(1, [2])], lambda o: o[0][1].append(3)),
    'namedtuple': (lambda: [Point(1, [])], lambda o: o[0].y.append(5)),
    'tensor': (
        lambda: SimpleNamespace(t=torch.arange(6.0).view(2, 3), new=None),
        lambda o: (o.t.add_(1), set_(new=torch.tensor(2.5, dtype=torch.bfloat16))(o)),
    ),
    'layout': (
        lambda: Thing(None),
        lambda o: setattr(o, 'held', torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)),
    ),
    'subclass': (lambda: Thing(None), lambda o: setattr(o, 'held', TensorImage(torch.rand(3)))),
    'empty': (
        lambda: Thing(None),
        lambda o: setattr(o, 'held', [torch.empty(0, 3), torch.tensor(True), np.zeros((0, 2))]),
    ),
    'array': (
        lambda: Thing(np.ones((2, 2))),
        lambda o: setattr(o, 'held', [o.held * 3, np.float64(0.1), np.uint8(3), np.array(2)]),
    ),
    'generators': (
        lambda: [
            random.Random(0),
            np.random.default_rng(0),
            np.random.RandomState(0),
            torch.Generator().manual_seed(0),
        ],
        lambda o: (o[0].random(), o[1].random(), o[2].rand(), torch.rand(1, generator=o[3])),
    ),
    'generator': (lambda: Thing(None), lambda o: setattr(o, 'held', [np.random.default_rng(3), random.Random(4)])),
    'values': (
        lambda: Thing(None),
        lambda o: setattr(
            o,
            'held',
            [Path('a/b'), torch.float16, torch.device('cpu'), torch.Size([1, 2]), b'\0x', 1j, slice(1, None), range(3)],
        ),
    ),
    'object': (lambda: Thing(Thing(1)), lambda o: setattr(o.held, 'held', [3])),
    'new, gone': (lambda: SimpleNamespace(a=1), lambda o: (delattr(o, 'a'), setattr(o, 'b', 2))),
    'slots': (Slotted, lambda o: (setattr(o, 'a', 5), o.b.append(2))),
    'state_dict': (lambda: Thing(Lamp()), lambda o: setattr(o.held, 'on', True)),
    'cycle': (lambda: (lambda a: (setattr(a, 'held', a), a)[1])(Thing(1)), lambda o: setattr(o, 'more', [o])),
    'closure': (lambda: counter(), lambda o: o()),
    'partial': (lambda: partial(max, [1], key=counter()), lambda o: (o.args[0].append(2), o.keywords['key']())),
    'method': (lambda: [Thing([1])].copy()[0].held.append, lambda o: o(2)),
    'default': (lambda: lambda memo=[]: memo.append(1), lambda o: o()),
    'code': (
        lambda: [np.less, str.upper, len, re.compile('a'), operator.itemgetter(1), lru_cache(len), Thing],
        lambda o: o.append(1),
    ),
    'metric': (AvgSmoothLoss, lambda o: (o.reset(), setattr(o, 'count', 3), setattr(o, 'val', torch.tensor(0.3)))),
    'module': (
        net,
        lambda o: (
            o(torch.randn(2, 3, 8, 8)).sum().backward(),
            o[1].eval(),
            setattr(o[2], 'p', 0.3),
            o[0].weight.requires_grad_(False),
        ),
    ),
    'no gradient': (
        net,
        lambda o: (
            o(torch.randn(2, 3, 8, 8)).sum().backward(),
            o[0].weight.grad.zero_(),
            setattr(o[1].bias, 'grad', None),
        ),
    ),
    'scheduler': (
        lambda: optimized(lambda m: torch.optim.lr_scheduler.StepLR(torch.optim.SGD(m.parameters(), 0.1), 1)),
        lambda o: (o.opt.optimizer.step(), o.opt.step()),
    ),
    'averaged': (
        lambda: optimized(lambda m: torch.optim.swa_utils.AveragedModel(m)),
        lambda o: o.opt.update_parameters(o.model),
    ),
    **{
        name: (partial(optimized, make), trained)
        for name, make in {
            'SGD': lambda m: SGD([list(m.parameters())], 0.1, mom=0.9),
            'Adam': lambda m: Adam([list(m.parameters())], 0.1),
            'ranger': lambda m: ranger([list(m.parameters())], 0.1),
            'AdamW': lambda m: torch.optim.AdamW(m.parameters(), 0.1, amsgrad=True),
            'RMSprop': lambda m: torch.optim.RMSprop(m.parameters(), 0.01, momentum=0.9, centered=True),
            'wrapped': lambda m: OptimWrapper(
                [list(m[0].parameters()), list(m[1].parameters())], opt=torch.optim.NAdam
            ),
            'Rprop': lambda m: torch.optim.Rprop(m.parameters()),
            'ASGD': lambda m: torch.optim.ASGD(m.parameters()),
        }.items()
    },
}


def taken(x):
    take = StateSaver()
    state = json.dumps(take(x))
    return state, {name: t.clone() for name, t in take.tensors.items()}


def alike(one, other):
    return (
        one[0] == other[0]
        and one[1].keys() == other[1].keys()
        and all(equal_bits(t, other[1][name]) for name, t in one[1].items())
    )


def equal_bits(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bool((a.flatten().view(torch.uint8) == b.flatten().view(torch.uint8)).all())
    )
