"""Name of the training device, and deterministic algorithms on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kdfast.core.cores import usable_cores

THREAD_VARIABLES = 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'  # with which users set the number of threads


def device_name(
    device: torch.device,  # Training device
) -> str:  # The GPU's name; mps, cpu
    "Return the name of a device for run.json."
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type


def wait_for(
    device: torch.device,  # Training device
):
    "Wait until a device has computed what was launched on it; a CPU has."
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    elif device.type == 'mps':
        torch.mps.synchronize()


def limit_threads():
    """Use no more threads than cores that this process may use, unless the user has set their number.

    torch itself counts the cores of the machine, or those that a scheduler assigned, whatever a container's quota is.
    """
    if not any(map(os.environ.get, THREAD_VARIABLES)) and torch.get_num_threads() > (usable := usable_cores()):
        torch.set_num_threads(usable)


@contextmanager
def threads_used(
    n: int | None,  # Threads of one operation on the CPU; None: as many as torch uses already
) -> Iterator:
    "Set the number of threads; restore it afterwards."
    if n is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def repeatable(
    device: torch.device,  # Training device
) -> Iterator:
    """Use deterministic algorithms on CUDA, and warn where PyTorch has none; restore afterwards.

    cuDNN does not benchmark its algorithms, since it could choose another one the next time. On a CPU nothing is
    changed. https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    if device.type != 'cuda':
        yield
        return
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read when cuBLAS is first used
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # takes time, and nothing reads that memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = fill
