"Losses with parameters: VID and ReviewKD have the values of other implementations; precision of all of them."

import numpy as np
import pytest
import torch
from loss_modules import PEERS, close, crd, random, seeded
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torchdistill.losses.mid_level import HierarchicalContextLoss, VIDLoss
from torchdistill.models.wrapper import Regressor4VID, Student4KnowledgeReview

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.review import ReviewKD
from kdfast.distill.losses.vid import VID

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
