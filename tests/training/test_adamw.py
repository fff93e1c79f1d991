"AdamW: the steps of torch.optim.AdamW at a hundredth of the learning rate."

from functools import partial

import pytest
import torch
from fastai.basics import norm_bias_params
from torch import nn

from kdfast.data.dataloaders import loaders
from kdfast.distill.match import Match
from kdfast.models.study_networks import network
from kdfast.runs.options import OPTIMIZERS
from kdfast.training.learner import RunLearner
from kdfast.training.optimizers import optimizer_named
from kdfast.training.optimizers.adamw import SHARE, AdamW
from kdfast.training.steps import is_supported, step


def test_the_steps_of_torch():
    ours, peer = (nn.Linear(6, 5, bias=False) for _ in range(2))
    peer.load_state_dict(ours.state_dict())
    lr, wd = 0.2, 5e-3
    opt = AdamW([list(ours.parameters())], lr=lr, mom=0.9, wd=wd)
    theirs = torch.optim.AdamW(peer.parameters(), lr=SHARE * lr, betas=(0.9, 0.99), eps=1e-5, weight_decay=wd / SHARE)
    assert is_supported(opt)
    draws = torch.Generator().manual_seed(0)
    for _ in range(5):
        ours.weight.grad = torch.randn(5, 6, generator=draws)
        peer.weight.grad = ours.weight.grad.clone()
        step(opt), theirs.step()
        assert torch.allclose(ours.weight, peer.weight, atol=1e-6)
    assert not torch.allclose(ours.weight, nn.Linear(6, 5).weight, atol=1e-3)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_norms_and_biases_do_not_decay(data, name):
    "Nor those of a loss that is trained with the student; all other weights decay alike, whatever the optimizer"

    class Projection(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

        def forward(self, student, teacher):
            return 0 * self.layers(student).sum()

    loss = Projection()
    nets = nn.ModuleList([network((4, 8, 12), 3), loss])
    before = {key: p.detach().clone() for key, p in nets.named_parameters()}
    learn = RunLearner(
        loaders(data), nets[0], lambda pred, y: 0 * pred.sum(), opt_func=partial(optimizer_named(name), mom=0.9), wd=0.5
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.1, cbs=Match(nets[0], loss))
    undecayed = {id(p) for p in norm_bias_params(nets)}
    steps = len(learn.dls.train)
    for key, p in nets.named_parameters():
        expected = before[key] if id(p) in undecayed else before[key] * (1 - 0.1 * 0.5) ** steps
        assert torch.allclose(p, expected, rtol=1e-4), key
