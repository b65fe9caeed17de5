import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from vlm.cache import LeasedCache


def maker(value, size_bytes=10, log=None):
    def make():
        if log is not None:
            log.append(value)
        return value, size_bytes

    return make


def get(cache, wanted, size_bytes=10, log=None):
    with cache.lease(wanted, maker(wanted, size_bytes, log)) as value:
        return value


def test_a_value_is_made_once_and_then_kept():
    cache, log = LeasedCache(max_bytes=100), []
    assert [get(cache, "a", log=log) for _ in range(3)] == ["a", "a", "a"]
    assert log == ["a"]
    assert (cache.stats().hits, cache.stats().misses, cache.stats().size_bytes) == (2, 1, 10)


def test_the_least_recently_used_goes_first():
    cache, log = LeasedCache(max_bytes=20), []
    for wanted in ("a", "b", "a", "c", "a", "b"):
        get(cache, wanted, log=log)
    assert log == ["a", "b", "c", "b"]
    assert cache.stats().evictions == 2


def test_what_is_leased_stays_beyond_the_bound_and_goes_when_it_is_given_back():
    cache, log = LeasedCache(max_bytes=15), []
    with cache.lease("a", maker("a", log=log)), cache.lease("b", maker("b", log=log)):
        assert cache.stats().size_bytes == 20
        assert cache.stats().leased == 2
        get(cache, "a", log=log)
        assert log == ["a", "b"]
    assert cache.stats().size_bytes == 10
    assert cache.stats().leased == 0


def test_a_value_larger_than_the_bound_is_lent_and_not_kept():
    cache = LeasedCache(max_bytes=5)
    assert get(cache, "a") == "a"
    assert cache.stats().entries == 0


def test_a_leased_value_is_not_evicted_by_a_stream_of_others():
    cache, log = LeasedCache(max_bytes=30), []
    with cache.lease("kept", maker("kept", log=log)):
        for wanted in range(50):
            get(cache, wanted)
        get(cache, "kept", log=log)
    assert log == ["kept"]


def test_threads_that_ask_for_one_missing_value_make_it_once():
    cache, log, barrier = LeasedCache(max_bytes=100), [], threading.Barrier(8)

    def make():
        log.append("made")
        time.sleep(0.05)
        return object(), 10

    def ask():
        barrier.wait()
        with cache.lease("a", make) as value:
            return value

    with ThreadPoolExecutor(8) as threads:
        values = [future.result() for future in [threads.submit(ask) for _ in range(8)]]
    assert log == ["made"]
    assert len(set(map(id, values))) == 1


def test_different_values_are_made_at_the_same_time():
    cache, meeting = LeasedCache(max_bytes=100), threading.Barrier(2, timeout=20)

    def make(wanted):
        meeting.wait()  # only passes when both are being made
        return wanted, 10

    def ask(wanted):
        with cache.lease(wanted, lambda: make(wanted)) as value:
            return value

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(ask, "ab")) == ["a", "b"]


def test_an_error_reaches_all_who_wait_and_the_next_one_tries_again():
    cache, started, go = LeasedCache(max_bytes=100), threading.Event(), threading.Event()

    def fail():
        started.set()
        go.wait(20)
        raise OSError("disk on fire")

    def ask(make):
        with cache.lease("a", make) as value:
            return value

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, fail)
        started.wait(20)
        second = threads.submit(ask, fail)
        while cache.stats().hits == 0:
            time.sleep(0.001)
        go.set()
        for future in (first, second):
            with pytest.raises(OSError, match="disk on fire"):
                future.result()
    assert cache.stats().entries == 0
    assert get(cache, "a") == "a"


def test_an_error_of_the_borrower_gives_the_lease_back():
    cache = LeasedCache(max_bytes=100)
    with pytest.raises(RuntimeError, match="mine"), cache.lease("a", maker("a")):
        raise RuntimeError("mine")
    assert cache.stats().leased == 0


def test_room_is_made_by_dropping_what_nobody_leases():
    cache = LeasedCache(max_bytes=30)
    for wanted in "abc":
        get(cache, wanted)
    with cache.lease("a", maker("a")):
        assert cache.make_room(10) == ["b"]
        assert cache.make_room(100) == ["c"]
        assert cache.make_room(100) == []
    cache.clear()
    assert cache.stats().size_bytes == 0


def test_many_threads_never_see_a_wrong_or_dropped_value():
    cache, alive = LeasedCache(max_bytes=35), set()

    class Value:
        def __init__(self, wanted):
            self.wanted = wanted
            alive.add(id(self))

    def work(seed):
        rng = random.Random(seed)
        for _ in range(300):
            wanted = rng.randrange(8)
            with cache.lease(wanted, lambda wanted=wanted: (Value(wanted), 10)) as value:
                assert value.wanted == wanted
                now = cache.stats()
                assert now.entries * 10 >= now.size_bytes > 0
                with cache.lease(wanted, lambda: (None, 0)) as same:
                    assert same is value

    with ThreadPoolExecutor(6) as threads:
        for future in [threads.submit(work, seed) for seed in range(6)]:
            future.result()
    assert cache.stats().size_bytes <= 35
    assert cache.stats().leased == 0
    assert cache.stats().hits + cache.stats().misses == 6 * 300 * 2
