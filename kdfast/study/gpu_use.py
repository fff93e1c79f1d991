"Measure how much of NVIDIA's GPUs is in use. Imports no torch."

import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

ASKED = 'index,uuid,name,memory.used,memory.free,utilization.gpu'
SECONDS = 20  # that an answer may take; the first one can take some


class Use(NamedTuple):
    "How much of a GPU all processes use."

    taken: float  # Memory, in MiB
    free: float  # Memory, in MiB
    busy: float  # Share of the last moments in which it computed


def use_of(
    gpus: Sequence[str],  # From `visible_gpus`
) -> list[Use]:
    "Return the use of each GPU; nothing where it is not measured: other makers', parts of a GPU."
    rows = nvidia_smi()
    by_index = not all(gpu.startswith('GPU-') for gpu in gpus)
    if by_index and len({row[2] for row in rows}) > 1 and os.environ.get('CUDA_DEVICE_ORDER') != 'PCI_BUS_ID':
        return []  # CUDA counts from the fastest, nvidia-smi by place
    found = [[row for row in rows if is_row_of(gpu, row)] for gpu in gpus]
    try:
        return [Use(float(taken), float(free), float(busy) / 100) for ((*_, taken, free, busy),) in found]
    except ValueError:  # not found, or not measured: [N/A]
        return []


def is_row_of(
    gpu: str,  # Index or identifier, which may be shortened
    row: list[str],  # From `nvidia_smi`
) -> bool:
    "Return whether a row is that of a GPU."
    index, identifier, *_ = row
    return gpu == index or gpu.startswith('GPU-') and identifier.startswith(gpu)


def nvidia_smi() -> list[list[str]]:
    "Return a row of values for each GPU of the machine; none without a driver of NVIDIA that answers."
    command = ['nvidia-smi', f'--query-gpu={ASKED}', '--format=csv,noheader,nounits']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[value.strip() for value in line.split(',')] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == len(ASKED.split(','))]
