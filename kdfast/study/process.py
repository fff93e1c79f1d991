"""Start and stop training processes on this machine. Imports no torch, except to count GPUs."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import IO

from kdfast.core import signals
from kdfast.core.cores import usable_cores

KILLED = ', as it is when memory runs out'
MEMORY_RAN_OUT = KILLED, 'out of memory', 'low on memory'  # in messages of kdfast and of Ray


class Process:
    "A training process. Its stderr is collected until it ends."

    def __init__(
        self,
        command: list[str],  # The command line
        threads: int,  # For OpenMP and MKL
        variables: Mapping[str, str] = MappingProxyType({}),  # Of its environment, besides those of this process
    ):
        self.stderr = tempfile.TemporaryFile('w+', errors='replace')
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.stderr,
            env=environment(threads) | dict(variables),
            start_new_session=True,  # Ctrl-C of the terminal reaches the study alone, which passes it on once
        )

    @property
    def ended(self):
        "Whether the process has ended."
        return self.process.poll() is not None

    def terminate(self):
        "Ask the process to save a checkpoint and end."
        self.process.terminate()

    def wait(self):
        "Wait until the process ends."
        self.process.wait()

    def kill(self):
        "End the process at once."
        self.process.kill()

    @property
    def failure(self):
        "The last line of stderr if the process failed, else an empty string."
        return failure_of(self.process.returncode, self.stderr)


def environment(
    threads: int,  # For OpenMP and MKL
) -> dict[str, str]:
    "Return the environment variables of a run that a study starts."
    return os.environ | {'OMP_NUM_THREADS': str(threads), 'MKL_NUM_THREADS': str(threads), signals.STUDY_CHILD: '1'}


def failure_of(
    status: int | None,  # Of a process that has ended
    stderr: IO[str],  # What it wrote
) -> str:
    "Return why a process failed: the last line of stderr, or the signal that ended it; else nothing."
    if status == 0:
        return ''
    if status is not None and status < 0:
        killed = KILLED if -status == signal.SIGKILL else ''
        return f'its process was ended by signal {-status} ({signal.strsignal(-status)}{killed})'
    stderr.seek(0)
    lines = [line.strip() for line in stderr if line.strip()] or ['']
    message = lines[-1].removeprefix('kdfast: error: ')
    return message or f'its process ended with status {status}'


def memory_ran_out(
    failure: str,  # Of a process
) -> bool:
    "Return whether a process failed, or may have failed, because memory ran out."
    return any(text in failure for text in MEMORY_RAN_OUT)


def stop_processes(
    processes: Collection[Process],  # Or forks, or the tasks of a cluster
):
    "Ask all processes to end and wait for their checkpoints. An exception meanwhile kills them."
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()


def default_jobs(
    threads: int,  # Of each run
) -> int:
    "Return the number of parallel runs to begin with: as usable cores allow; of GPUs, one on each."
    return min(most_jobs(threads), n_gpus()) if has_gpu() else most_jobs(threads)


def most_jobs(
    threads: int,  # Of each run
) -> int:
    "Return the number of parallel runs for which there are cores."
    return max(1, usable_cores() // threads)


def has_gpu() -> bool:
    "Return whether PyTorch finds a GPU."
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def n_gpus() -> int:
    "Return the number of GPUs that PyTorch finds; Apple's is one."
    import torch

    return max(1, torch.cuda.device_count())
