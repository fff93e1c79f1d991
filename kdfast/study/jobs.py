"How many runs of a study train at a time. Imports no torch."

import time
from collections.abc import Callable, Collection, Sequence

from kdfast.study.gpu_use import Use
from kdfast.study.tasks import Task

LOOK_SECONDS = 2  # between two looks at the GPUs
N_LOOKS = 5  # before a decision
ROOM = 1.5  # free memory for a further run, relative to the share of those that train: the next may need more


class Jobs:
    """The number of runs that train at a time.

    It falls when memory has run out. On GPUs that `look` measures it rises up to what they can do at the same time.
    """

    def __init__(
        self,
        number: int,  # To begin with
        most: int = 0,  # At most, if it may rise
        measure: Callable[[], Sequence[Use]] | None = None,  # Returns the use of each GPU; empty if it is not known
    ):
        self.number = number
        self.most = max(number, most) if measure else number
        self.measure = measure
        self.looks: list[Sequence[Use]] = []  # since the number changed, while all runs were training
        self.next_look = 0.0  # value of time.monotonic()
        self.before: dict[Task, int] = {}  # epochs of the runs when this study started them

    def keep(
        self,
        number: int,  # Of runs for which there is memory
    ):
        "Train this many runs at a time, and no more later."
        self.number = self.most = number

    def look(
        self,
        running: Collection[Task],  # Those that are being trained now
    ):
        "Look at the GPUs; after some looks that found memory and time left on each, train more at a time."
        if self.number == self.most or time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + LOOK_SECONDS
        if len(running) < self.number or not all([self.has_trained(task) for task in running]):
            self.looks.clear()
            return
        use = self.measure()
        if not use:
            self.keep(self.number)
            return
        self.looks.append(use)
        if len(self.looks) == N_LOOKS:
            self.number = min(self.most, more_jobs(self.number, self.looks))
            self.looks.clear()

    def has_trained(
        self,
        task: Task,  # That is being trained now
    ) -> bool:
        "Return whether a run has trained for an epoch since it was first seen, and so has its memory."
        epochs = len(task.folder.metrics())
        return epochs > self.before.setdefault(task, epochs)


def more_jobs(
    number: int,  # Of runs that train, evenly on all GPUs
    looks: Sequence[Sequence[Use]],  # The use of each GPU, several times
) -> int:
    """Return for how many runs the GPUs have memory and time: at least as many as now, at most twice.

    With k runs that keep a GPU busy for a share b of the time, k / b runs can use all of it.
    """
    n_gpus = len(looks[0])
    of_gpu = -(-number // n_gpus)
    busy = max(sum(use.busy for use in uses) / len(looks) for uses in zip(*looks))
    in_time = of_gpu / busy if busy else 2 * of_gpu
    in_memory = min(of_gpu + use.free / (ROOM * max(use.taken, 1) / of_gpu) for uses in looks for use in uses)
    return max(number, n_gpus * int(min(2 * of_gpu, in_time, in_memory)))
