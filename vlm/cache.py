"""A cache bounded in bytes whose entries are made once, lent out, and never dropped while lent."""

import threading
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
    """What a cache holds now (`entries`, of which `leased`, in `size_bytes`) and did since it was made."""

    entries: int
    leased: int
    size_bytes: int
    max_bytes: int
    hits: int
    misses: int
    evictions: int


class _Entry(Generic[V]):
    def __init__(self) -> None:
        self.made: Future[V] = Future()
        self.size_bytes = 0
        self.leases = 0


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
            self._evict_down_to(self._max_bytes)

    def _evict_down_to(self, size_bytes: int) -> list[V]:
        dropped = []
        for key in [key for key, entry in self._entries.items() if entry.leases == 0]:
            if self._size_bytes <= size_bytes:
                break
            entry = self._entries.pop(key)
            self._size_bytes -= entry.size_bytes
            self._evictions += 1
            dropped.append(entry.made.result())
        return dropped
