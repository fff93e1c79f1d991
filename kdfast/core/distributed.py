"Several processes that train one run, each with its share of every batch, as `accelerate launch kdfast run …` starts them. Imports no torch."

import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta

from kdfast.core.errors import KdfastError

rank, size = 0, 1  # which of them this one is, and how many there are; `join` sets them
group = None  # of torch: in which they tell each other things, on the CPU
PATIENCE = timedelta(days=365)  # longer than anything that the first does alone: decoding, a rehearsal, evaluating


def launched() -> int:
    "How many processes a launcher has started, this one among them."
    return (
        int(os.environ['WORLD_SIZE']) if {'RANK', 'WORLD_SIZE', 'MASTER_ADDR'} <= os.environ.keys() else 1
    )  # one alone may be a cluster's


def join():
    """Train together with the others that the launcher has started. Where there are none, nothing changes.

    Only the first writes and speaks. Raises KdfastError where accelerate is not installed.
    """
    global rank, size, group
    if launched() == 1:
        return
    try:
        from accelerate import PartialState
    except ImportError as e:
        raise KdfastError(
            "training in several processes needs a package that is not installed: pip install 'kdfast[accelerate]'"
        ) from e
    import torch

    state = PartialState(cpu=not torch.accelerator.is_available())  # connects them, and gives each its device
    rank, size = state.process_index, state.num_processes
    group = torch.distributed.new_group(
        backend='gloo', timeout=PATIENCE
    )  # on the CPU: a GPU's collectives give up after minutes
    if rank:
        sys.stdout = sys.stderr = open(os.devnull, 'w')


def several() -> bool:
    "Whether torch has connected this process with others: by `join`, or by fastai in a script of the user's."
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


@contextmanager
def alone():
    "For the first of several processes, while the others wait for it: there is no other one."
    global rank, size
    was, told = (
        (rank, size),
        {name: os.environ.pop(name) for name in ('RANK', 'WORLD_SIZE') if size > 1 and name in os.environ},
    )  # fastai asks these
    rank, size = 0, 1
    try:
        yield
    finally:
        rank, size = was
        os.environ |= told


def share() -> slice:
    "Which images of a batch are this process's."
    return slice(rank, None, size)


def agreed(
    decide: Callable,  # Called in the first process alone
):
    "What the first process finds. The others wait for it, however long it takes."
    if size == 1:
        return decide()
    from torch.distributed import broadcast_object_list

    found = [None if rank else decide()]
    broadcast_object_list(found, group=group)
    return found[0]


def first_alone(
    make: Callable,  # Makes something that is there for all afterwards, and finds it where it is there
):
    "What each process makes or finds: first the first, alone, then the others, at once."
    if size == 1:
        return make()
    if not rank:
        made = make()
    agreed(lambda: None)
    return make() if rank else made


def mean(
    values: list[float],  # This process's
) -> list[float]:
    "Of each value, the mean over all processes; found on the CPU, where the values are."
    if size == 1:
        return values
    import torch

    together = torch.tensor(values, dtype=torch.double)
    torch.distributed.all_reduce(together, group=group)
    return (together / size).tolist()
