"A teacher's `reset` is that of recurrent state only if it takes no argument and leaves the state dict unchanged."

from copy import deepcopy

import pytest
import torch
from fastai.text.all import AWD_LSTM, awd_lstm_lm_config, get_language_model
from taught_learners import AT, learner, net, targets
from torch import nn

from kdfast.distill.recurrent import recurrent_copy


class Kept(nn.Module):
    "Keeps a state in a buffer that is no part of its state dict, and has weights that are no numbers"

    def __init__(self):
        super().__init__()
        self.net, self.nan = net(8), nn.Parameter(torch.full((2,), torch.nan))
        self.register_buffer('state', torch.ones(1), persistent=False)

    def forward(self, x):
        return self.net(x)

    def reset(self):
        self.state.zero_()


def initialized(self):
    for m in self.modules():
        if hasattr(m, 'reset_parameters'):
            m.reset_parameters()


def replaced(self):
    self.net[8] = nn.Linear(8, 3)


def with_argument(self, n):
    self.net[8] = nn.Linear(8, n)


def buffer(self):
    self.net[1].running_mean.fill_(7)


def added(self):
    self.register_buffer('more', torch.ones(1))


def failing(self):
    self.net[8].weight.data.zero_()
    raise ValueError


def uncopied(self):
    self.net[8].weight.data.zero_()


RESETS = initialized, replaced, with_argument, buffer, added, failing, uncopied, nn.Sequential(), 'no function'


@pytest.mark.parametrize('reset', RESETS, ids=lambda reset: getattr(reset, '__name__', type(reset).__name__))
def test_any_other_reset_is_never_called_on_the_teacher(reset):
    kind = type('Other', (nn.Module,), dict(forward=lambda self, x: self.net(x)))
    torch.manual_seed(0)
    teacher = kind()
    teacher.net = net(8).eval()
    if callable(reset) and not isinstance(reset, nn.Module):
        kind.reset = reset
    else:
        teacher.reset = reset
    if reset is uncopied:
        teacher.generator = (i for i in range(3))
    plain, learn = deepcopy(teacher.net), learner()
    drawn = torch.get_rng_state()
    assert recurrent_copy(teacher) is None and torch.equal(torch.get_rng_state(), drawn)
    for x, target in targets(learn, teacher):
        with torch.no_grad():
            torch.testing.assert_close(target, plain(x), **AT)


def test_the_reset_of_recurrent_networks_is_called_on_a_copy():
    language = get_language_model(AWD_LSTM, 20, awd_lstm_lm_config | dict(emb_sz=12, n_hid=16, n_layers=2)).eval()
    x = torch.randint(20, (2, 5))
    first, second = language(x)[0], language(x)[0]
    copy = recurrent_copy(language)
    assert not torch.equal(first, second) and torch.equal(copy(x)[0], first)
    kept = Kept()
    assert float(recurrent_copy(kept).state) == 0 and float(kept.state) == 1
