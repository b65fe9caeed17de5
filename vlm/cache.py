"""A cache bounded in bytes whose entries are made once, lent out, and never dropped while lent."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class CacheStats:
    """What a cache holds now (`entries`, of which `leased`, in bytes) and did since it was made."""

    entries: int
    leased: int
    size_bytes: int
    leased_bytes: int
    max_bytes: int
    hits: int
    misses: int
    evictions: int


@dataclass(frozen=True)
class KeptValue(Generic[K, V]):
    """One value of a cache, as it stood when it was looked at.

    Attributes:
        idle_s: Seconds since its last lease began or ended; 0 while it is leased.
    """

    name: K
    value: V
    size_bytes: int
    leases: int
    idle_s: float


class _Entry(Generic[V]):
    def __init__(self) -> None:
        self.made: Future[V] = Future()
        self.size_bytes = 0
        self.leases = 0
        self.used_at = time.monotonic()

    @property
    def idle_s(self) -> float:
        return 0.0 if self.leases else time.monotonic() - self.used_at


class LeasedCache(Generic[K, V]):
    """Values by key, the least recently used dropped first. Thread-safe.

    Two threads that ask for one missing key make it once: the second waits, and shares the first one's error
    too. A leased entry stays even where the bound is exceeded, because a failed request costs more than
    memory; the cache shrinks as soon as leases end.

    Args:
        max_bytes: The bound; one more entry than fits is kept only while it is leased.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._size_bytes = 0
        self._hits = self._misses = self._evictions = 0

    @contextmanager
    def lease(self, wanted: K, make: Callable[[], tuple[V, int]]) -> Iterator[V]:
        """The value of `wanted`, kept while the context lasts.

        Args:
            wanted: What the value depends on, all of it.
            make: Gives (value, size in bytes) where it is missing; called without any lock held.
        """
        entry, is_new = self._borrow(wanted)
        try:
            if is_new:
                self._fill(wanted, entry, make)
            yield entry.made.result()
        finally:
            self._give_back(entry)

    @contextmanager
    def lease_if_here(self, wanted: K) -> Iterator[V | None]:
        """The value of `wanted`, kept while the context lasts; None where it is missing or still being made.

        Counted as a hit where it is here, and not at all where it is not: whoever then makes it is.
        """
        with self._lock:
            entry = self._entries.get(wanted)
            if entry is not None and not entry.made.done():
                entry = None
            if entry is not None:
                self._hits += 1
                self._entries.move_to_end(wanted)
                entry.leases += 1
        if entry is None:
            yield None
            return
        try:
            yield entry.made.result()
        finally:
            self._give_back(entry)

    def kept(self) -> list[KeptValue[K, V]]:
        """Every value that is here, the least recently used first."""
        with self._lock:
            return [
                KeptValue(name, entry.made.result(), entry.size_bytes, entry.leases, entry.idle_s)
                for name, entry in self._entries.items()
                if entry.made.done()
            ]

    def drop_idle(self, idle_s: float) -> int:
        """Drop what nobody has leased for so many seconds; tell how many values that were."""
        with self._lock:
            idle = [
                name for name, entry in self._entries.items() if not entry.leases and entry.idle_s >= idle_s
            ]
            for name in idle:
                self._drop(name)
        return len(idle)

    def make_room(self, size_bytes: int) -> list[V]:
        """What was dropped, of what nobody leases, until `size_bytes` more fit or nothing more could go."""
        with self._lock:
            return self._evict_down_to(self._max_bytes - size_bytes)

    def clear(self) -> None:
        """Drop all that is not leased."""
        with self._lock:
            self._evict_down_to(0)

    def stats(self) -> CacheStats:
        """A consistent picture of now."""
        with self._lock:
            return CacheStats(
                entries=len(self._entries),
                leased=sum(entry.leases > 0 for entry in self._entries.values()),
                size_bytes=self._size_bytes,
                leased_bytes=sum(entry.size_bytes for entry in self._entries.values() if entry.leases > 0),
                max_bytes=self._max_bytes,
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
            )

    def _borrow(self, wanted: K) -> tuple[_Entry[V], bool]:
        with self._lock:
            entry = self._entries.get(wanted)
            is_new = entry is None
            if entry is None:
                entry = self._entries[wanted] = _Entry()
                self._misses += 1
            else:
                self._hits += 1
            self._entries.move_to_end(wanted)
            entry.leases += 1
            return entry, is_new

    def _fill(self, wanted: K, entry: _Entry[V], make: Callable[[], tuple[V, int]]) -> None:
        try:
            value, size_bytes = make()
        except BaseException as error:
            with self._lock:
                # Whoever asks next tries again: the cause may have gone.
                del self._entries[wanted]
            entry.made.set_exception(error)
            raise
        with self._lock:
            entry.size_bytes = size_bytes
            self._size_bytes += size_bytes
        entry.made.set_result(value)
        with self._lock:
            self._evict_down_to(self._max_bytes)

    def _give_back(self, entry: _Entry[V]) -> None:
        with self._lock:
            entry.leases -= 1
            entry.used_at = time.monotonic()
            self._evict_down_to(self._max_bytes)

    def _evict_down_to(self, size_bytes: int) -> list[V]:
        dropped = []
        for key in [key for key, entry in self._entries.items() if entry.leases == 0]:
            if self._size_bytes <= size_bytes:
                break
            dropped.append(self._drop(key))
        return dropped

    def _drop(self, name: K) -> V:
        entry = self._entries.pop(name)
        self._size_bytes -= entry.size_bytes
        self._evictions += 1
        return entry.made.result()
