"What a run sets for its device, and how it is called."

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def device_name(
    device: torch.device,  # Where training happens
) -> str:  # The GPU's name; mps, cpu
    "What a run puts on record."
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type


@contextmanager
def repeatable(
    device: torch.device,  # Where training happens
) -> Iterator:
    """On CUDA, take algorithms that give the same bits every time, wherever PyTorch has one, and warn where it has none.

    cuDNN does not try which algorithm is fastest, for the winner may be another one the next time. Afterwards all is as it was.
    A CPU needs nothing of it. https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    if device.type != 'cuda':
        yield
        return
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # looked at when cuBLAS is first used
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, filled = torch.backends.cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = torch.utils.deterministic.fill_uninitialized_memory = (
        False  # to fill it takes time, and nothing reads it
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
        torch.backends.cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory = benchmark, filled
