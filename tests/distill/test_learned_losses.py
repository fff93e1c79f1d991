from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn, tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils._python_dispatch import TorchDispatchMode
from torchdistill.losses.mid_level import CRDLoss, HierarchicalContextLoss, VIDLoss
from torchdistill.models.wrapper import Regressor4VID, Student4KnowledgeReview

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.crd import CRD, hash_rows, similarities
from kdfast.distill.losses.review import ReviewKD
from kdfast.distill.losses.vid import VID

PEERS = np.load(Path(__file__).with_name('peers.npz'))
N, LABELS = 32, torch.arange(32) % 5  # the images of CRD and their classes


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected):
    "The same but for a hundred-thousandth"
    assert (found.double() - expected).norm() <= 1e-5 * expected.norm()


def seeded(make, *arguments, **settings):
    "A module whose weights are the same in every test, none of them 0 or 1"
    torch.manual_seed(0)
    module = make(*arguments, **settings)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn(p.shape)
    return module


def crd(labels=LABELS, **settings):
    return seeded(CRD, 12, 20, dim=8, labels=labels, **dict(negatives=16) | settings)


# Variational information distillation


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_information_is_torchdistills_with_its_parameters_gradients(dtype):
    ours, theirs = seeded(VID, 3, 4).to(dtype), Regressor4VID(3, 4, 4, eps=1e-5, init_pred_var=5.0).double()
    theirs.regressor.load_state_dict(ours.mean.state_dict())
    with torch.no_grad():
        theirs.soft_plus_param.copy_(ours.alpha)
    guided, also = (random(2, 3, 5, 5).to(d).requires_grad_() for d in (dtype, torch.float64))
    hint = random(2, 4, 5, 5, seed=1)
    value = ours(guided, hint.to(dtype))
    where = dict(io='output', path='x')
    expected = VIDLoss(dict(one=dict(student=where, teacher=where)))(
        dict(x=dict(output=theirs(also))), dict(x=dict(output=hint.double()))
    )
    value.backward(), expected.backward()
    close(value, expected), close(guided.grad, also.grad), close(ours.alpha.grad, theirs.soft_plus_param.grad)
    for mine, other in zip(ours.mean.parameters(), theirs.regressor.parameters(), strict=True):
        close(mine.grad, other.grad)


def test_information_begins_with_variance_5():
    from torch.nn.functional import softplus

    torch.testing.assert_close(softplus(VID(3, 4).alpha), torch.full((4,), 5.0), rtol=1e-5, atol=0)


def test_information_is_the_gaussians_but_for_its_constant():
    vid, guided, hint = seeded(VID, 3, 4), random(2, 3, 5, 5), random(2, 4, 5, 5, seed=1)
    deviation = (nn.functional.softplus(vid.alpha) + 1e-5).sqrt()[:, None, None]
    gaussian = torch.distributions.Normal(vid.mean(guided), deviation).log_prob(hint) + np.log(2 * np.pi) / 2
    assert vid(guided, hint).item() == pytest.approx(-gaussian.mean().item(), rel=1e-5)


def test_the_variance_rests_where_it_is_the_mean_squared_error():
    vid, guided, hint = VID(3, 4), random(2, 3, 5, 5), random(2, 4, 5, 5, seed=1)
    error = (hint - vid.mean(guided)).square().mean((0, 2, 3)).detach()
    with torch.no_grad():
        vid.alpha.copy_((error - 1e-5).expm1().log())
    vid(guided, hint).backward()
    assert vid.alpha.grad.abs().max() < 1e-6


def test_information_pools_the_larger_and_takes_vectors():
    vid, guided, hint = VID(3, 4), random(2, 3, 6, 6), random(2, 4, 3, 3, seed=1)
    torch.testing.assert_close(vid(guided, hint), vid(nn.functional.avg_pool2d(guided, 2), hint))
    torch.testing.assert_close(vid(random(2, 3), random(2, 4)), vid(random(2, 3, 1, 1), random(2, 4, 1, 1)))


# Contrastive representation distillation


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_contrast_is_torchdistills_over_three_steps_with_its_memory_and_gradients(dtype):
    "With our embeddings and negatives, torchdistill gives the same loss, gradients and memories in each step"
    ours, theirs = (
        crd().to(dtype),
        CRDLoss('z', 'empty', 'z', input_size=8, output_size=N, num_negative_samples=16, num_samples=N),
    )
    theirs.double()
    theirs.memory_v1.copy_(ours.guided_memory), theirs.memory_v2.copy_(ours.hint_memory)
    theirs.params[1] = 0.07  # written in float32 by its constructor
    embeds = [seeded(nn.Linear, 12, 8).double(), seeded(nn.Linear, 20, 8).double()]
    for mine, other in zip((ours.embed_guided, ours.embed_hint), embeds):
        other.load_state_dict(mine.state_dict())
    for step in range(3):
        index = torch.arange(step, N, 5)
        guided, hint = (
            random(len(index), 12, seed=step).to(dtype).requires_grad_(),
            random(len(index), 20, seed=9 + step).to(dtype),
        )
        also = guided.detach().double().requires_grad_()
        z, h = (nn.functional.normalize(embed(x)) for embed, x in zip(embeds, (also, hint.double())))
        supplement = dict(pos_idx=index, contrast_idx=torch.cat([index[:, None], ours.draw(LABELS[index])], 1))
        expected = theirs(dict(z=dict(output=z), empty=dict(input=supplement)), dict(z=dict(output=h)))
        value = ours(guided, hint, index)
        ours.zero_grad(), [e.zero_grad() for e in embeds]
        value.backward(), expected.backward()
        close(value, expected.squeeze()), close(guided.grad, also.grad)
        for mine, other in zip((ours.embed_guided, ours.embed_hint), embeds):
            close(mine.weight.grad, other.weight.grad), close(mine.bias.grad, other.bias.grad)
        close(ours.guided_memory, theirs.memory_v1), close(ours.hint_memory, theirs.memory_v2)


def test_negatives_are_of_other_classes_and_all_of_them_alike():
    draws = crd(negatives=26_000).draw(tensor([0, 3]))
    for label, drawn in zip((0, 3), draws):
        times = torch.bincount(drawn, minlength=N)
        others = LABELS != label
        assert (times[~others] == 0).all()
        expected = 26_000 / others.sum()
        assert (times[others] - expected).abs().max() < 5 * expected.sqrt()


@pytest.mark.parametrize('labels', [[0, 1] * 4, [7, 7, 7, 7, 7, -2, 7, 7], [*range(8)]])
def test_the_first_step_knows_all_classes(labels):
    "Whatever numbers stand for them, and however many images they have"
    labels = tensor(labels)
    drawn = crd(labels, negatives=1000).draw(labels)
    assert (labels[drawn] != labels[:, None]).all()
    for own, row in zip(labels, drawn):
        assert set(row.tolist()) == set((labels != own).nonzero()[:, 0].tolist())


def test_without_labels_classes_are_known_once_their_images_were_seen():
    module, index = CRD(12, 20, 8, dim=8, negatives=1000), torch.arange(8)
    module(random(8, 12), random(8, 20), index, index % 2)
    assert (module.draw(tensor([0, 1])) % 2 == tensor([[1], [0]])).all()
    again = CRD(12, 20, 8, dim=8)
    again.load_state_dict(module.state_dict())
    assert (again.labels == index % 2).all() and 'labels' not in crd().state_dict()
    with pytest.raises(KdfastError, match='all 8 images'):
        module(random(8, 12), random(8, 20), index, index * 0)
    with pytest.raises(ValueError, match='labels of all training images'):
        CRD(12, 20)


def test_negatives_follow_from_seed_and_step_and_go_on_where_a_saved_module_stopped():
    one, other, index = crd(), crd(), torch.arange(4)
    one(random(4, 12), random(4, 20), index)
    saved = {name: x.clone() for name, x in one.state_dict().items()}
    torch.manual_seed(99)  # what else draws random numbers does not matter
    other.load_state_dict(saved)
    a, b = (m(random(4, 12, seed=3), random(4, 20, seed=4), index + 4) for m in (one, other))
    assert a == b and (one.guided_memory == other.guided_memory).all()
    assert (crd().draw(LABELS[:4]) != one.draw(LABELS[:4])).any() and (
        crd().draw(LABELS[:4]) != crd(seed=1).draw(LABELS[:4])
    ).any()


def test_one_class_has_nothing_to_contrast():
    with pytest.raises(KdfastError, match='all 32 images'):
        crd([2] * 32)


def test_the_memory_moves_half_way_to_what_is_seen_and_nowhere_else():
    module, index = crd(), tensor([7, 3])
    before, guided, hint = module.guided_memory.clone(), random(2, 12), random(2, 20)
    module(guided, hint, index)
    embedding = nn.functional.normalize(module.embed_guided(guided))
    torch.testing.assert_close(module.guided_memory[index], nn.functional.normalize(before[index] + embedding).detach())
    rest = [i for i in range(N) if i not in (7, 3)]
    assert (module.guided_memory[rest] == before[rest]).all()


def test_contrast_draws_an_image_to_its_partner_and_away_from_other_classes():
    "Embeddings that are the student's and the teacher's as they are: a step down the gradient nears the partner"
    module, index = CRD(8, 8, dim=8, negatives=64, labels=LABELS), torch.arange(8)
    for embed in (module.embed_guided, module.embed_hint):
        with torch.no_grad():
            embed.weight.copy_(torch.eye(8)), embed.bias.zero_()
    module.hint_memory.copy_(nn.functional.normalize(random(N, 8)))
    guided = random(8, 8, seed=1).requires_grad_()
    module(guided, random(8, 8, seed=2), index).backward()
    partner = nn.functional.normalize(random(N, 8))[:8]

    def nearness(x):
        return (nn.functional.normalize(x) * partner).sum(1)

    assert (nearness(guided - 0.01 * guided.grad) > nearness(guided)).all()


def test_a_memory_of_many_images_is_not_multiplied_whole():
    "What is computed for chosen rows alone is the same, and so is its gradient"
    memory, pairs = random(500, 8), torch.randint(500, (20, 5), generator=torch.Generator().manual_seed(3))

    def value_and_gradient(compute):
        anchor = random(20, 8, seed=1).requires_grad_()
        value = compute(anchor)
        return value, *torch.autograd.grad((value * random(20, 5, seed=2)).sum(), anchor)

    largest = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **kwargs or {})
            if isinstance(made, torch.Tensor):
                largest.append(made.numel())
            return made

    with Sizes():
        found = value_and_gradient(lambda anchor: similarities(anchor, memory, pairs))
    expected = value_and_gradient(lambda anchor: (anchor @ memory.mT).gather(1, pairs))
    for ours, whole in zip(found, expected):
        torch.testing.assert_close(ours, whole)
    assert max(largest) <= memory.numel() < 20 * 500


def test_random_numbers_are_spread_evenly_and_apart_for_every_place_step_and_key():
    draws = torch.stack([hash_rows(100, 50, key, tensor(step)) for key in (0, 7) for step in (0, 1)]).double() / 2**32
    assert draws.min() >= 0 and draws.max() < 1
    for part in draws:  # 5,000 numbers each; four standard deviations
        assert (
            abs(part.mean() - 0.5) < 4 / (12 * 5000) ** 0.5
            and abs((part > 0.9).double().mean() - 0.1) < 4 * (0.09 / 5000) ** 0.5
        )
    correlation = torch.corrcoef(draws.flatten(1)) - torch.eye(4)
    assert correlation.abs().max() < 4 / 5000**0.5 and abs(torch.corrcoef(draws[0, :, :2].mT)[0, 1]) < 0.4
    assert hash_rows(1, 3, 7, tensor(2))[0].tolist() == [by_hand(place, 7, 2) for place in range(3)]


def by_hand(place, key, step):
    "The same in Python's integers"

    def mix(x):
        for shift, factor in (16, 0x21F0AAAD), (15, 0x735A2D97):
            x = (x ^ x >> shift) * factor % 2**32
        return x ^ x >> 15

    return mix(mix(place) ^ mix(mix(step) ^ key))


# Knowledge review


def names(state):
    "torchdistill's and mdistiller's names for our parts"
    return {
        k.replace('inward', 'conv1').replace('outward', 'conv2').replace('attention', 'attention_conv'): v
        for k, v in state.items()
    }


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_review_is_torchdistills_with_its_weights_gradients(dtype):
    channels, hints, sides = (2, 3, 5), (3, 4, 6), (8, 4, 2)
    ours = seeded(ReviewKD, channels, hints).to(dtype)
    fusions = [
        dict(io='output', path=str(i), kwargs=dict(in_channels=c, mid_channels=5, out_channels=h))
        for i, (c, h) in enumerate(zip(channels, hints))
    ]
    theirs = Student4KnowledgeReview(nn.Identity(), fusions, 'cpu', None, False, sizes=sides[::-1]).double()
    made = {}
    for i, (fusion, mine) in enumerate(
        zip(theirs.abf_modules[::-1], ours.fusions, strict=True)
    ):  # theirs begin with the deepest
        fusion.load_state_dict(names(mine.state_dict()))
        fusion.register_forward_hook(lambda module, inputs, output, i=i: made.update({str(i): dict(output=output)}))
    guided = [random(4, c, s, s, seed=i).to(dtype).requires_grad_() for i, (c, s) in enumerate(zip(channels, sides))]
    also = [x.detach().double().requires_grad_() for x in guided]
    hint = [random(4, h, s, s, seed=9 + i) for i, (h, s) in enumerate(zip(hints, sides))]
    theirs.secondary_forward({str(i): dict(output=x) for i, x in enumerate(also)})
    teacher = {str(i): dict(output=x.double()) for i, x in enumerate(hint)}
    expected = sum(HierarchicalContextLoss(str(i), 'output', str(i), 'output')(made, teacher) for i in range(3))
    value = ours(guided, [x.to(dtype) for x in hint])
    value.backward(), expected.backward()
    close(value, expected)
    for mine, other in zip(guided, also):
        close(mine.grad, other.grad)
    gradients = {name: p.grad for name, p in theirs.abf_modules[::-1].named_parameters()}
    for name, p in names(dict(ours.fusions.named_parameters())).items():
        close(p.grad, gradients[name])


def test_review_of_hints_of_other_sizes_is_mdistillers():
    """megvii-research/mdistiller at a08d46f, mdistiller/distillers/ReviewKD.py: ABF and hcl_loss as in forward_train.

    Stages of 2, 3, 2 channels and sides 6, 3, 1, hints of 3, 2, 2 channels and sides 5, 2, 1, three images; loss and
    gradients
    in float64, once, on a CPU; stored, flat and in order, with what went in"""
    stored = {
        key: torch.from_numpy(PEERS[f'review.{key}'])
        for key in ('guided', 'hint', 'weights', 'value', 'gradient', 'weights_gradient')
    }

    def stages(flat, channels, sides):
        shapes = [(3, c, s, s) for c, s in zip(channels, sides)]
        return [x.view(shape) for x, shape in zip(flat.split([int(np.prod(shape)) for shape in shapes]), shapes)]

    guided = stored['guided'].clone().requires_grad_()
    review = ReviewKD([2, 3, 2], [3, 2, 2])
    vector_to_parameters(stored['weights'], review.parameters())
    value = review(stages(guided, (2, 3, 2), (6, 3, 1)), stages(stored['hint'], (3, 2, 2), (5, 2, 1)))
    value.backward()
    close(value, stored['value']), close(guided.grad, stored['gradient'])
    close(parameters_to_vector(p.grad for p in review.parameters()), stored['weights_gradient'])


def test_a_hint_teaches_its_own_stage_and_those_behind_it():
    review = seeded(ReviewKD, [2, 3], [3, 4])

    def gradients(first, second):
        guided = [random(4, 2, 4, 4).requires_grad_(), random(4, 3, 2, 2).requires_grad_()]
        return torch.autograd.grad(review(guided, [first, second]), guided)

    first, second = random(4, 3, 4, 4, seed=1), random(4, 4, 2, 2, seed=2)
    as_it_is, other_first, other_second = (
        gradients(first, second),
        gradients(2 * first, second),
        gradients(first, 2 * second),
    )
    assert (other_second[0] == as_it_is[0]).all() and not torch.allclose(other_second[1], as_it_is[1])
    assert not torch.allclose(other_first[0], as_it_is[0]) and not torch.allclose(other_first[1], as_it_is[1])


def test_review_takes_the_pooled_vector_as_its_deepest_stage():
    review = seeded(ReviewKD, [2, 3], [3, 4])
    vectors, maps = (
        review([random(4, 2, 4, 4), random(4, 3, *side)], [random(4, 3, 4, 4), random(4, 4, *side)])
        for side in ((), (1, 1))
    )
    assert vectors == maps


def test_stages_without_partners_are_refused():
    with pytest.raises(KdfastError, match='2 of the student and 3 of the teacher'):
        ReviewKD([2, 3], [3, 4, 5])
    with pytest.raises(ValueError):
        ReviewKD([2, 3], [3, 4])([random(4, 2, 4, 4)], [random(4, 3, 4, 4)])


# All of them


def losses():
    index = torch.arange(4)
    return [
        (seeded(VID, 3, 4), (random(4, 3, 5, 5), random(4, 4, 5, 5, seed=1))),
        (crd(), (random(4, 12), random(4, 20, seed=1), index)),
        (
            seeded(ReviewKD, [2, 3], [3, 4]),
            ([random(4, 2, 4, 4), random(4, 3, 2, 2)], [random(4, 3, 4, 4), random(4, 4, 2, 2)]),
        ),
    ]


def half(x, dtype):
    if isinstance(x, list):
        return [half(o, dtype) for o in x]
    return x.to(dtype) if x.is_floating_point() else x


@pytest.mark.parametrize('which', range(3), ids=['VID', 'CRD', 'ReviewKD'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(which, dtype):
    (one, arguments), (other, _) = losses()[which], losses()[which]
    value = one(*half(list(arguments), dtype))
    assert value.dtype == torch.float32 and torch.isfinite(value)
    assert value == other(*half(half(list(arguments), dtype), torch.float32))


@pytest.mark.parametrize('which', range(3), ids=['VID', 'CRD', 'ReviewKD'])
def test_autocast_changes_nothing(which):
    (one, arguments), (other, _) = losses()[which], losses()[which]
    with torch.autocast('cpu', torch.bfloat16):
        value = one(*arguments)
    assert value == other(*arguments)


@pytest.mark.parametrize('which', range(3), ids=['VID', 'CRD', 'ReviewKD'])
def test_a_step_down_the_gradient_of_all_parameters_costs_less(which):
    one, arguments = losses()[which]
    value = one(*arguments)
    value.backward()
    other, _ = losses()[which]  # the memory of the first has moved on
    with torch.no_grad():
        for p, q in zip(one.parameters(), other.parameters()):
            assert p.grad.norm() > 0
            q -= 1e-3 * p.grad
    assert other(*arguments) < value
