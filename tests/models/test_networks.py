"Any network by name: built, cut anywhere, filled, kept, and asked of other images than it learnt from."

import json
import pickle
from dataclasses import replace

import pytest
import torch
from conftest import equal, weights
from fastai.vision.all import set_seed
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from kdfast.core.errors import KdfastError
from kdfast.distill.regressor import regressor
from kdfast.models.adapt import adapt_teacher, scaling_note
from kdfast.models.build import build_network, check_network
from kdfast.models.description import with_description
from kdfast.models.front import TruncatedModel, features, front, front_back
from kdfast.models.layers import layers, matching_layers
from kdfast.models.saved import load_network, load_network_file
from kdfast.models.study_networks import thin, wide
from kdfast.runs.run_dir import RunDir

MINE = '''from torch import nn

def tiny(n_classes):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_classes)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), *head)
def words(n_classes): return 'a network'
def flat(n_classes): return nn.Flatten()
'''


@pytest.fixture
def mine(tmp_path):
    (tmp_path / 'mine.py').write_text(MINE)
    return f'{tmp_path / "mine.py"}:tiny'


def build(name, n_classes=3, **kwargs):
    set_seed(0)
    return build_network(name, n_classes, **kwargs)


# Names


@pytest.mark.parametrize(
    'name,factory',
    [
        ('wide', wide),
        ('torchvision:resnet18', lambda n: get_model('resnet18', num_classes=n)),
        ('kdfast.models.study_networks:thin', thin),
    ],
)
def test_a_name_gives_what_its_function_gives(name, factory):
    set_seed(0)
    assert equal(factory(3).state_dict(), build(name).state_dict())


def test_a_function_of_a_file_and_a_network_of_timm(mine):
    import timm

    assert build(mine)(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    set_seed(0)
    assert equal(
        timm.create_model('mobilenetv3_small_050', num_classes=3).state_dict(),
        build('timm:mobilenetv3_small_050').state_dict(),
    )


@pytest.mark.parametrize(
    'name,said',
    [
        ('torchvision:resnet81', 'torchvision has no network resnet81; did you mean resnet1'),
        ('timm:resnet05', 'timm has no network resnet05; did you mean'),
        ('kdfast.models.study_networks:thinn', 'has no function thinn; did you mean thin'),
        ('no.such.module:net', 'no.such.module:net could not be built for 3 classes: No module'),
        ('no.py:net', 'no file no.py'),
        ('a b', 'names no network: expected wide, thin'),
        ('thin@pretrained', 'thin comes with no weights'),
    ],
)
def test_names_of_no_network(name, said):
    with pytest.raises(KdfastError, match=said):
        build(name)


@pytest.mark.parametrize(
    'what,said',
    [
        ('tinny', 'did you mean tiny'),
        ('words', 'gave str, expected an nn.Module'),
        ('flat', 'gives 2×192 for two images, expected 2×3'),
    ],
)
def test_functions_that_give_no_classifier(mine, data, what, said):
    with pytest.raises(KdfastError, match=said):
        check_network(mine.replace('tiny', what), data)


def test_a_file_that_does_not_parse_is_named_with_its_line(tmp_path):
    (tmp_path / 'bad.py').write_text('def net(\n')
    with pytest.raises(KdfastError, match='bad.py, line 1'):
        build(f'{tmp_path / "bad.py"}:net')


# Weights


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_weights_of_a_file(tmp_path, suffix, prefix):
    torch.manual_seed(1)
    file, state = tmp_path / f'w{suffix}', {prefix + name: t for name, t in thin(3).state_dict().items()}
    save_file(state, file) if suffix == '.safetensors' else torch.save(dict(state_dict=state), file)
    if suffix == '.safetensors' and prefix:
        return
    assert equal(build(f'thin@{file}').state_dict(), {name.removeprefix('module.'): t for name, t in state.items()})


def test_a_classifier_for_other_classes_is_left_new_and_said(tmp_path):
    torch.manual_seed(1)
    other = thin(5)
    save_file(other.state_dict(), tmp_path / 'w.safetensors')
    said = []
    filled = build(f'thin@{tmp_path / "w.safetensors"}', notify=said.append)
    assert equal(filled[:4].state_dict(), other[:4].state_dict()) and equal(
        filled[4].state_dict(), build('thin')[4].state_dict()
    )
    assert 'head.2.weight, head.2.bias are for 5 classes and left new' in said[0]


@pytest.mark.parametrize(
    'change,said',
    [
        (lambda s: s.pop('stem.0.weight'), 'missing stem.0.weight, unexpected nothing'),
        (lambda s: s.update(more=torch.zeros(1)), 'missing nothing, unexpected more'),
        (lambda s: s.update({'stem.0.weight': torch.zeros(9, 3, 3, 3)}), 'stem.0.weight is 9×3×3×3, expected 16×3×3×3'),
        (
            lambda s: s.update({'stem.0.weight': torch.zeros(16, 3, 5, 5)}),
            'stem.0.weight is 16×3×5×5, expected 16×3×3×3',
        ),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, change, said):
    state = thin(3).state_dict()
    change(state)
    save_file(state, tmp_path / 'w.safetensors')
    with pytest.raises(KdfastError, match=said):
        build(f'thin@{tmp_path / "w.safetensors"}')


class Canary:
    def __reduce__(self):
        return open, (str(self.file), 'w')


def test_nothing_of_a_strangers_file_is_unpickled(tmp_path):
    Canary.file = tmp_path / 'touched'
    for name, write in (
        ('torch.pth', lambda f: torch.save(Canary(), f)),
        ('plain.pth', lambda f: f.write_bytes(pickle.dumps(Canary()))),
        ('none.pth', lambda f: f.write_bytes(b'no')),
    ):
        write(tmp_path / name)
        with pytest.raises(KdfastError, match='holds no plain state dict'):
            build(f'thin@{tmp_path / name}')
    with pytest.raises(KdfastError, match='no file of weights'):
        build(f'thin@{tmp_path / "no.pth"}')
    assert not Canary.file.exists()


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


# Teachers that learnt from something else


def test_an_adapted_teacher_sees_its_own_normalisation_and_speaks_our_classes(data):
    torch.manual_seed(0)
    teacher = with_description(
        wide(4).eval(),
        'wide',
        replace(data, classes=['cat', 'dog', 'ape', 'bee'], mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.25]),
    )
    pixels = torch.rand(2, 3, 8, 8)

    def normalised(mean, std):
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    ours, theirs = normalised(data.mean, data.std), normalised([0.5, 0.4, 0.3], [0.2, 0.3, 0.25])
    found = adapt_teacher(teacher, data, 'it')
    with torch.no_grad():
        torch.testing.assert_close(found(ours), teacher(theirs)[:, [2, 3, 0]])
        torch.testing.assert_close(front(found, 'stage2')(ours), front(teacher, 'stage2')(theirs))


def test_a_teacher_that_lacks_a_class_is_refused_with_both_sides_named(data):
    teacher = with_description(wide(2), 'wide', replace(data, classes=['ape', 'bee']))
    with pytest.raises(KdfastError, match='does not know cat: it was trained on ape, bee; tiny has ape, bee, cat'):
        adapt_teacher(teacher, data, 'it')


@pytest.mark.parametrize('side', [4, 8, 16, 24])
def test_a_teacher_is_shown_images_at_the_size_that_it_was_trained_on(data, side):
    "Larger or smaller; what is as large is left alone, and both are said"
    teacher = with_description(wide(3).eval(), 'wide', replace(data, size=16))
    shapes = []
    teacher.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape[-2:]))
    ours = replace(data, size=side)
    with torch.no_grad():
        adapt_teacher(teacher, ours, 'it')(torch.randn(2, 3, side, side))
    assert shapes == [(16, 16)]
    said = scaling_note(teacher, ours, 'it')
    assert said == (
        ''
        if side == 16
        else 'the teacher it was trained on images of 16×16, and receives them scaled to that size; '
        f'the student receives {side}×{side}'
    )


def test_a_teacher_of_the_same_data_is_asked_as_it_is(data):
    teacher = with_description(wide(3), 'wide', data)
    assert adapt_teacher(teacher, data, 'it') is teacher


# From the shell


@pytest.fixture
def run(kdfast, images, tmp_path):
    def run(recipe, *options):
        done = kdfast('run', recipe, *options, '--data', images, '--runs', tmp_path / 'runs')
        assert done.status == 0, done.err
        return next(f.parent for f in (tmp_path / 'runs').glob(f'tiny/{recipe},*/0/run.json'))

    return run


def test_a_students_file_travels_with_its_run_and_a_changed_one_is_refused(run, kdfast, images, mine, tmp_path):
    folder = run('baseline', '--student', mine, '--epochs', 1)
    assert (folder / 'source' / 'mine.py').read_text() == MINE
    assert equal(load_network_file(folder / 'weights.safetensors').state_dict(), weights(folder))
    (tmp_path / 'mine.py').write_text(
        MINE.replace('nn.Conv2d(3, 8', 'nn.Conv2d(3, 4').replace('(8)', '(4)').replace('Linear(8', 'Linear(4')
    )
    again = kdfast('run', 'baseline', '--student', mine, '--epochs', 1, '--data', images, '--runs', tmp_path / 'runs')
    assert again.status == 2 and 'was trained with sources' in again.err


def test_a_run_is_a_teacher_and_is_not_trained_again(run, study, tmp_path):
    folder = run('kd', '--teacher', study / 'teacher' / '0', '--epochs', 1)
    [stands] = json.loads((folder / 'run.json').read_text())['stands_on']
    assert stands['path'] == str(study / 'teacher' / '0') and not list((tmp_path / 'runs' / 'tiny').glob('teacher*'))


def test_a_wrong_network_leaves_no_folder(kdfast, images, mine, tmp_path):
    for name, said in (
        (mine.replace('tiny', 'flat'), 'expected 2×3'),
        ('torchvision:resnet81', 'did you mean'),
        ('thinn', 'expected wide, thin'),
    ):
        done = kdfast('run', 'baseline', '--student', name, '--data', images, '--runs', tmp_path / 'runs')
        assert done.status == 2 and said in done.err, done.err
    assert not (tmp_path / 'runs').exists()


TWO_STAGES = '''from torch import nn

class Net(nn.Module):
    def __init__(self, width, n_classes):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).relu().mean((2, 3)))

def net(n_classes, width=6):
    return Net(width, n_classes)
'''


@pytest.mark.parametrize('recipe,hint', [('exp1', True), ('exp2', True), ('finetune', False)])
def test_code_of_a_network_goes_along_through_all_stages(kdfast, images, tmp_path, monkeypatch, recipe, hint):
    "The second stage loads the network of the first: its run must be loadable, too"
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'two_stages.py').write_text(TWO_STAGES)
    teacher = tmp_path / 'runs' / 'tiny' / 'teacher,epochs=1,network=two_stages.py_net_width=8_' / '0'
    named = '--network', 'two_stages.py:net(width=8)', '--epochs', 1, '--data', images
    assert kdfast('run', 'teacher', *named).status == 0
    stages = '--teacher', teacher, '--student', 'two_stages.py:net', *(('--hint', 'a:a') if hint else ())
    done = kdfast('run', recipe, *stages, '--epochs', 1, '--data', images)
    assert done.status == 0, done.err
    (tmp_path / 'two_stages.py').unlink()
    (folder,) = (tmp_path / 'runs' / 'tiny').glob(f'{recipe},*/0')
    with torch.no_grad():
        assert load_network(RunDir(folder))(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
