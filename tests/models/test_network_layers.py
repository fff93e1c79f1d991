"Fronts and layers of networks, and regressors between them."

import json
import re
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from kdfast.core.errors import KdfastError
from kdfast.distill.regressor import regressor
from kdfast.models.front import TruncatedModel, features, front, front_back, full_name
from kdfast.models.layers import layers, matching_layers
from kdfast.models.study_networks import thin, wide

# Layers


@pytest.mark.parametrize(
    'name,layer',
    [
        ('resnet18', 'layer2'),
        ('resnet18', 'layer3.0.conv1'),
        ('mobilenet_v3_small', 'features.4'),
        ('squeezenet1_1', 'features.6.expand3x3'),
    ],
)
def test_a_front_gives_what_torchvisions_feature_extractor_gives(name, layer):
    net, x = get_model(name, num_classes=3).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert (front(net, layer)(x) == create_feature_extractor(net, [layer])(x)[layer]).all()


def test_nothing_behind_the_layer_is_computed_once_it_is_known_and_no_hook_is_left():
    net, seen = get_model('resnet18', num_classes=3), []
    for name in ('layer2', 'layer3'):
        getattr(net, name).register_forward_hook(lambda module, *_, name=name: seen.append(name))
    hooks = [len(m._forward_hooks) for m in net.modules()]
    cut = front(net, 'layer2')
    features(cut, torch.randn(2, 3, 64, 64))
    seen.clear()
    cut(torch.randn(2, 3, 64, 64))
    with pytest.raises(RuntimeError):
        cut(torch.randn(2, 5, 64, 64))
    assert seen == ['layer2'] and hooks == [len(m._forward_hooks) for m in net.modules()]


def test_a_front_inside_sequences_is_a_slice_and_shares_its_modules():
    net = thin(3)
    cut = front(net, 'stage2.0')
    assert (
        not any(isinstance(m, TruncatedModel) for m in cut.modules())
        and cut[2][0] is net.stage2[0]
        and len(cut[2]) == 1
    )
    x = torch.randn(2, 3, 16, 16)
    assert (cut.eval()(x) == net.eval().stage2[0](net[:2](x))).all()


def test_a_layer_that_is_not_there_or_gives_no_tensor():
    with pytest.raises(KdfastError, match='ResNet has no layer layer5; did you mean layer4'):
        front(get_model('resnet18'), 'layer5')

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.unused = nn.LSTM(4, 4), nn.Identity()

        def forward(self, x):
            return self.a(x)[0]

    with pytest.raises(KdfastError, match='layer a gives tuple, expected a tensor'):
        front(Two(), 'a')(torch.zeros(2, 4, 4))
    with pytest.raises(KdfastError, match='does not compute its layer unused'):
        front(Two(), 'unused')(torch.zeros(2, 4, 4))


def test_the_front_holds_what_the_guided_features_depend_on_and_the_back_the_rest():
    net = get_model('resnet18', num_classes=3).train()
    held, trained = front_back(net, 'layer2', torch.randn(2, 3, 64, 64))
    names = {id(p): name for name, p in net.named_parameters()}
    assert {names[id(p)].split('.')[0] for p in held} == {'conv1', 'bn1', 'layer1', 'layer2'}
    assert {names[id(p)].split('.')[0] for p in trained} == {'layer3', 'layer4', 'fc'} and len(held) + len(
        trained
    ) == len(names)
    assert net.training and all(p.grad is None for p in net.parameters())


def test_looking_at_features_leaves_every_module_in_its_mode():
    "A student that trains with some of its batch norms frozen, and a teacher that does not train"
    net = get_model('resnet18', num_classes=3).train()
    net.layer1[0].bn1.eval()
    before = [module.training for module in net.modules()]
    for layer in ('layer1', 'layer2.0.conv1'):
        features(front(net, layer), torch.zeros(2, 3, 32, 32)), front_back(net, layer, torch.zeros(2, 3, 32, 32))
        assert [module.training for module in net.modules()] == before


def test_a_regressor_shrinks_a_larger_map_as_in_the_paper():
    "A valid convolution of n − m + 1: 16 → 8 takes a kernel of 9"
    x = torch.randn(2, 3, 32, 32)
    larger, hint = front(thin(3), 'stage1'), front(wide(3), 'stage2')
    matrix = regressor(larger, hint, x)
    assert matrix.kernel_size == (9, 9) and matrix(larger(x)).shape == hint(x).shape
    with pytest.raises(KdfastError, match='features 3 to a hint 84×8×8: a vector has no positions'):
        regressor(front(thin(3), 'head'), hint, x)


def test_layers_are_listed_as_they_are_computed_and_pairs_meet_in_height_and_width():
    student, teacher = (layers(net, 32) for net in (thin(), wide()))
    assert [(layer.name, layer.shape) for layer in student if '.' not in layer.name] == [
        ('stem', (16, 16, 16)),
        ('stage1', (16, 16, 16)),
        ('stage2', (40, 8, 8)),
        ('stage3', (88, 4, 4)),
    ]
    assert student[0].params == 3 * 16 * 9 + 2 * 16
    assert [(h.name, g.name) for h, g in matching_layers(teacher, student)] == [
        ('stage1', 'stage1'),
        ('stage2', 'stage2'),
        ('stage3', 'stage3'),
    ]


def test_the_command_that_lists_layers(kdfast):
    done = kdfast('layers', 'torchvision:resnet18', '--teacher', 'wide', '--size', 64)
    assert done.status == 0 and '--hint stage3:layer2' in done.out and '84 → ' not in done.out.split('equal height')[0]
    assert kdfast('layers', 'torchvision:resnet81').status == 2
    assert 'choose another --size' in kdfast('layers', 'torchvision:alexnet', '--size', 8).err
    assert json.loads(kdfast('layers', 'thin', '--json').out)['thin'][-1]['shape'] == [88, 4, 4]


@pytest.mark.parametrize(
    'name,layer,near',
    [('start', 'stage2', ''), ('stages', 'stages3', 'stages'), ('body', 'zzz', ''), ('layer4', 'layer5', 'layer4')],
)
def test_a_missing_layer_says_what_to_do_and_suggests_similar_names_alone(name, layer, near):
    "start.2 is not similar to stage2"
    net = nn.Sequential(OrderedDict([(name, nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity()))]))
    with pytest.raises(KdfastError) as e:
        full_name(net, layer)
    hint = re.search('did you mean (.*)[?] kdfast', e.value.message)
    assert (hint[1].split(', ')[0] if hint else '') == near
    assert e.value.message.endswith(' kdfast layers NETWORK lists its layers')
