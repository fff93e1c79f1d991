"Tell users when other work on the machine slows a training down: threads that wait for each other lose most by it."

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from kdfast.distill.fit import FitCallback

SHORTEST = 20  # seconds of training that are judged at a time
TOLERATED = 0.25  # share of that time in which the process waits for a core
THREADS = Path('/proc/self/task')  # of Linux


def waited_for_cores() -> float | None:
    "Return the seconds that this process's threads have waited for a core; None if unknown."
    try:
        files = [thread / 'schedstat' for thread in THREADS.iterdir()]
    except OSError:
        return None
    waits = [wait for file in files if (wait := run_queue_delay(file)) is not None]
    return sum(waits) / 1e9 if waits else None


def run_queue_delay(
    file: Path,  # schedstat of the thread, whose second number it is
):
    "Return the nanoseconds that a thread has waited for a core; None if the thread has ended."
    try:
        return int(file.read_text('utf-8').split()[1])
    except (OSError, ValueError, IndexError):
        return None


class OtherLoad(FitCallback):
    """Tell once a fit that the training waits for cores that other work has.

    Weights are the same with and without other load; only the time differs.
    """

    order = 81  # after Show (80)

    def __init__(
        self,
        tell: Callable,  # Is given the line
        waited: Callable = waited_for_cores,  # Gives the seconds that were waited for cores so far
        clock: Callable = perf_counter,  # Gives the seconds that have passed
    ):
        self.tell, self.waited, self.clock, self.told, self.since = tell, waited, clock, False, None

    def before_fit(self):
        self.told = False
        self.begin()

    def begin(self):
        "Note time and waiting time at the start of a measurement."
        self.since = self.clock(), self.waited()

    def after_batch(self):
        if self.told or not self.training or self.since[1] is None or self.clock() - self.since[0] < SHORTEST:
            return
        (began, waited_before), self.since = self.since, (self.clock(), self.waited())
        if self.since[1] is None:  # /proc has become unreadable
            return
        passed, waited = self.since[0] - began, self.since[1] - waited_before
        if waited > TOLERATED * passed:
            self.told = True
            self.tell(
                f'other work on this machine slows the training down: in {passed:.0f} s its threads waited '
                f'{waited:.0f} s for a core. One thread (OMP_NUM_THREADS=1) loses least by '
                'that; the number of threads decides the last bits of the weights'
            )
