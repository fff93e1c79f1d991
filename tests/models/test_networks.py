"Networks by name, their weights, and teachers that were trained on other data."

import json
import pickle
from dataclasses import replace

import network_file
import pytest
import torch
from conftest import equal, weights
from fastai.vision.all import set_seed
from network_file import MINE, build
from safetensors.torch import save_file
from torchvision.models import get_model

from kdfast.core.errors import KdfastError
from kdfast.models.adapt import adapt_teacher, scaling_note
from kdfast.models.build import check_network
from kdfast.models.description import with_description
from kdfast.models.front import front
from kdfast.models.saved import load_network, load_network_file
from kdfast.models.study_networks import thin, wide
from kdfast.runs.run_dir import RunDir

mine = pytest.fixture(network_file.mine)


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
        ('soft', 'returns probabilities .they sum to 1., expected logits'),
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


# Teachers that learnt from something else


def test_an_adapted_teacher_has_its_own_normalization_and_the_order_of_our_classes(data):
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
def test_a_teacher_receives_images_at_the_size_that_it_was_trained_on(data, side):
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


def test_a_teacher_of_the_same_data_is_not_wrapped(data):
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


def test_a_default_pair_of_layers_that_is_not_in_the_network_names_the_option(kdfast, images, mine, tmp_path):
    done = kdfast('run', 'exp2', '--student', mine, '--data', images, '--runs', tmp_path / 'runs')
    said = (
        'has no layer stage2; kdfast layers NETWORK lists its layers; the pair stage2:stage2 (teacher:student) is set '
        'by --hint or --layers, and kdfast layers STUDENT --teacher TEACHER lists pairs that fit'
    )
    assert done.status == 2 and 'has no layer stage2' in done.err and said in done.err, done.err
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
