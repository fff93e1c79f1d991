"A slice of the slow suite of students, and that its list leaves no module of a library out."

import runpy
from pathlib import Path

import pytest
import timm
import torchvision

SUITE = Path(__file__).parents[1] / 'slow' / 'students.py'
LARGEST = {'regnet_y_128gf', 'regnet_y_32gf', 'vit_h_14', 'vit_l_16', 'vit_l_32', 'convnext_large'}


@pytest.fixture(scope='module')
def suite():
    return runpy.run_path(str(SUITE))


def test_the_list_has_every_classifier_of_torchvision_and_every_module_of_timm(suite):
    names = suite['LIST'].read_text().split()
    assert len(set(names)) == len(names) >= 250
    theirs = set(torchvision.models.list_models(module=torchvision.models))
    assert theirs - LARGEST <= {name.removeprefix('torchvision:') for name in names}
    ours = {name.removeprefix('timm:') for name in names}
    assert not [
        module
        for module in timm.list_modules()
        if timm.list_models(module=module) and not ours & set(timm.list_models(module=module))
    ]


@pytest.mark.parametrize(
    'name,n_classes',
    [
        ('torchvision:shufflenet_v2_x0_5', 2),
        ('torchvision:mnasnet0_5', 10),
        ('timm:test_vit', 2),
        ('timm:test_byobnet', 10),
        ('timm:pit_ti_distilled_224', 2),
    ],
)
def test_a_student_is_trained_saved_and_loaded(suite, tmp_path, name, n_classes):
    assert suite['make'](name, n_classes, tmp_path) == dict(side=64)
    suite['check'](tmp_path, onnx=name == 'timm:test_byobnet')
