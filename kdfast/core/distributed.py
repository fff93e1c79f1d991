"""Distributed training of one run: rank, number of processes, and values exchanged between them.

`accelerate launch kdfast run …` starts the processes; each trains on its part of every batch. Torch is imported only if
needed.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from kdfast.core.errors import KdfastError

rank, size = 0, 1  # of this process; set by `init`
group = None  # torch process group on the CPU, for messages between the processes
TIMEOUT = timedelta(days=365)  # exceeds whatever rank 0 does alone: decoding, a rehearsal, an evaluation


def env_world_size() -> int:
    "Return how many processes a launcher has started, this one included."
    started = {'RANK', 'WORLD_SIZE', 'MASTER_ADDR'} <= os.environ.keys()  # a cluster may set one of them
    return int(os.environ['WORLD_SIZE']) if started else 1


def init():
    """Connect to the other processes that the launcher has started; do nothing if there are none.

    Only the process of rank 0 writes files and prints. Raises KdfastError if accelerate is not installed.
    """
    global rank, size, group
    if env_world_size() == 1:
        return
    try:
        from accelerate import PartialState
    except ImportError as e:
        raise KdfastError(
            "training in several processes needs a package that is not installed: pip install 'kdfast[accelerate]'"
        ) from e
    import torch

    state = PartialState(cpu=not torch.accelerator.is_available())  # connects them, and selects a device for each
    rank, size = state.process_index, state.num_processes
    group = torch.distributed.new_group(backend='gloo', timeout=TIMEOUT)  # on a GPU, collectives time out in minutes
    if rank:
        sys.stdout = sys.stderr = open(os.devnull, 'w', encoding='utf-8')


def is_initialized() -> bool:
    "Return whether torch connects this process to others, through `init` or a user's script."
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


@contextmanager
def as_single_process() -> Iterator[None]:
    "Act as the only process, in the process of rank 0 while the others wait for it."
    global rank, size
    before = (rank, size)
    variables = ('RANK', 'WORLD_SIZE') if size > 1 else ()  # fastai reads these
    environment = {name: os.environ.pop(name) for name in variables if name in os.environ}
    rank, size = 0, 1
    try:
        yield
    finally:
        rank, size = before
        os.environ |= environment


def rank_slice() -> slice:
    "Return the slice of a batch that this process trains on."
    return slice(rank, None, size)


def broadcast_from_first(
    compute: Callable,  # Called without arguments, in the process of rank 0 alone
) -> object:
    "Return, in every process, what `compute` returns in the process of rank 0. The others wait for it."
    if size == 1:
        return compute()
    from torch.distributed import broadcast_object_list

    values = [None if rank else compute()]
    broadcast_object_list(values, group=group)
    return values[0]


def first_then_others(
    create: Callable,  # Creates a resource that all processes share, or returns the existing one
) -> object:
    "Call `create` in the process of rank 0; when that is done, in all others at once."
    if size == 1:
        return create()
    if not rank:
        created = create()
    broadcast_from_first(lambda: None)
    return create() if rank else created


def mean(
    values: list[float],  # Of this process
) -> list[float]:
    "Average each value over all processes, on the CPU."
    if size == 1:
        return values
    import torch

    total = torch.tensor(values, dtype=torch.double)
    torch.distributed.all_reduce(total, group=group)
    return (total / size).tolist()
