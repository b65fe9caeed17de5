"""Workers whose object storage, disk or clock is not as it should be; the storage is a real S3 server."""

import signal

import pytest

from catalog import Catalog
from catalog.dbos_queue import DbosQueue
from catalog.models import create_model
from tests.faults.crew import wait_until
from tests.faults.importing import revisions_of, submit, wait_for
from tests.faults.reference import experts_of
from tests.installing import migrated_settings_at
from tests.storage_proxy import StorageProxy
from tests.worker.installation import Installation

QUICK = {"lease_s": 2.0, "beat_s": 0.4, "poll_s": 0.1, "stop_timeout_s": 5.0}
TASKS = ("ears", "feet")


def open_installation(folder, migrated_file, place):
    """An installation whose catalog lies in the folder and whose blobs lie at the place."""
    settings = migrated_settings_at(
        folder,
        migrated_file,
        **QUICK,
        objects_url=place.url,
        objects_endpoint=place.endpoint,
        objects_access_key=place.access_key,
        objects_secret_key=place.secret_key,
    )
    return Installation(settings, Catalog(settings), queue=DbosQueue(settings))


@pytest.fixture
def installation(tmp_path, migrated_file, s3_place):
    opened = open_installation(tmp_path / "data", migrated_file, s3_place)
    yield opened
    opened.queue.close()
    opened.catalog.close()


@pytest.fixture
def proxy(s3_place):
    opened = StorageProxy(s3_place.endpoint)
    yield opened
    opened.close()


def through(proxy, installation, tmp_path):
    """The settings of a worker on another machine, whose way to the storage is the proxy."""
    return installation.settings.model_copy(
        update={"objects_endpoint": proxy.endpoint, "blob_cache_bytes": 0}
    )


def assert_learned_once(installation, job_ids):
    revisions = revisions_of(installation, "pets")
    assert [revision.job_id for revision in revisions] == job_ids[::-1]
    for revision in revisions:
        assert list(experts_of(installation.store, revision.manifest)) == list(TASKS[: revision.number])


@pytest.mark.parametrize(
    "weather",
    [{"fail_every": 5}, {"cut_every": 5, "delay_s": 0.02}],
    ids=["one call in five fails", "slow, and one answer in five is cut off"],
)
def test_jobs_end_right_although_the_storage_has_bad_weather(installation, proxy, crew, tmp_path, weather):
    vars(proxy.weather).update(weather)
    crew.start_worker(through(proxy, installation, tmp_path))
    job_ids = [submit(installation, task, seed=seed) for seed, task in enumerate(TASKS)]
    wait_for(installation, *job_ids)
    assert_learned_once(installation, job_ids)
    assert proxy.weather.requests


def test_a_job_whose_storage_goes_away_in_the_middle_waits_and_ends_right(
    installation, proxy, crew, tmp_path
):
    words = tmp_path / "words"
    words.mkdir()
    (words / "HOLD").touch()
    crew.start_worker(through(proxy, installation, tmp_path), witnesses=words)
    job_ids = [submit(installation, task, seed=seed) for seed, task in enumerate(TASKS)]
    wait_until((words / "pets.fusing").exists, "the fusion's begin")
    proxy.weather.is_down = True
    asked = len(proxy.weather.requests)
    (words / "HOLD").unlink()
    wait_until(lambda: len(proxy.weather.requests) > asked + 2, "requests that nobody answers")
    proxy.weather.is_down = False
    wait_for(installation, *job_ids)
    assert_learned_once(installation, job_ids)


def test_workers_whose_clocks_are_minutes_apart_take_over_only_from_the_dead(installation, crew, tmp_path):
    words = tmp_path / "words"
    words.mkdir()
    (words / "HOLD").touch()
    behind = crew.start_worker(installation.settings, witnesses=words, clock_ahead_s=-420.0)
    first = submit(installation, "ears", seed=0)
    wait_until((words / "pets.fusing").exists, "the fusion's begin")
    ahead = crew.start_worker(installation.settings, clock_ahead_s=420.0)
    # The one that is ahead has looked at the other many times when it has done a job of its own.
    with installation.catalog.transaction() as session:
        create_model(session, name="birds", base="tiny")
    wait_for(installation, submit(installation, "wings", model="birds", seed=3))
    assert installation.find(first).attempt == 1
    (words / "HOLD").unlink()
    (done,) = wait_for(installation, first)
    assert done.attempt == 1

    (words / "HOLD").touch()
    second = submit(installation, "feet", seed=1)
    ahead.freeze()  # so that the one behind takes it
    wait_until((words / "pets.fusing").exists, "the second fusion's begin")
    behind.kill()
    ahead.signal(signal.SIGCONT)
    (done,) = wait_for(installation, second)
    assert done.attempt == 2
    assert_learned_once(installation, [first, second])
