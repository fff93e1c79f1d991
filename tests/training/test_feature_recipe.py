"The recipe with features fits the two networks."

from types import SimpleNamespace

import pytest

from kdfast.core.errors import KdfastError
from kdfast.training.feature_recipe import feature_recipe

NETS = '''
from torch import nn

def block(inputs, outputs, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())

def head(width, n):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n)]

def small(n): return nn.Sequential(block(3, 4), block(4, 6, 2), block(6, 8, 2), *head(8, n))
def large(n): return nn.Sequential(block(3, 8), block(8, 12, 2), block(12, 16, 2), *head(16, n))
def steep(n): return nn.Sequential(block(3, 4, 3), *head(4, n))
def flat(n): return nn.Sequential(nn.Flatten(), nn.Linear(192, n))
'''


@pytest.mark.parametrize(
    'student,teacher,expected',
    [
        ('small', 'large', ('exp2', dict(hint='1:1'))),  # the middle one of three pairs
        ('steep', 'large', ('sp', dict(layers='2:0'))),  # no common size
        ('flat', 'large', ('dist', {})),  # no feature maps
    ],
)
def test_exp2_if_layers_can_be_paired_else_a_recipe_for_any_pair(data, tmp_path, student, teacher, expected):
    (tmp_path / 'nets.py').write_text(NETS)
    assert feature_recipe(f'{tmp_path}/nets.py:{student}', f'{tmp_path}/nets.py:{teacher}', data) == expected


def test_the_networks_of_the_study_keep_their_layers(data):
    assert feature_recipe('thin', 'wide', data) == ('exp2', {})


def test_an_unknown_network_is_refused(data):
    with pytest.raises(KdfastError, match='did you mean resnet18'):
        feature_recipe('torchvision:resnet81', 'wide', data)


@pytest.mark.parametrize('height,width', [(16, 16), (16, 32), (48, 32)])
def test_images_of_any_height_and_width(height, width):
    "Also where both sides matter to a network"
    vit = 'timm:vit_tiny_patch16_224(patch_size=8, embed_dim=24, num_heads=3, depth=2)'
    data = SimpleNamespace(classes=['a', 'b'], shape=(height, width))
    assert feature_recipe(vit, vit, data) == ('exp2', dict(hint='norm:norm'))
