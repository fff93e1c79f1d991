"Compute the next items of a sequence in a background thread."

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

DEPTH = 2  # items that are computed ahead


def map_ahead(
    compute: Callable,  # Called in the background thread, for one item after the other
    items: Iterable,  # Its arguments; the iterable itself runs in the thread of the caller
) -> Iterator:
    """Yield `compute(item)` for each item, in order; the next two are computed meanwhile.

    An error of `compute` is raised here, when its item is due. The thread computes only what was requested, so an
    iterator that is dropped leaves it idle, and closing the iterator ends it.
    """
    pool = ThreadPoolExecutor(1, 'kdfast-prefetch')
    pending = deque()
    try:
        for item in items:
            pending.append(pool.submit(compute, item))
            if len(pending) > DEPTH:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # waits for the item that is being computed
