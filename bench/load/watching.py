"""What the service holds: its memory over time, and its open connections, files and threads."""

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.serving.processes import process_tree, resident_bytes

SETTLES_WITHIN_S = 30.0
"""The service closes what clients left open, and pools give back what they do not keep, within this time."""


@dataclass
class Memory:
    """The memory of a process and its children, weighed every so often."""

    times_s: list[float] = field(default_factory=list)
    sizes_bytes: list[int] = field(default_factory=list)

    def growth(self) -> float:
        """By how much the median of the last quarter is above that of the second, as a share.

        The first is left out: what serving keeps on purpose is being filled.
        """
        quarter = max(1, len(self.sizes_bytes) // 4)
        early = statistics.median(self.sizes_bytes[quarter : 2 * quarter] or self.sizes_bytes[:1])
        late = statistics.median(self.sizes_bytes[-quarter:])
        return late / early - 1


@contextmanager
def weighed(pid: int, every_s: float) -> Iterator[Memory]:
    """The memory while the context lasts, and once more at its end."""
    memory, over, began = Memory(), threading.Event(), time.monotonic()

    def weigh() -> None:
        while True:
            memory.times_s.append(time.monotonic() - began)
            memory.sizes_bytes.append(resident_bytes(pid))
            if over.wait(every_s):
                return

    thread = threading.Thread(target=weigh, name="weighing")
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()


def handles(pid: int) -> dict[str, int]:
    """Open sockets, files of the catalog, other files, and threads of a process and its children."""
    counts = {"sockets": 0, "catalog_files": 0, "other_files": 0, "threads": 0}
    for each in process_tree(pid):
        counts["threads"] += len(list(Path(f"/proc/{each}/task").glob("*")))
        for link in Path(f"/proc/{each}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:"):
                counts["sockets"] += 1
            else:
                counts["catalog_files" if ".sqlite" in target else "other_files"] += 1
    return counts


def settled_handles(pid: int, *, at_most: dict[str, int] | None = None) -> dict[str, int]:
    """The handles when their number has stopped falling, or is back at what it was."""
    give_up_at = time.monotonic() + SETTLES_WITHIN_S
    found, calm = handles(pid), 0
    while time.monotonic() < give_up_at and calm < 4:
        time.sleep(0.5)
        now = handles(pid)
        is_back = at_most is None or not leaked(at_most, now)
        calm = calm + 1 if now == found and is_back else 0
        found = now
    return found


def leaked(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What is open that was not, after the same load once more; the catalog's pool may fill up meanwhile."""
    return {
        name: after[name] - before[name] for name in ("sockets", "other_files") if after[name] > before[name]
    }


def percentiles_ms(latencies_s: Sequence[float]) -> dict[str, float]:
    """Middle, p95, p99 and the slowest."""
    ranked = sorted(latencies_s)
    at = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}
    found = {name: 1e3 * ranked[min(len(ranked) - 1, int(len(ranked) * share))] for name, share in at.items()}
    return {**found, "slowest_ms": 1e3 * ranked[-1]}
