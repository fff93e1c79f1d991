"Files of weights: which programs wrote them, what is ignored or refused, classifiers for other classes."

import argparse
import collections
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import weights_files
from conftest import equal
from safetensors.torch import save_file
from torch import nn
from weights_files import Hyper, Mode, Slots, filled, prefixed, saved

from kdfast.core.errors import KdfastError
from kdfast.models.build import build_network
from kdfast.models.description import with_description
from kdfast.models.saved import save_network
from kdfast.models.study_networks import thin

state = pytest.fixture(scope='module')(weights_files.state)


# Who wrote the file

WRITERS = {
    'state dict': lambda s: s,
    'of 2017': lambda s: {key: value for key, value in s.items() if 'num_batches_tracked' not in key},
    'DataParallel': lambda s: prefixed(s, 'module.'),
    'compiled': lambda s: prefixed(s, '_orig_mod.'),
    'compiled and parallel': lambda s: prefixed(s, 'module._orig_mod.'),
    'compiled inside': lambda s: {key.replace('stage1.', 'stage1._orig_mod.', 1): value for key, value in s.items()},
    'Lightning': lambda s: {
        'epoch': 3,
        'global_step': 9,
        'pytorch-lightning_version': '2.5',
        'state_dict': prefixed(s, 'model.'),
        'loops': {},
        'callbacks': {},
        'optimizer_states': [dict(state={}, param_groups=[])],
        'hyper_parameters': Hyper(lr=0.1),
        'hparams_name': 'kwargs',
    },
    'Lightning, net': lambda s: dict(state_dict=prefixed(s, 'net.')),
    'Lightning, deep': lambda s: dict(state_dict=prefixed(s, 'model.encoder.')),
    'timm': lambda s: dict(
        epoch=3,
        arch='it',
        state_dict=s,
        optimizer=dict(state={}, param_groups=[]),
        version=2,
        args=argparse.Namespace(lr=0.1, path=Path('x')),
        amp_scaler={},
        metric=71.3,
    ),
    'torchvision': lambda s: dict(
        model=s,
        optimizer=dict(state={}, param_groups=[]),
        lr_scheduler=dict(_schedulers=[]),
        epoch=3,
        args=argparse.Namespace(lr=0.1),
    ),
    'fastai': lambda s: dict(model=s, opt=dict(state=[dict(mom=torch.rand(3))], hypers=[dict(lr=0.1)])),
    'nested': lambda s: dict(checkpoint=3, model=dict(state_dict=s)),
    'an enum beside it': lambda s: dict(model_state_dict=s, mode=Mode.best, when=[Mode.best]),
    'numbers of numpy': lambda s: dict(state_dict=s, best=np.float64(0.5), curve=np.arange(3.0), seen=np.int64(3)),
    'objects': lambda s: dict(
        state_dict=s,
        slots=Slots(),
        call=partial(print, 1),
        hyper=Hyper(a=Slots()),
        kind=Mode,
        settings=collections.defaultdict(Mode),
    ),
    'parameters': lambda s: {
        key: nn.Parameter(value) if value.is_floating_point() else value for key, value in s.items()
    },
}


@pytest.mark.parametrize('new_format', [True, False], ids=['zip', 'old'])
@pytest.mark.parametrize('writer', WRITERS)
def test_who_wrote_a_file_of_weights_makes_no_difference(tmp_path, state, writer, new_format):
    network, said = filled(
        'thin', saved(tmp_path / 'w.pth', WRITERS[writer](state), _use_new_zipfile_serialization=new_format)
    )
    tracked = [key for key in state if writer != 'of 2017' or 'num_batches_tracked' not in key]
    assert not said and all((network.state_dict()[key] == state[key]).all() for key in tracked)


@pytest.mark.parametrize('prefix', ['', 'module.', 'model.', '_orig_mod.'])
def test_safetensors_with_a_prefix(tmp_path, state, prefix):
    save_file(prefixed(state, prefix), tmp_path / 'w.safetensors')
    assert equal(filled('thin', tmp_path / 'w.safetensors')[0].state_dict(), state)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken_into_the_networks_own(tmp_path, state, dtype):
    low = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    network, _ = filled('thin', saved(tmp_path / 'w.pth', low))
    assert all(
        value.dtype == state[key].dtype and (value == low[key].to(value.dtype)).all()
        for key, value in network.state_dict().items()
    )


def test_averaged_weights_are_taken_and_that_is_said(tmp_path, state):
    other = {key: value + 1 for key, value in state.items()}
    for content in (
        dict(state_dict=other, state_dict_ema=state),
        dict(model=other, model_ema=prefixed(state, 'module.') | dict(n_averaged=torch.tensor(3))),
    ):
        network, said = filled('thin', saved(tmp_path / 'w.pth', content))
        assert equal(network.state_dict(), state) and 'averaged weights' in said


def test_what_is_left_out_is_said(tmp_path, state):
    network, said = filled(
        'thin',
        saved(tmp_path / 'w.ckpt', dict(state_dict=prefixed(state, 'model.') | {'criterion.weight': torch.ones(3)})),
    )
    assert equal(network.state_dict(), state) and 'criterion.weight left out' in said


def test_weights_that_kdfast_wrote_are_weights(tmp_path, data):
    network = with_description(thin(3), 'thin', data)
    save_network(network, tmp_path / 'w.safetensors')
    found, said = filled('thin', tmp_path / 'w.safetensors')
    assert equal(found.state_dict(), network.state_dict()) and not said


@pytest.mark.parametrize(
    'content,said',
    [
        (lambda s: prefixed(s, 'a.') | prefixed(s, 'b.'), 'are of several such networks \\(a., b.\\)'),
        (lambda s: thin(3), 'holds no plain state dict'),
        (lambda s: [s], 'holds no plain state dict'),
        (lambda s: dict(epoch=3), 'holds no plain state dict'),
        (lambda s: {key: value.numpy() for key, value in s.items()}, 'holds no plain state dict'),
        (
            lambda s: {key: (value * 10).to(torch.int8) for key, value in s.items()},
            'stem.0.weight holds torch.int8, expected torch.float32',
        ),
        (
            lambda s: {key: value for key, value in s.items() if 'head' not in key and 'stem.0' not in key},
            'missing stem.0.weight',
        ),
        (lambda s: {}, 'holds no plain state dict'),
        (lambda s: {f'other.{i}': torch.ones(1) for i in range(3)}, 'unexpected other.0, other.1, other.2'),
    ],
)
def test_what_is_no_weights_of_the_network_is_refused(tmp_path, state, content, said):
    with pytest.raises(KdfastError, match=said):
        filled('thin', saved(tmp_path / 'w.pth', content(state)))


class Runs:
    "Touches a file when it is unpickled"

    def __init__(self, call, *args):
        self.said = call, args

    def __reduce__(self):
        return self.said


@pytest.mark.parametrize('new_format', [True, False], ids=['zip', 'old'])
def test_objects_beside_the_weights_are_ignored_and_never_run(tmp_path, state, new_format):
    "By any way that a pickle has: what it names is neither imported nor called"
    import os

    ran = tmp_path / 'ran'

    def load(*more):
        return filled(
            'thin', saved(tmp_path / 'w.pth', dict(model=state, more=more), _use_new_zipfile_serialization=new_format)
        )[0]

    assert equal(
        load(
            Runs(open, str(ran), 'w'),
            Runs(exec, f'open({str(ran)!r}, "w")'),
            Runs(getattr, ran, 'touch'),
            Hyper(a=Hyper()),
        ).state_dict(),
        state,
    )
    for call, said in ((Runs(os.mkdir, str(ran)), 'mkdir'), (Runs(Path.touch, ran), 'Trying to call')):
        with pytest.raises(KdfastError, match=f'holds no plain state dict .*{said}'):
            load(call)
    assert not ran.exists()


# Classifiers for other classes


@pytest.mark.parametrize(
    'name',
    [
        'torchvision:squeezenet1_1',
        'torchvision:mobilenet_v3_small',
        'timm:deit_tiny_distilled_patch16_224',
        'timm:levit_128s',
        'timm:mobilenetv3_small_050',
    ],
)
def test_every_classifier_is_left_new_wherever_it_is_and_nothing_else(tmp_path, name):
    torch.manual_seed(1)
    other = build_network(name, 7)
    network, said = filled(name, saved(tmp_path / 'w.pth', other.state_dict()), 3)
    new = [key for key, value in other.state_dict().items() if value.shape != network.state_dict()[key].shape]
    assert new and all(key in said for key in new) and 'for 7 classes and left new' in said
    assert equal(
        {k: v for k, v in other.state_dict().items() if k not in new},
        {k: v for k, v in network.state_dict().items() if k not in new},
    )


def test_weights_without_a_classifier(tmp_path):
    headless = {
        key: value for key, value in torchvision.models.resnet18().state_dict().items() if not key.startswith('fc.')
    }
    network, said = filled('torchvision:resnet18', saved(tmp_path / 'w.pth', headless))
    assert (
        'fc.weight, fc.bias are not among the weights and left new' in said
        and (network.conv1.weight == headless['conv1.weight']).all()
    )


def test_a_width_that_is_the_number_of_classes_is_no_classifier(tmp_path):
    "Eight channels and eight classes, from sixteen of both"
    (tmp_path / 'nets.py').write_text(
        'from torch import nn\ndef net(n, width):\n'
        '    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n))\n'
    )
    wide = build_network(f'{tmp_path}/nets.py:net(width=16)', 16)
    with pytest.raises(KdfastError, match='0.weight is 16×3×3×3, expected 8×3×3×3'):
        filled(f'{tmp_path}/nets.py:net(width=8)', saved(tmp_path / 'w.pth', wide.state_dict()), 8)


def test_files_that_torch_cannot_read_are_described_in_one_sentence(tmp_path, state):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / 'jit.pt')
    with pytest.raises(KdfastError, match=r'it is a TorchScript archive; save torch.jit.load\(…\).state_dict\(\)'):
        filled('thin', tmp_path / 'jit.pt')
    whole = saved(tmp_path / 'w.pth', state).read_bytes()
    (tmp_path / 'half.pth').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KdfastError) as e:
        filled('thin', tmp_path / 'half.pth')
    assert 'failed reading zip archive' in e.value.message and 'weights_only' not in e.value.message
    assert '. ' not in e.value.message.partition(': expected')[0]
