"Weights from files of PyTorch, torchvision, timm, fastai and Lightning, and from libraries."

import argparse
import collections
import enum
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import equal
from safetensors.torch import save_file
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.models import weight_files, weight_names, weights
from kdfast.models.build import build_network
from kdfast.models.description import with_description
from kdfast.models.saved import build_for, save_network
from kdfast.models.study_networks import thin


@pytest.fixture(scope='module')
def state():
    torch.manual_seed(1)
    network = thin(3)
    with torch.no_grad():
        for t in network.state_dict().values():
            t.add_(torch.rand(t.shape).to(t.dtype))
    return network.state_dict()


def filled(name, file, n_classes=3):
    said = []
    torch.manual_seed(0)
    return build_network(f'{name}@{file}', n_classes, said.append), '; '.join(filter(None, said))


def saved(file, content, **kwargs):
    torch.save(content, file, **kwargs)
    return file


def prefixed(state, prefix):
    return collections.OrderedDict((prefix + key, value) for key, value in state.items())


class Mode(enum.Enum):
    best = 1


class Hyper(dict):
    pass


@dataclass(slots=True)
class Slots:
    a: int = 1


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


# What libraries know of their own weights


def old_names(state):
    return {
        re.sub(r'(denselayer\d+\.(?:norm|conv))(\d\.)', r'\1.\2', key): value
        for key, value in state.items()
        if 'num_batches_tracked' not in key
    }


def put(network, state):
    "Into a network that is as its library builds it, but smaller"
    return weights.fill(network, weight_names.select(state, lambda key: True), 'it', lambda: None)


def test_densenets_of_2017():
    torch.manual_seed(1)
    published, network = (torchvision.models.DenseNet(8, (2, 1), 8, num_classes=3) for _ in range(2))
    assert any('denselayer1.norm.1.weight' in key for key in old_names(published.state_dict())) and not put(
        network, old_names(published.state_dict())
    )
    assert all(
        (network.state_dict()[key] == value).all()
        for key, value in published.state_dict().items()
        if 'num_batches' not in key
    )


def test_mnasnet_of_its_first_version_and_of_no_version(tmp_path):
    new = torchvision.models.mnasnet0_5().state_dict()
    assert new._metadata['']['version'] == 2
    network, _ = filled('torchvision:mnasnet0_5', saved(tmp_path / 'w.pth', new), 1000)
    assert equal(network.state_dict(), new)
    save_file(dict(new), tmp_path / 'w.safetensors')
    assert equal(filled('torchvision:mnasnet0_5', tmp_path / 'w.safetensors', 1000)[0].state_dict(), new)


def test_auxiliary_heads_of_a_file_are_left_out(tmp_path):
    published = torchvision.models.googlenet(init_weights=False, aux_logits=True).state_dict()
    network, said = filled('torchvision:googlenet', saved(tmp_path / 'w.pth', published), 1000)
    assert 'auxiliary heads' in said and equal(
        network.state_dict(), {key: value for key, value in published.items() if not key.startswith('aux')}
    )


def test_positions_are_fitted_to_images_of_another_size_as_the_library_does(tmp_path):
    whole = build_network('timm:vit_tiny_patch16_224', 5)
    network = build_network(
        f'timm:vit_tiny_patch16_224@{saved(tmp_path / "w.pth", whole.state_dict())}', 5, size=(64, 64)
    )
    assert (network.pos_embed == timm.layers.resample_abs_pos_embed(whole.pos_embed, (4, 4))).all()
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    large, small = (VisionTransformer(size, 16, 1, 1, 8, 8, num_classes=3) for size in (128, 64))
    put(small, large.state_dict())
    assert (
        small.encoder.pos_embedding == interpolate_embeddings(64, 16, large.state_dict())['encoder.pos_embedding']
    ).all()
    assert (small.conv_proj.weight == large.conv_proj.weight).all()


def test_what_the_authors_wrote_is_renamed_by_timm(tmp_path):
    "ConvNeXt as Facebook published it"
    names = {
        'stem.0': 'downsample_layers.0.0',
        'stem.1': 'downsample_layers.0.1',
        'head.norm': 'norm',
        'head.fc': 'head',
    }
    torch.manual_seed(1)
    network = timm.create_model('convnext_atto', num_classes=7)
    published = {}
    for key, value in network.state_dict().items():
        for ours, theirs in names.items():
            key = re.sub(rf'^{re.escape(ours)}\.', f'{theirs}.', key)
        key = re.sub(
            r'^stages\.(\d)\.blocks', r'stages.\1', re.sub(r'^stages\.(\d)\.downsample', r'downsample_layers.\1', key)
        )
        for ours, theirs in (('conv_dw', 'dwconv'), ('mlp.fc1', 'pwconv1'), ('mlp.fc2', 'pwconv2')):
            key = key.replace(ours, theirs)
        published[key] = value
    filled_, said = filled('timm:convnext_atto', saved(tmp_path / 'w.pth', dict(model=published)), 3)
    assert 'for 7 classes and left new' in said
    assert all(
        (filled_.state_dict()[key] == value).all()
        for key, value in network.state_dict().items()
        if not key.startswith('head.fc')
    )


# Published weights; the downloads are made here, in the form in which they are published


def test_torchvision_renames_and_adapts_what_it_publishes(monkeypatch):
    from torchvision.models import DenseNet121_Weights

    torch.manual_seed(1)
    published = torchvision.models.densenet121().state_dict()
    monkeypatch.setattr(DenseNet121_Weights, 'get_state_dict', lambda self, *args, **kwargs: old_names(published))
    said = []
    network = build_network('torchvision:densenet121@pretrained', 3, said.append)
    assert 'classifier.weight, classifier.bias are for 1000 classes and left new' in said[
        0
    ] and network.classifier.weight.shape == (3, 1024)
    assert (
        network.features.denseblock1.denselayer1.norm1.weight
        == published['features.denseblock1.denselayer1.norm1.weight']
    ).all()


def test_a_pretrained_googlenet_sees_images_as_torchvisions_does_and_remembers_it(monkeypatch, data):
    "transform_input is no part of its weights"
    from torchvision.models import GoogLeNet_Weights

    torch.manual_seed(1)
    published = torchvision.models.googlenet(init_weights=False, aux_logits=True).state_dict()
    monkeypatch.setattr(GoogLeNet_Weights, 'get_state_dict', lambda self, *args, **kwargs: published)
    network, _ = build_for('torchvision:googlenet@pretrained', data)
    assert (
        network.transform_input
        and network.aux1 is None
        and 'transform_input=True' in network.build_info['network']
        and '@' not in network.build_info['network']
    )
    assert not build_network('torchvision:googlenet', 3).transform_input


def test_timm_loads_what_it_publishes_with_the_names_arguments(monkeypatch):
    torch.manual_seed(1)
    published = timm.create_model('vit_tiny_patch16_224', num_classes=1000).state_dict()
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_hf', lambda *args, **kwargs: dict(published))
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_url', lambda *args, **kwargs: dict(published))
    said = []
    network = build_network('timm:vit_tiny_patch16_224@pretrained', 3, said.append, size=(64, 64))
    assert (
        network.pos_embed == timm.layers.resample_abs_pos_embed(published['pos_embed'], (4, 4))
    ).all() and 'head.weight, head.bias are for 1000 classes' in said[0]
    assert (network.blocks[3].mlp.fc1.weight == published['blocks.3.mlp.fc1.weight']).all()


def test_no_connection_is_said_in_words(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr('torchvision.models.ResNet18_Weights.get_state_dict', offline)
    with pytest.raises(
        KdfastError, match='could not be fetched .no route to host.: go online once, or name a file behind the @'
    ):
        build_network('torchvision:resnet18@pretrained', 3)


# Versions


def test_a_file_of_kdfast_keeps_versions_and_extra_state(tmp_path):
    network = torchvision.models.mnasnet0_5(num_classes=3)
    save_network(network, tmp_path / 'w.safetensors')
    state, _ = weight_files.read(tmp_path / 'w.safetensors')
    assert {key: state._metadata.get(key) for key in network.state_dict()._metadata} == dict(
        network.state_dict()._metadata
    )
    assert len(weight_files.read_safetensors(tmp_path / 'w.safetensors')[1]['versions']) < len(
        network.state_dict()._metadata
    )
