"Seeded modules and random features for tests of losses with parameters."

from pathlib import Path

import numpy as np
import torch

from kdfast.distill.losses.crd import CRD

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
