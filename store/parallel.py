"""Work on several chunks at a time, with results in order and few of them in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of `work` for the items, in their order.

    As many threads as torch uses work at a time (OMP_NUM_THREADS bounds both), and as many results wait to be
    taken: a slow consumer holds the work up. Threads pay off where the work lets go of the interpreter's
    lock, as compiled kernels, zstd and reads do. The first error is raised in its place, and what has not
    begun by then never does.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(num_threads, thread_name_prefix="store") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
