"Weights that libraries publish, with the old names of layers; versions and extra state."

import re

import pytest
import timm
import torch
import torchvision
import weights_files
from conftest import equal
from safetensors.torch import save_file
from weights_files import filled, saved

from kdfast.core.errors import KdfastError
from kdfast.models import weight_files, weight_names, weights
from kdfast.models.build import build_network
from kdfast.models.saved import build_for, save_network

state = pytest.fixture(scope='module')(weights_files.state)


# What libraries know of their own weights


def old_names(state):
    return {
        re.sub(r'(denselayer\d+\.(?:norm|conv))(\d\.)', r'\1.\2', key): value
        for key, value in state.items()
        if 'num_batches_tracked' not in key
    }


def put(network, state):
    "Into a network that is as its library builds it, but smaller"
    return weights.fill(network, weight_names.select(state, lambda key: True), 'it', lambda: None).note


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
