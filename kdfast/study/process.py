"""Start and stop training processes on this machine. Imports no torch, except to count GPUs."""

import os
import subprocess
import tempfile
from collections.abc import Collection

from kdfast.core import signals


class Process:
    "A training process. Its stderr is collected until it ends."

    def __init__(
        self,
        command: list[str],  # The command line
        threads: int,  # For OpenMP and MKL
    ):
        self.stderr = tempfile.TemporaryFile('w+')
        settings = {'OMP_NUM_THREADS': str(threads), 'MKL_NUM_THREADS': str(threads), signals.STUDY_CHILD: '1'}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.stderr,
            env=os.environ | settings,
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
        if self.process.returncode == 0:
            return ''
        self.stderr.seek(0)
        lines = [line.strip() for line in self.stderr if line.strip()] or ['']
        message = lines[-1].removeprefix('kdfast: error: ')
        return message or f'its process ended with status {self.process.returncode}'


def stop_processes(
    processes: Collection[Process],  # Or the tasks of a cluster
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
    "Return the number of parallel runs: as the cores allow; one on a GPU, whose memory they would share."
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return 1
    return max(1, os.cpu_count() // threads)
