"Fronts: what they compute, which parameters they have, and networks of several inputs."

import random

import pytest
import torch
from fastai.vision.all import DataLoaders, Learner, ProgressCallback, noop
from generated_networks import X, by_hooks, generated
from torch import nn
from torchvision.models import get_model

import kdfast.distill.hint  # noqa: F401, adds Learner.fit_hint
from kdfast.core.errors import KdfastError
from kdfast.models.front import TruncatedModel, features, front, front_back, full_name
from kdfast.models.study_networks import thin


@pytest.mark.parametrize('seed', range(16))
def test_a_front_gives_what_a_hook_sees_at_every_layer(seed):
    torch.manual_seed(seed)
    net = generated(random.Random(seed))
    places = {}
    for name, module in list(net.named_modules(remove_duplicate=False))[1:]:
        seen, cut = by_hooks(net, module), front(net, name)
        place = places[module] = places.get(module, -1) + 1
        if not isinstance(
            cut, TruncatedModel
        ):  # a place in a Sequential: this of its times, all of which are places in it
            assert torch.equal(features(cut, X), seen[place]) and len(seen) > place
        elif len(seen) == 1:
            for _ in range(2):
                assert torch.equal(features(cut, X), seen[0])
        else:
            with pytest.raises(
                KdfastError, match='does not compute' if not seen else f'computes its layer .* {len(seen)} times'
            ):
                features(cut, X)


@pytest.mark.parametrize('seed', range(12))
def test_the_front_holds_exactly_what_its_features_change_with(seed):
    "A parameter behind the front changes nothing of its features, one in front does; some are frozen, shared or unused"
    torch.manual_seed(seed)
    net = generated(random.Random(seed), overwrites=False)
    names = dict(net.named_parameters())
    for p in list(names.values())[::3]:
        p.requires_grad = False
    layers = [
        name
        for name, module in list(net.named_modules())[1:]
        if len(by_hooks(net, module)) == 1 and isinstance(front(net, name), TruncatedModel)
    ]
    missed = []
    for layer in layers[:3]:
        held, trained = front_back(net, layer, X)
        before = features(front(net, layer), X)
        assert sorted(map(id, held + trained)) == sorted(map(id, names.values()))
        for p in held + trained:
            was = p.detach().clone()
            with torch.no_grad():
                p.copy_(torch.randn_like(p) * 3)
            changed = not torch.equal(features(front(net, layer), X), before)
            with torch.no_grad():
                p.copy_(was)
            assert changed <= any(p is other for other in held)
            missed.append(not changed and any(p is other for other in held))
    assert sum(missed) <= len(missed) / 4  # where activations hide a change
    assert [p.requires_grad for p in names.values()] == [i % 3 != 0 for i in range(len(names))]


# Networks of other kinds


class Two(nn.Module):
    "Two inputs, one of which has a name"

    def __init__(self):
        super().__init__()
        self.image, self.mask, self.both, self.end = (
            nn.Conv2d(4, 8, 2, 2),
            nn.Conv2d(1, 8, 2, 2),
            nn.Conv2d(8, 6, 1),
            nn.Conv2d(6, 3, 8),
        )

    def forward(self, x, mask=None):
        return self.end(self.both(self.image(x) + (0 if mask is None else self.mask(mask))))


def test_networks_of_several_inputs_have_fronts():
    net, x, mask = Two(), torch.randn(2, 4, 16, 16), torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        expected = net.both(net.image(x) + net.mask(mask))
    cut = front(net, 'both')
    with torch.no_grad():
        assert torch.equal(cut(x, mask), expected) and torch.equal(cut(x, mask=mask), expected)
    assert torch.equal(features(cut, (x, mask)), expected)
    held, trained = front_back(net, 'both', (x, mask))
    assert {id(p) for p in held} == {
        id(p) for part in (net.image, net.mask, net.both) for p in part.parameters()
    } and len(trained) == 2
    assert {id(p) for p in front_back(net, 'both', x)[0]} == {
        id(p) for part in (net.image, net.both) for p in part.parameters()
    }


def test_stage_one_takes_several_inputs():
    torch.manual_seed(0)
    teacher, student = Two(), Two()
    student.both = nn.Conv2d(8, 6, 3, 1, 1)
    teacher.both, teacher.end = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 3, 8)
    rows = list(zip(torch.randn(16, 4, 16, 16), torch.randn(16, 1, 16, 16), torch.zeros(16, 3, 1, 1)))
    learn = Learner(DataLoaders.from_dsets(rows, rows, bs=8, num_workers=0, device='cpu'), student, nn.MSELoss())
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    stage_one = learn.fit_hint(4, teacher, 'both', 'both', lr_max=0.02)
    assert stage_one.recorder.values[-1][0] < stage_one.recorder.values[0][0] and stage_one.model[1].weight.shape == (
        12,
        6,
        1,
        1,
    )
    learn.freeze()
    assert [p.requires_grad for p in student.parameters()] == [
        name == 'end' for name, part in student.named_children() for _ in part.parameters()
    ]


@pytest.mark.parametrize(
    'wrap',
    [
        lambda net: torch.compile(net, backend='eager'),
        nn.DataParallel,
        lambda net: nn.DataParallel(torch.compile(net, backend='eager')),
        lambda net: nn.Sequential(nn.Identity(), net),
    ],
)
def test_wrapped_and_compiled_networks_have_the_fronts_of_what_is_in_them(wrap):
    net, x = get_model('resnet18', num_classes=3).eval(), torch.randn(2, 3, 64, 64)
    expected, wrapped = features(front(net, 'layer2.0'), x), wrap(net)
    prefix = '1.' if isinstance(wrapped, nn.Sequential) else ''
    wrapped(x)  # compiled
    assert torch.equal(features(front(wrapped, f'{prefix}layer2.0'), x), expected)
    parts = get_model('resnet18', num_classes=3).eval()
    parts.load_state_dict(net.state_dict())
    parts.layer2 = torch.compile(parts.layer2, backend='eager')
    parts.layer1.compile(backend='eager')
    parts(x)
    for name in ('layer2.0', 'layer1.1'):
        assert torch.equal(features(front(parts, name), x), features(front(net, name), x))


def test_names_are_found_inside_of_wrappers_and_otherwise_the_nearest_are_said():
    class Wrapper(nn.Module):
        def __init__(self, **parts):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

    net = Wrapper(model=Wrapper(module=thin(3)))
    assert (
        full_name(net, 'stage2.0') == 'model.module.stage2.0'
        and full_name(net, 'model.module.stage2') == 'model.module.stage2'
    )
    assert full_name(Wrapper(model=thin(3), stage2=nn.Identity()), 'stage2') == 'stage2'
    assert full_name(torch.compile(thin(3), backend='eager'), 'stage2') == '_orig_mod.stage2'
    with pytest.raises(KdfastError, match='no layer stage5; did you mean stage3, stage2, stage1'):
        full_name(net, 'stage5')


def test_networks_without_parameters_have_fronts():
    net = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    assert features(front(net, '0'), X).shape == (2, 4, 4, 4) and front_back(net, '0') == [[], []]

    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.end = nn.AvgPool2d(2), nn.Conv2d(4, 3, 4)

        def forward(self, x):
            return self.end(self.pool(x))

    net = Pool()
    assert front_back(net, 'pool', X) == [[], [*net.parameters()]]
    with pytest.raises(KdfastError, match='needs an image'):
        front_back(net, 'pool')


def test_a_front_goes_on_where_its_network_cannot_take_the_images():
    "A classifier made for another size is behind the layer"
    net = get_model('vgg11', num_classes=3)
    net.avgpool = nn.Identity()
    cut = front(net, 'features.3')
    assert (
        features(cut, torch.randn(2, 3, 48, 48)).shape
        == features(cut, torch.randn(2, 3, 48, 48)).shape
        == (2, 128, 24, 24)
    )


def test_the_gradient_of_a_front_is_that_of_its_layer():
    net, x = get_model('resnet18', num_classes=3).eval(), torch.randn(2, 3, 64, 64)
    cut = front(net, 'layer2')
    for _ in range(2):
        ours = torch.autograd.grad(cut(x).square().sum(), net.layer1[0].conv1.weight)[0]
        theirs = torch.autograd.grad(
            net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))).square().sum(),
            net.layer1[0].conv1.weight,
        )[0]
        torch.testing.assert_close(ours, theirs)
