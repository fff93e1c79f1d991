"Steps for all weights at once are those of fastai to the bit; optimizers that do anything else step themselves."

from functools import partial

import pytest
import torch
from fastai.optimizer import SGD, Adam, Optimizer, average_grad, momentum_step, weight_decay
from torch import nn

from kdfast.data.dataloaders import loaders
from kdfast.models.study_networks import thin
from kdfast.training import steps
from kdfast.training.learner import RunLearner
from kdfast.training.optimizers.adamw import AdamW
from kdfast.training.optimizers.muon import Muon, muon_step, orthogonal
from kdfast.training.steps import is_supported, move_together, step, zero_grad

MAKERS = dict(sgd=partial(SGD, mom=0.9), muon=Muon, adamw=AdamW)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(thin(3), nn.Linear(3, 4), nn.Conv1d(1, 4, 1), nn.Conv2d(4, 4, 3, groups=4)).to(
        memory_format=torch.channels_last
    )


def optimizer(make, net):
    "Of two lists, the norms' weights not decayed, one list behind with a rate of its own"
    opt = make([list(net[0].parameters()), list(net[1:].parameters())], lr=0.1, wd=5e-3)
    opt.set_hyper('lr', slice(0.01, 0.1))
    for p in net[0].stem[1].parameters():
        opt.state[p] = dict(do_wd=False)
    return opt


def gradients(net, opt, i, clear):
    "Of some of the weights, others in each step; the first is never asked for"
    clear(opt)
    draws = torch.Generator().manual_seed(i)
    for n, p in enumerate(net.parameters()):
        given = torch.randn(p.shape, generator=draws)
        if n and n % 3 != i:
            p.grad = given if p.grad is None else p.grad + given


def all_of_it(net, opt):
    states = [opt.state[p] for p in net.parameters()]
    averages = [state.get(name) for state in states for name in ('grad_avg', 'sqr_avg')]
    return [*net.parameters(), *(p.grad for p in net.parameters()), *averages], [
        (list(state), state.get('step')) for state in states
    ]


@pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)
def test_the_same_bits_as_fastai(make):
    nets = [network() for _ in range(2)]
    ours, theirs = [optimizer(make, net) for net in nets]
    assert is_supported(ours)
    for i in range(6):
        (gradients(nets[0], ours, i, zero_grad), gradients(nets[1], theirs, i, Optimizer.zero_grad))
        step(ours), theirs.step()
        for opt in (ours, theirs):
            opt.set_hyper('mom', 0.95 - i / 100), opt.set_hyper('wd', 0.01 * (i % 2))
        (a, keys), (b, expected) = all_of_it(nets[0], ours), all_of_it(nets[1], theirs)
        assert keys == expected and all(x is y is None or torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert len(ours.state) == len(theirs.state)


def test_gradients_become_zero_in_place_and_forget_their_graph():
    p, q = (nn.Parameter(torch.randn(3)) for _ in range(2))
    opt = SGD([p, q], 0.1, mom=0.9)
    (p**3).sum().backward(create_graph=True)
    held = p.grad
    zero_grad(opt)
    assert p.grad is held and not held.any() and not held.requires_grad and q.grad is None


def stepped(opt):
    "Whether it was asked to step itself"
    asked = []
    vars(opt)['step'] = lambda: asked.append(1)
    step(opt)
    return bool(asked)


def test_other_optimizers_step_themselves():
    p = nn.Parameter(torch.randn(3))
    with_more = SGD([p], 0.1, mom=0.9)
    with_more.cbs.append(lambda p, **_: None)
    damped = SGD([p], 0.1, mom=0.9)
    damped.set_hyper('dampening', True)

    class Mine(Optimizer):
        pass

    mine = Mine([p], [weight_decay, average_grad, momentum_step], lr=0.1)
    twice = SGD([[p], [p]], 0.1, mom=0.9)
    for opt in (
        with_more,
        damped,
        mine,
        twice,
        Adam([p], 0.1),
        SGD([p], 0.1),
        SGD([p], 0.1, mom=0.9, decouple_wd=False),
    ):
        assert not is_supported(opt) and stepped(opt)
    patched = SGD([p], 0.1, mom=0.9)
    assert is_supported(patched) and stepped(patched)


def test_sparse_gradients_are_fastais():
    net = nn.Embedding(5, 3, sparse=True)
    net(torch.tensor([1])).sum().backward()
    assert not is_supported(SGD(list(net.parameters()), 0.1, mom=0.9))


def test_a_batch_of_matrices_is_each_of_them():
    for shape in ((3, 8, 20), (3, 20, 8), (1, 5, 5)):
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(orthogonal(matrices), torch.stack([orthogonal(m) for m in matrices]), atol=1e-5)


@pytest.mark.parametrize('make', [MAKERS['sgd'], MAKERS['muon']], ids=['sgd', 'muon'])
def test_complex_weights(make):
    draws = torch.Generator().manual_seed(0)
    began, gradient = (torch.randn(6, 4, 3, 1, dtype=torch.cfloat, generator=draws) for _ in range(2))
    ended = []
    for take in (step, lambda opt: opt.step()):
        conv = nn.Conv2d(4, 6, (3, 1), bias=False, dtype=torch.cfloat)
        with torch.no_grad():
            conv.weight.copy_(began)
        conv.weight.grad = gradient.clone()
        take(make(list(conv.parameters()), lr=0.1, wd=0.01))
        ended.append(conv.weight.detach())
    assert torch.equal(*ended) and ended[0].isfinite().all()
    moved = (began * (1 - 0.1 * 0.01) - ended[0]).flatten(1)
    wanted = gradient.flatten(1) * 0.1
    if make is Muon:
        u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
        wanted = 0.01 * u @ v
    assert torch.linalg.vector_norm(moved - wanted) < (0.3 if make is Muon else 1e-5) * torch.linalg.vector_norm(wanted)
    p = nn.Parameter(began.clone())
    p.grad = gradient
    move_together([(p, torch.zeros_like(gradient))], 0.1, 0.9)  # as on a GPU
    alone = nn.Parameter(began.clone())
    alone.grad = gradient
    muon_step(alone, 0.1, 0.9, torch.zeros_like(gradient))
    assert torch.allclose(p, alone, atol=1e-6)


def test_convolutions_of_one_shape_step_together_as_one_by_one():
    def weights():
        draws = torch.Generator().manual_seed(0)
        ps = [
            nn.Parameter(torch.randn(shape, generator=draws)) for shape in ((8, 4, 3, 3), (40, 4, 1, 1), (8, 4, 3, 3))
        ]
        for p in ps:
            p.grad = torch.randn(p.shape, generator=draws)
        return [(p, torch.randn(p.shape, generator=draws)) for p in ps]

    together, alone = weights(), weights()
    move_together(together, 0.1, 0.9)
    for p, average in alone:
        muon_step(p, 0.1, 0.9, average)
    assert all(torch.allclose(p, q, atol=1e-5) for (p, _), (q, _) in zip(together, alone))


def test_a_run_steps_so(data, monkeypatch):
    seen = []
    cbs, _ = steps.KNOWN[momentum_step]
    monkeypatch.setitem(steps.KNOWN, momentum_step, (cbs, lambda params, *_: seen.append(len(params))))
    learn = RunLearner(loaders(data), thin(3), nn.CrossEntropyLoss(), opt_func=partial(SGD, mom=0.9))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert set(seen) == {len([*learn.model.parameters()])}
