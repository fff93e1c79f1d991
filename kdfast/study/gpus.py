"""Share the GPUs of this machine among the processes of a study."""

import os
from collections.abc import Sequence

from kdfast.study.process import Process


def visible_gpus() -> list[str]:  # Indices, or identifiers such as GPU-8932f937, as CUDA_VISIBLE_DEVICES takes them
    "Return the GPUs of CUDA that this process may use."
    import torch

    n = torch.cuda.device_count()
    given = os.environ.get(variable()) or os.environ.get('CUDA_VISIBLE_DEVICES') or ''
    return [name.strip() for name in given.split(',')][:n] if given else [str(i) for i in range(n)]


def variable() -> str:
    "Return the environment variable that selects GPUs."
    import torch

    return 'HIP_VISIBLE_DEVICES' if torch.version.hip else 'CUDA_VISIBLE_DEVICES'


class GpuStarter:
    """Start each process on the GPU that has the fewest.

    It sees no other, so that its results do not depend on which. Called like `Process`.
    """

    def __init__(
        self,
        gpus: Sequence[str],  # From `visible_gpus`, two or more
    ):
        self.running: dict[str, list[Process]] = {gpu: [] for gpu in gpus}

    def __call__(
        self,
        command: list[str],  # The command line
        threads: int,  # For OpenMP and MKL
    ) -> Process:
        for gpu, processes in self.running.items():
            self.running[gpu] = [process for process in processes if not process.ended]
        gpu = min(self.running, key=lambda gpu: len(self.running[gpu]))
        process = Process(command, threads, {variable(): gpu})
        self.running[gpu].append(process)
        return process
