import os
import subprocess
import sys
from dataclasses import replace

import pytest
from sqlalchemy import text

from catalog.workers import (
    beat,
    describe_process,
    is_dead,
    list_workers,
    register_dead_worker,
    register_worker,
    sign_off,
)


@pytest.fixture
def session(catalog):
    with catalog.transaction() as opened:
        yield opened


@pytest.fixture
def worker(session):
    register_worker(session, "a", device="cpu", lease_s=30.0)
    return list_workers(session)[0]


def age(session, seconds):
    """Time goes by, on the database's clock."""
    session.execute(text(f"UPDATE workers SET beat_at = beat_at - {1000 * seconds}"))  # noqa: S608
    session.expire_all()


def test_a_worker_that_just_signed_on_is_alive(worker):
    assert (worker.worker_id, worker.pid, worker.device) == ("a", os.getpid(), "cpu")
    assert worker.is_alive
    assert not is_dead(worker)


def test_a_worker_is_dead_when_its_lease_ran_out_and_alive_again_when_it_beats(session, worker):
    age(session, 29)
    assert not is_dead(list_workers(session)[0])
    age(session, 2)
    assert is_dead(list_workers(session)[0])
    assert beat(session, "a", lease_s=30.0)
    session.expire_all()
    assert not is_dead(list_workers(session)[0])


def test_a_worker_that_was_signed_off_hears_it_from_its_next_beat(session, worker):
    assert sign_off(session, worker)
    assert not beat(session, "a", lease_s=30.0)


def test_only_one_takes_over_from_a_dead_worker(session, worker):
    age(session, 60)
    (seen_by_both,) = list_workers(session)
    assert sign_off(session, seen_by_both)
    assert not sign_off(session, seen_by_both)


def test_a_worker_that_beats_at_the_last_moment_is_left_alone(session, worker):
    age(session, 60)
    (seen,) = list_workers(session)
    beat(session, "a", lease_s=30.0)
    assert not sign_off(session, seen)


def test_a_process_that_is_gone_from_this_machine_is_dead_at_once(worker):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = replace(worker, pid=process.pid, process=describe_process(process.pid))
    assert not is_dead(started)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    # Killed, but nobody has asked for its exit code yet: its pid is still there.
    assert is_dead(started)
    process.communicate()
    assert is_dead(started)


def test_a_pid_that_another_process_has_now_does_not_keep_a_worker_alive(worker):
    assert is_dead(replace(worker, process=worker.process.rpartition(" ")[0] + " 1"))


@pytest.mark.parametrize(
    "elsewhere", [{"host": "another"}, {"process": "another-boot pid:[1] 5"}, {"process": ""}]
)
def test_of_another_machine_only_the_lease_tells(worker, elsewhere):
    assert not is_dead(replace(worker, pid=2**22 + 1, **elsewhere))
    assert is_dead(replace(worker, is_alive=False, **elsewhere))


def test_a_worker_that_left_jobs_but_no_row_is_signed_on_as_dead(session):
    register_dead_worker(session, "ghost")
    (ghost,) = list_workers(session)
    assert is_dead(ghost)
    assert sign_off(session, ghost)
