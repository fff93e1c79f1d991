"Multiply-adds are those of the layers, whatever PyTorch computes them with."

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torchvision.ops import deform_conv2d

from kdfast.models.multiply_adds import count_multiply_adds

N, D, H = 16, 32, 8  # tokens, features, hidden features


class Of(nn.Module):
    "A function of the input and of modules"

    def __init__(self, function, *inner):
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(inner)

    def forward(self, x):
        return self.function(x, *self.inner)


def attention(n, d):
    "Four projections, queries · keys, weights · values"
    return 4 * n * d * d + 2 * n * n * d


def recurrent(gates, n_in, hidden, n=N):
    return n * gates * hidden * (n_in + hidden)


ENCODER = nn.TransformerEncoderLayer(D, 4, 64, batch_first=True)
MATRIX = torch.ones(D, D)
CASES = {
    'convolution': (nn.Conv2d(3, 5, 3, padding=1), (3, 8, 8), 64 * 5 * 27),
    'groups': (nn.Conv2d(4, 6, 3, groups=2), (4, 8, 8), 36 * 6 * 2 * 9),
    'transposed': (nn.ConvTranspose2d(3, 5, 2, 2), (3, 8, 8), 64 * 3 * 5 * 4),
    'linear': (nn.Linear(D, 5), (N, D), N * D * 5),
    'one vector': (Of(lambda x, m: m(x[0]), nn.Linear(D, 5)), (D,), D * 5),
    'bilinear': (Of(lambda x, m: m(x, x), nn.Bilinear(D, D, 5)), (N, D), N * 5 * D * D),
    'matrix · vector': (Of(lambda x: MATRIX @ x[0]), (D,), D * D),
    'vector · vector': (Of(lambda x: x[0] @ x[0]), (D,), D),
    'added matrix · vector': (Of(lambda x: torch.addmv(x[0], MATRIX, x[0])), (D,), D * D),
    'added batch': (Of(lambda x: torch.addbmm(x.new_zeros(N, N), x[0], x[0].mT)), (3, N, D), 3 * N * N * D),
    'einsum': (Of(lambda x: torch.einsum('bij,bkj->bik', x, x)), (N, D), N * N * D),
    'attention': (Of(lambda x: F.scaled_dot_product_attention(x, x, x)), (4, N, D), 2 * 4 * N * N * D),
    'heads': (Of(lambda x, m: m(x, x, x)[0], nn.MultiheadAttention(D, 4, batch_first=True)), (N, D), attention(N, D)),
    'no weights': (
        Of(lambda x, m: m(x, x, x, need_weights=False)[0], nn.MultiheadAttention(D, 4, batch_first=True)),
        (N, D),
        attention(N, D),
    ),
    'encoder': (nn.TransformerEncoder(ENCODER, 2), (N, D), 2 * (attention(N, D) + 2 * N * D * 64)),
    'decoder': (
        Of(lambda x, m: m(x, x), nn.TransformerDecoderLayer(D, 4, 64, batch_first=True)),
        (N, D),
        2 * attention(N, D) + 2 * N * D * 64,
    ),
    'lstm': (nn.LSTM(D, H, batch_first=True), (N, D), recurrent(4, D, H)),
    'two directions': (nn.LSTM(D, H, bidirectional=True, batch_first=True), (N, D), 2 * recurrent(4, D, H)),
    'two layers': (nn.LSTM(D, H, 2, batch_first=True), (N, D), recurrent(4, D, H) + recurrent(4, H, H)),
    'gru': (nn.GRU(D, H, batch_first=True), (N, D), recurrent(3, D, H)),
    'rnn': (nn.RNN(D, H, batch_first=True), (N, D), recurrent(1, D, H)),
    'cell': (Of(lambda x, m: m(x[0])[0], nn.LSTMCell(D, H)), (N, D), recurrent(4, D, H)),
    'nothing': (nn.ReLU(), (N, D), 0),
}


def tensors_of(output):
    return [x for x in tree_leaves(output) if isinstance(x, torch.Tensor)]


@pytest.mark.parametrize('case', CASES)
def test_counts_are_those_by_hand(case):
    net, shape, expected = CASES[case]
    net.eval().requires_grad_(False)
    x = torch.rand(1, *shape)
    with torch.no_grad():
        before = net(x)
        with warnings.catch_warnings(action='error'):
            assert count_multiply_adds(lambda: net(x)) == expected
        after = net(x)
    assert all(map(torch.equal, *map(tensors_of, (before, after))))
    assert torch.backends.mha.get_fastpath_enabled() and torch.backends.mkldnn.enabled and torch.backends.cudnn.enabled


def test_precisions_that_the_user_set_by_pytorchs_newer_names_stay():
    net, shape, expected = CASES['convolution']
    newer = torch.backends.cudnn, torch.backends.mkldnn
    before = [library.fp32_precision for library in newer]
    try:
        for library in newer:
            library.fp32_precision = 'ieee'
        assert count_multiply_adds(lambda: net(torch.rand(1, *shape))) == expected
        assert [library.fp32_precision for library in newer] == ['ieee', 'ieee']
    finally:
        for library, precision in zip(newer, before):
            library.fp32_precision = precision


def test_operators_of_others_are_not_counted_as_nothing():
    net = Of(lambda x, m: deform_conv2d(x, x.new_zeros(1, 18, 6, 6), m.weight), nn.Conv2d(3, 4, 3))
    with torch.no_grad(), pytest.raises(ValueError, match='deform_conv2d has unknown multiply-adds'):
        count_multiply_adds(lambda: net(torch.rand(1, 3, 8, 8)))
