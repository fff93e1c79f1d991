"Features, logits and labels for tests of losses; values and gradients of other implementations."

from pathlib import Path

import numpy as np
import torch
from torch import tensor

from kdfast.distill.losses.features import at_loss, hcl_loss, hint_loss, pkt_loss, rkd_loss, sp_loss
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss

S, H = (
    torch.randn(6, 10, generator=torch.Generator().manual_seed(0)),
    torch.randn(6, 10, generator=torch.Generator().manual_seed(1)),
)


Y = tensor([0, 3, 9, 3, 5, 1])


GUIDED, HINT = (
    torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(2)),
    torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(3)),
)


OF_LOGITS = kd_loss, lambda s, t: dkd_loss(s, t, Y), dist_loss, ls_kd_loss


OF_MAPS = at_loss, sp_loss, rkd_loss, pkt_loss


OF_EQUAL_SHAPES = hint_loss, hcl_loss


ALL = (
    [(loss, S, H) for loss in OF_LOGITS]
    + [(loss, GUIDED, HINT) for loss in OF_MAPS]
    + [(loss, HINT, HINT.flip(0)) for loss in OF_EQUAL_SHAPES]
)


PEERS = np.load(Path(__file__).with_name('peers.npz'))


def value_and_gradient(loss, student):
    student = student.clone().requires_grad_()
    value = loss(student)
    value.backward()
    return value.detach(), student.grad


def agree(ours, theirs, student):
    "Value and gradient are theirs, computed in float64"
    for found, expected in zip(value_and_gradient(ours, student), value_and_gradient(theirs, student.double())):
        close(found, expected)


def close(found, expected):
    "The same but for a hundred-thousandth"
    assert (found.double() - expected).norm() <= 1e-5 * expected.norm()


def io(**features):
    "The dictionary in which torchdistill passes a network's features"
    return {path: dict(input=x, output=x) for path, x in features.items()}


def peer(name):
    "Tensors of peers.npz"
    return [torch.from_numpy(PEERS[f'{name}.{key}']) for key in ('value', 'gradient')]
