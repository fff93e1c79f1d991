"Files beside weights say how images were prepared, and the order of classes."

import json

import pytest
import torch
from test_as_given import NORMALIZATIONS, photos, trained  # noqa: F401

from kdfast.core.errors import KdfastError
from kdfast.core.names import parse
from kdfast.models.as_given import as_given
from kdfast.models.weights_config import read_weights_config

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
TIMM = dict(pretrained_cfg=dict(mean=MEAN, std=STD, input_size=[3, 24, 24]), label_names=['cat', 'ape', 'bee'])
PROCESSOR = dict(image_mean=MEAN, image_std=STD, crop_size=dict(height=24, width=24), size=dict(shortest_edge=32))
LABELS = dict(id2label={'1': 'ape', '0': 'cat', '2': 'bee'})
WHOLE = dict(mean=MEAN, std=STD, size=[24, 24], classes=['cat', 'ape', 'bee'])


def beside(folder, files):
    "What is read beside weights, with these files in their directory"
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return read_weights_config(parse(f'thin@{folder / "net.pth"}'))


@pytest.mark.parametrize(
    'files,expected',
    [
        ({'config.json': TIMM}, WHOLE | dict(file='config.json')),
        ({'net.json': TIMM['pretrained_cfg']}, dict(mean=MEAN, std=STD, size=[24, 24], file='net.json')),
        ({'config.json': LABELS, 'preprocessor_config.json': PROCESSOR}, WHOLE | dict(file='config.json')),
        ({'net.json': {'input_size': 48}, 'config.json': TIMM}, WHOLE | dict(size=[48, 48], file='net.json')),
        ({'net.json': {'mean': 0.5, 'std': [0.25]}}, dict(mean=[0.5] * 3, std=[0.25] * 3, file='net.json')),
        (
            {'preprocessor_config.json': {'size': {'shortest_edge': 32}}},
            dict(size=[32, 32], file='preprocessor_config.json'),
        ),
        ({'config.json': {'id2label': {'0': 'LABEL_0', '1': 'LABEL_1'}}}, {}),
        ({'config.json': {'architectures': ['ViT'], 'hidden_size': 8}}, {}),
        ({'config.json': [1, 2]}, {}),
        ({}, {}),
    ],
)
def test_what_hubs_and_users_write_is_read(tmp_path, files, expected):
    assert beside(tmp_path, files) == expected


@pytest.mark.parametrize(
    'content',
    [
        '{',
        {'mean': MEAN},
        {'mean': MEAN[:2], 'std': STD[:2]},
        {'mean': MEAN, 'std': [0, 0, 0]},
        {'mean': 'imagenet', 'std': 'imagenet'},
        {'mean': MEAN, 'std': [0.1, 0.2, float('nan')]},
        {'input_size': 0},
        {'input_size': []},
        {'size': {'longest_edge': 32}},
        {'label_names': 3},
        {'id2label': {'0': 'cat', '2': 'dog'}},
        {'pretrained_cfg': 'resnet18'},
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_file(tmp_path, content):
    with pytest.raises(KdfastError, match='net.json, which lies beside the weights'):
        beside(tmp_path, {'net.json': content})


def test_recorded_preparation_and_classes_are_used_instead_of_tried(tmp_path, photos):  # noqa: F811
    order = ['cat', 'ape', 'bee']
    name, network = trained(tmp_path, photos, 32, MEAN, STD, order)
    (tmp_path / 'net.json').write_text(json.dumps(dict(mean=MEAN, std=STD, input_size=32, label_names=order)))
    given = as_given(name, photos)
    found = given.network.build_info
    assert (found['size'], found['mean'], found['std'], found['classes']) == ([32, 32], MEAN, STD, order)
    assert 'on images of 32×32 normalized as in net.json: as recorded; of 60 training images' in given.note
    raw = torch.from_numpy(photos.valid[0]).movedim(-1, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (photos.mean, photos.std))
    with torch.no_grad():
        right = given.adapted((raw - mean) / std).argmax(1) == torch.as_tensor(photos.valid[1])
    assert right.float().mean() > 0.7  # a wrong order of the classes would give a third
    (tmp_path / 'net.json').write_text(json.dumps(dict(label_names=['cat', 'dog', 'bee'])))
    with pytest.raises(KdfastError, match=r'net.json beside the weights .* missing of photos: ape'):
        as_given(name, photos)


def test_a_finished_run_is_not_reused_for_another_preparation(kdfast, images, tmp_path, monkeypatch, data):
    from test_as_given import data_of

    monkeypatch.chdir(tmp_path)
    name, _ = trained(tmp_path, data_of(data), 32, *NORMALIZATIONS['as ImageNet'])
    run = 'run', 'teacher', '--network', name, '--epochs', 0, '--data', images
    assert kdfast(*run).status == 0
    assert kdfast(*run).status == 0
    (tmp_path / 'net.json').write_text(json.dumps(dict(input_size=64)))
    again = kdfast(*run)
    assert again.status == 2 and 'as recorded then beside its weights (nothing)' in again.err
