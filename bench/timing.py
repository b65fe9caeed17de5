"""Times of several implementations in one process run, in turns, so that a slow minute hits all of them."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.steps import Steps

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """All repeats of one implementation, in seconds."""

    times_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """What is reported."""
        return statistics.median(self.times_s)

    def to_dict(self) -> dict[str, Any]:
        """The median and every repeat."""
        return {"median_s": self.median_s, "times_s": list(self.times_s)}


def interleaved(
    works: Mapping[str, Work],
    *,
    repeats: int,
    steps: Steps,
    warm_ups: int = 1,
    before: Mapping[str, Work] | None = None,
) -> dict[str, Timing]:
    """Each implementation `repeats` times, one after the other in every round.

    Args:
        works: Name -> what is timed.
        repeats: Rounds that count.
        steps: Told of every run.
        warm_ups: Rounds before them that do not count: they pay for compilers, pools and fresh memory.
        before: Name -> what is done before each run of that name and not timed.
    """
    prepare = before or {}
    times: dict[str, list[float]] = {name: [] for name in works}
    gc.collect()
    gc.disable()  # a collection takes a tenth of a second, and would hit whoever allocates
    try:
        for turn in range(warm_ups + repeats):
            for name, work in works.items():
                if name in prepare:
                    prepare[name]()
                started = time.perf_counter()
                work()
                taken = time.perf_counter() - started
                if turn >= warm_ups:
                    times[name].append(taken)
                steps.done()
    finally:
        gc.enable()
    return {name: Timing(tuple(row)) for name, row in times.items()}


def num_runs(works: int, *, repeats: int, warm_ups: int = 1) -> int:
    """How many steps `interleaved` takes for so many implementations."""
    return works * (repeats + warm_ups)


def ratio(ours: Timing, peer: Timing) -> float:
    """How many times the peer's median ours takes."""
    return ours.median_s / peer.median_s


def as_dicts(timings: Mapping[str, Timing]) -> dict[str, Any]:
    """Timings by name, as JSON keeps them."""
    return {name: timing.to_dict() for name, timing in timings.items()}
