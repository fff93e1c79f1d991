"The state of objects is saved and restored in objects that the same program creates."

import io
import json
import re
from collections import deque
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import numpy as np
import pytest
import torch
from fastai.vision.all import Callback
from stateful_objects import HELD, Lamp, Slotted, Thing, alike, net, taken, trained
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.training.kinds import has_attributes
from kdfast.training.restore import StateRestorer
from kdfast.training.restore_values import devices_moved
from kdfast.training.save_values import UnsupportedState
from kdfast.training.snapshot import StateSaver


@pytest.mark.parametrize('kind', HELD)
def test_objects_are_restored_to_the_same_state(kind):
    make, change = HELD[kind]

    def made():
        torch.manual_seed(0)
        return make()

    first, other = made(), made()
    before = taken(first)
    change(first)
    change(first) if kind not in ('new, gone', 'array', 'dict') else None
    state, tensors = taken(first)
    assert not alike(before, (state, tensors)), 'nothing happened to it'
    StateRestorer(tensors)(json.loads(state), other)
    assert alike(taken(other), (state, tensors))


@pytest.mark.parametrize('make', [HELD[name][0] for name in ('Adam', 'ranger', 'AdamW', 'wrapped', 'RMSprop')])
def test_an_optimizer_goes_on_to_the_same_bits(make):
    torch.manual_seed(0)
    first, other = make(), make()
    trained(first)
    state, tensors = taken(first)
    StateRestorer(tensors)(json.loads(state), other)
    for o in (first, other):
        torch.manual_seed(1)
        trained(o)
    assert alike(taken(first), taken(other))


@pytest.mark.parametrize('saved', ['cuda:0', 'cuda:7', 'mps:0'])
def test_what_was_on_another_gpu_is_on_the_device_of_this_process(saved):
    "Whose GPU has another number, as that of any process but the first, or which has none; the rest stays on the CPU"
    first = SimpleNamespace(t=torch.rand(3), there=torch.device('cpu'), draws=torch.Generator(), here=torch.rand(2))
    state, tensors = taken(first)
    where = dict(t=saved, there=saved, draws=saved, here='cpu')
    state = json.loads(state)
    for name, value in state['attributes']:
        for key in {'device', 'text', 'about'} & value.keys():
            value[key] = where[name]
    other = SimpleNamespace()
    StateRestorer(tensors, None, devices_moved(saved, torch.device('cpu')))(state, other)
    assert alike(taken(first), taken(other))


def test_devices_that_take_the_place_of_others():
    cpu, gpu = torch.device('cpu'), torch.device('cuda', 1)
    assert devices_moved('cuda:0', gpu) == {'cuda:0': 'cuda:1'} and devices_moved('cuda:0', cpu) == {'cuda:0': 'cpu'}
    assert not any(devices_moved(*same) for same in (('cuda:1', gpu), ('cpu', gpu), ('cpu', cpu), (None, gpu)))


def test_an_object_with_several_references_stays_one_object():
    def made():
        t, shared = torch.zeros(4, 3), [1]
        return SimpleNamespace(t=t, row=t[1], a=shared, b=shared, model=(model := net()), weight=model[0].weight)

    first, other = made(), made()
    first.t.add_(2), first.a.append(2), setattr(first, 'c', first.t[2:])
    state, tensors = taken(first)
    StateRestorer(tensors)(json.loads(state), other)
    other.t[1, 0], other.t[3, 1] = 7, 8
    assert other.row[0] == 7 and other.c[1, 1] == 8 and other.a is other.b and other.weight is other.model[0].weight


def test_parameters_that_share_memory_go_on_doing_so():
    def made():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = nn.Parameter(model[0].weight.data)
        return SimpleNamespace(model=model, opt=torch.optim.SGD(model.parameters(), 0.1))

    first, other = made(), made()
    weights = list(other.model.parameters())
    first.model[0].weight.data.fill_(3)
    state, tensors = taken(first)
    StateRestorer(tensors)(json.loads(state), other)
    assert all(a is b for a, b in zip(weights, other.model.parameters())) and (other.model[1].weight == 3).all()
    assert other.model[0].weight.data_ptr() == other.model[1].weight.data_ptr()


def test_tensors_that_no_longer_share_memory_become_separate():
    def made():
        model, shared = net(), [1]
        return SimpleNamespace(model=model, before=model[0].weight.data, a=shared, b=shared)

    first, other = made(), made()
    first.before, first.b = torch.ones_like(first.before), [5]
    state, tensors = taken(first)
    StateRestorer(tensors)(json.loads(state), other)
    assert (other.before == 1).all() and not (other.model[0].weight == 1).all() and (other.a, other.b) == ([1], [5])


class Summed(list):
    pass


class Table(dict):
    pass


KEPT = nn.ReLU()


def with_attribute(container):
    container.total = 1
    return container


@pytest.mark.parametrize(
    'what,held',
    {
        'itertools.count': lambda: count(),
        'generator': lambda: (i for i in [1]),
        'sparse': lambda: torch.eye(2).to_sparse(),
        'method': lambda: iter([1]),
        'numpy.ndarray': lambda: np.array([None]),
        'masked array': lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
        'named columns': lambda: np.array([1.0, 2.0]).view(np.recarray),
        'StringIO': lambda: io.StringIO('text'),
        'BytesIO': lambda: io.BytesIO(b'bytes'),
        'weak keys': lambda: WeakKeyDictionary({KEPT: [1]}),
        'weak values': lambda: WeakValueDictionary({1: KEPT}),
        'weak set': lambda: WeakSet([KEPT]),
        'list with an attribute': lambda: with_attribute(Summed([1])),
        'dict with an attribute': lambda: with_attribute(Table(a=1)),
    }.items(),
)
def test_state_that_cannot_be_saved_is_named(what, held):
    class Counting(Callback):
        def __init__(self):
            self.queue = [held()]

    with pytest.raises(UnsupportedState, match='^Counting.queue.0 is a '):
        StateSaver()(dict(callbacks=[Counting()]))


class Counter2(count):
    pass


class Tagged(deque):
    __slots__ = ('tag',)


@pytest.mark.parametrize(
    'x',
    [
        count(),
        Counter2(),
        iter([1]),
        zip([1]),
        re.compile('a').scanner('b'),
        enumerate([1]),
        (i for i in [1]),
        object(),
        Tagged(),
        ValueError(1),
    ],
    ids=lambda x: type(x).__name__,
)
def test_state_of_c_code_is_no_attribute(x):
    assert not has_attributes(x)


@pytest.mark.parametrize('x', [Thing(1), Slotted(), Lamp(), SimpleNamespace(a=1), Path], ids=lambda x: type(x).__name__)
def test_state_of_python_code_is_attributes(x):
    assert has_attributes(x) == (x is not Path)


def test_a_new_object_has_a_place_in_fixed_and_numbers_have_none():
    thing = Thing(None)
    before = StateSaver()
    before(thing)
    thing.held = [1, torch.ones(2), {'a': np.ones(3)}]
    after = StateSaver()
    after(thing)
    assert after.fixed == before.fixed
    thing.held = Lamp()
    after = StateSaver()
    after(thing)
    assert after.fixed.keys() - before.fixed.keys() == {'.held'}


@pytest.mark.parametrize(
    'state',
    [
        dict(kind='object', n=0, type='os.system', attributes=[]),
        dict(kind='code', n=0, text='os.system', held=[]),
        dict(kind='module', n=0, type='torch.nn.Linear', parts=[], attributes=[]),
        dict(kind='stateful', n=0, type='torch.jit.load', state=None),
    ],
)
def test_a_checkpoint_creates_no_object_and_calls_no_function(state):
    for old in (None, [1], Thing(1), print):
        with pytest.raises(KdfastError, match='the checkpoint has the state of'):
            StateRestorer({})(state, old)


@pytest.mark.parametrize('type_', ['os.system', 'Thing', 'Parameter', 'type'])
def test_the_type_of_a_container_or_value_in_a_file_makes_no_object(type_):
    for kind in ('container', 'value', 'generator'):
        with pytest.raises((KdfastError, KeyError, StopIteration)):
            StateRestorer({})(dict(kind=kind, n=0, type=type_, items=[1], text='x', about='', state=None), None)
