"Compute without autocast, which each type of device has of its own."

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICES = 'cpu', 'cuda', 'mps'  # types


@contextmanager
def without_autocast() -> Iterator[None]:
    "Compute in the precision of weights and inputs."
    with ExitStack() as disabled:
        for device in DEVICES:
            disabled.enter_context(torch.autocast(device, enabled=False))
        yield
