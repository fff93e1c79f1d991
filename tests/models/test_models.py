import pytest
import torch

from kdfast.models.front import front
from kdfast.models.study_networks import matched, thin, wide


def params(net):
    return sum(p.numel() for p in net.parameters())


def test_sizes_are_the_reports():
    assert params(wide()) == pytest.approx(1.35e6, rel=0.03)
    assert params(thin()) == pytest.approx(306e3, rel=0.03)
    assert params(matched()) == pytest.approx(params(thin()), rel=0.03)


def test_both_have_the_same_stages_and_their_middles_meet():
    xb = torch.randn(2, 3, 32, 32)
    assert list(dict(wide().named_children())) == list(dict(thin().named_children()))
    hint, guided = front(wide())(xb), front(thin())(xb)
    assert hint.shape[2:] == guided.shape[2:] and hint.shape[1] > guided.shape[1]


def test_the_matched_student_gives_the_hints_shape():
    xb = torch.randn(2, 3, 32, 32)
    assert front(matched())(xb).shape == front(wide())(xb).shape and list(dict(matched().named_children())) == list(
        dict(wide().named_children())
    )


@pytest.mark.parametrize('student', [thin, matched])
def test_front_and_back_are_the_network(student):
    net, xb = student().eval(), torch.randn(2, 3, 32, 32)
    assert (net[3:](front(net)(xb)) == net(xb)).all()


@pytest.mark.parametrize('side', [8, 16, 17, 32, 48])
def test_any_image_size(side):
    assert thin(7)(torch.randn(2, 3, side, side)).shape == (2, 7)


def test_students_of_one_seed_start_alike_where_their_shapes_allow():
    start = []
    for student in (thin, matched):
        torch.manual_seed(3)
        start.append(student().state_dict())
    for name, tensor in start[0].items():
        if name.split('.')[0] in ('stem', 'stage1') or name.startswith('stage2.0'):
            assert (tensor == start[1][name]).all(), name
