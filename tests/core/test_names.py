"Names of networks with arguments, and networks for one image size."

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from kdfast.core.errors import KdfastError
from kdfast.core.names import Name, parse
from kdfast.models.adapt import adapt_teacher
from kdfast.models.build import build_network, check_network, fit_to_size
from kdfast.models.saved import build_for, load_network_file, save_network
from kdfast.runs.recipes import find_recipe


@pytest.mark.parametrize(
    'name,parts',
    [
        ('wide', ('', 'wide', {}, '')),
        ('torchvision:resnet18@pretrained', ('torchvision', 'resnet18', {}, 'pretrained')),
        (
            'timm:vit_tiny_patch16_224.augreg_in21k(img_size=64)',
            ('timm', 'vit_tiny_patch16_224.augreg_in21k', dict(img_size=64), ''),
        ),
        (
            'timm:vit(img_size=(64, 32), drop=-.5, name="a, b", on=True, off=None, parts=[1, [2]], '
            'more={"a": 1})@w.pth',
            (
                'timm',
                'vit',
                dict(img_size=(64, 32), drop=-0.5, name='a, b', on=True, off=None, parts=[1, [2]], more=dict(a=1)),
                'w.pth',
            ),
        ),
        ('nets.py:tiny(width=16)@w(1).pth', ('nets.py', 'tiny', dict(width=16), 'w(1).pth')),
        ('/home/me (2)/a@b/nets.py:tiny()', ('/home/me (2)/a@b/nets.py', 'tiny', {}, '')),
        ('nets.py:tiny@w@2.pth', ('nets.py', 'tiny', {}, 'w@2.pth')),
        ('C:\\nets\\a.py:tiny', ('C:\\nets\\a.py', 'tiny', {}, '')),
        ('my.package:tiny(a="it\'s")', ('my.package', 'tiny', dict(a="it's"), '')),
    ],
)
def test_a_name_is_taken_apart_and_put_together(name, parts):
    found = parse(name)
    assert (found.where, found.what, found.keywords, found.weights) == parts and parse(str(found)) == found


@pytest.mark.parametrize(
    'arguments',
    [
        '(16)',
        '(width=n)',
        '(width=1+x)',
        '(width=f())',
        '(**{})',
        '(width=__import__("os").mkdir("ran"))',
        '(width=16',
        'width=16)',
        '(a=1)(b=2)',
        '(a=1, a=2)',
        '(a=)',
        '(a:=1)',
        '(a=1 for a in b)',
        '(a=lambda: 1)',
        '(' + 'a=(' + '(' * 300 + ')' * 300 + '))',
    ],
)
def test_arguments_are_plain_values_and_never_evaluated(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KdfastError, match='no arguments|names no network'):
        parse(f'nets.py:tiny{arguments}')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'argument',
    ['pretrained=True', 'weights="DEFAULT"', 'num_classes=3', 'checkpoint_path="x"', 'pretrained_cfg_overlay={}'],
)
def test_arguments_that_repeat_weights_or_classes_are_refused(argument):
    with pytest.raises(KdfastError, match='cannot be given; name weights behind an @'):
        parse(f'timm:resnet18({argument})')


def test_arguments_are_values_of_options_and_name_folders():
    recipe = find_recipe('kd')
    name = 'timm:vit_tiny_patch16_224(img_size=64, drop_rate=0.1)'
    assert (
        recipe.folder_name(recipe.resolve(dict(student=name)))
        == 'kd,student=timm_vit_tiny_patch16_224_img_size=64_ drop_rate=0.1_'
    )
    with pytest.raises(KdfastError, match='are no arguments; expected keywords with plain values, such as'):
        recipe.resolve(dict(student='timm:x(64)'))


def test_wrong_arguments_are_shown_with_the_name(tmp_path):
    (tmp_path / 'nets.py').write_text('from torch import nn\ndef tiny(n, width=8): return nn.Linear(width, n)\n')
    assert build_network(f'{tmp_path}/nets.py:tiny(width=5)', 3).in_features == 5
    with pytest.raises(
        KdfastError, match="tiny.wdth=5. could not be built for 3 classes: .* unexpected keyword argument 'wdth'"
    ):
        build_network(f'{tmp_path}/nets.py:tiny(wdth=5)', 3)
    with pytest.raises(KdfastError, match='unexpected keyword'):
        build_network('torchvision:resnet18(wdth=5)', 3)


# Networks for one size


@pytest.mark.parametrize(
    'name,side,built',
    [
        ('timm:vit_tiny_patch16_224', 64, '(img_size=64)'),
        ('timm:test_vit', 160, ''),
        ('timm:swin_tiny_patch4_window7_224', 64, '(img_size=64)'),
        ('timm:gmlp_ti16_224', 48, '(img_size=48)'),
        ('timm:test_coatnet', 96, '(img_size=96)'),
        ('timm:levit_128s', 64, '(img_size=64)'),
        ('timm:mobilenetv3_small_050', 48, ''),
        ('timm:deit_tiny_distilled_patch16_224', 32, '(img_size=32)'),
        ('timm:vit_tiny_patch16_224(img_size=64)', 64, '(img_size=64)'),
    ],
)
def test_networks_for_one_size_are_built_for_the_images(data, name, side, built):
    named = fit_to_size(name, 3, (side, side))
    assert str(named) == name.partition('(')[0] + built
    network = build_network(name, 3, size=(side, side))
    with torch.no_grad():
        for training in (False, True):
            assert network.train(training)(torch.zeros(2, 3, side, side)).shape == (2, 3)


def test_a_network_is_built_for_images_that_are_not_square():
    assert str(fit_to_size('timm:vit_tiny_patch16_224', 3, (64, 32))) == 'timm:vit_tiny_patch16_224(img_size=(64, 32))'


def test_a_network_for_one_size_is_recorded_and_loads_again(data, tmp_path):
    "With its size, which nobody typed"
    sized = replace(data, size=32)
    network, _ = build_for('timm:vit_tiny_patch16_224', sized)
    assert network.build_info['network'] == 'timm:vit_tiny_patch16_224(img_size=32)'
    save_network(network.eval(), tmp_path / 'w.safetensors')
    again, x = load_network_file(tmp_path / 'w.safetensors'), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert (again(x) == network(x)).all()
    assert load_file(tmp_path / 'w.safetensors')['pos_embed'].shape[1] == 5


@pytest.mark.parametrize(
    'name,side,said',
    [
        (
            'timm:vit_tiny_patch16_224(img_size=64)',
            32,
            'cannot process images of 32×32: Input height .32. doesn.t match model .64.; choose another --size or '
            'network',
        ),
        ('torchvision:alexnet', 16, 'cannot process images of 16×16: .*; choose another --size or network'),
    ],
)
def test_sizes_that_a_network_cannot_have_are_said_in_one_sentence(data, name, side, said):
    with pytest.raises(KdfastError, match=said) as error:
        check_network(name, replace(data, size=side))
    assert '\n' not in error.value.message


def test_a_network_for_one_size_refuses_progressive_resizing(data):
    expected = 'cannot process images of 16×16.*training begins at that size with --grow 0.5'
    with pytest.raises(KdfastError, match=expected):
        check_network('timm:vit_tiny_patch16_224', replace(data, size=32, grow=0.5))


@pytest.mark.parametrize('name', ['torchvision:googlenet', 'torchvision:inception_v3'])
def test_auxiliary_heads_are_left_out(name):
    network = build_network(name, 3)
    with torch.no_grad():
        assert network.train()(torch.randn(2, 3, 80, 80)).shape == (2, 3)
    assert fit_to_size(f'{name}(aux_logits=True)', 3, None).keywords['aux_logits'] is True


def test_a_network_with_several_outputs_is_refused(data):
    with pytest.raises(KdfastError, match='gives GoogLeNetOutputs for two images.*let its forward return them alone'):
        check_network('torchvision:googlenet(aux_logits=True)', replace(data, size=64))


def test_images_of_one_channel(data):
    with pytest.raises(KdfastError, match='takes images of 1 channel, expected 3 channels .red, green, blue.'):
        check_network('timm:test_vit(in_chans=1)', replace(data, size=32))


def test_a_teacher_for_one_size_receives_images_scaled_to_it(data):
    teacher, _ = build_for('timm:vit_tiny_patch16_224', replace(data, size=64))
    adapted, x = adapt_teacher(teacher.eval(), replace(data, size=32), 'the teacher runs/x'), torch.randn(2, 3, 32, 32)
    scaled = torch.nn.functional.interpolate(x, (64, 64), mode='bilinear', antialias=True)
    with torch.no_grad():
        assert torch.equal(adapted(x), teacher(scaled))


def test_equal_names_of_networks_are_equal_values():
    assert Name('', 'wide', ()) == parse('wide') and str(parse('wide')) == 'wide'
