"""A PostgreSQL server that really stops and starts again, under workers and api replicas that go on."""

import signal
import time
import uuid
from contextlib import closing

import psycopg
import pytest
from sqlalchemy.engine import make_url

from catalog import Catalog, upgrade
from catalog.dbos_queue import DbosQueue
from tests.faults.crew import wait_until
from tests.faults.importing import revisions_of, submit, wait_for
from tests.installing import settings_at
from tests.servers import discard_postgres, start_postgres
from tests.tiny_clip import image_bytes, tiny_image
from tests.worker.installation import Installation

# Longer than any lease here, so that every worker could take every other for dead.
OUTAGE_S = 30.0


@pytest.fixture(scope="module")
def server():
    """PostgreSQL of the tests' own, for the others' must not stop."""
    started = start_postgres()
    yield started
    discard_postgres(started)


@pytest.fixture
def installation(tmp_path, server):
    name = f"test_{uuid.uuid4().hex}"
    with closing(psycopg.connect(server.get_uri(), autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = make_url(server.get_uri()).set(drivername="postgresql", database=name)
    changes = {"lease_s": 2.0, "beat_s": 0.4, "poll_s": 0.1, "stop_timeout_s": 5.0}
    settings = settings_at(
        tmp_path / "data", database_url=url.render_as_string(hide_password=False), **changes
    )
    upgrade(settings.catalog_url)
    catalog, queue = Catalog(settings), DbosQueue(settings)
    yield Installation(settings, catalog, queue=queue)
    queue.close()
    catalog.close()


def classify(client):
    image = image_bytes(tiny_image(1), "PNG")
    return client.post("/v1/models/pets/classify", files=[("images", ("1.png", image))])


def test_a_database_that_is_gone_for_half_a_minute_loses_nothing_and_all_go_on(
    installation, server, crew, tmp_path
):
    words = tmp_path / "words"
    words.mkdir()
    api = crew.start_api(installation.settings).connect()
    workers = [crew.start_worker(installation.settings, witnesses=words) for _ in range(2)]
    wait_for(installation, submit(installation, "ears", seed=1))
    assert classify(api).json()["revision"] == 1
    (words / "pets.seen").unlink()
    (words / "HOLD").touch()
    job_ids = [submit(installation, task, seed=seed) for seed, task in enumerate(("feet", "tails"), 2)]
    wait_until((words / "pets.seen").exists, "the second fusion's begin")

    server.stop()
    gone_at = time.monotonic()
    (words / "HOLD").unlink()
    answers = [
        api.get("/v1/models"),
        api.get("/v1/jobs"),
        api.post("/v1/models", json={"name": "b", "base": "tiny"}),
    ]
    while time.monotonic() < gone_at + OUTAGE_S:
        served = classify(api)
        assert (served.status_code, served.json()["revision"]) == (200, 1)
        time.sleep(1)
    assert api.get("/v1/models/pets").json()["head_revision"] == 1
    answers.append(api.get("/v1/jobs"))
    server.start()

    for answer in answers:
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5"), answer.text
    jobs = wait_for(installation, *job_ids)
    assert [revision.job_id for revision in revisions_of(installation, "pets")][:2] == job_ids[::-1]
    assert [job.state for job in jobs] == ["succeeded", "succeeded"]
    assert wait_until(lambda: api.get("/v1/models/pets").json().get("head_revision") == 3, "the api's return")
    assert classify(api).json()["revision"] == 3
    assert all(worker.is_alive() for worker in workers)


def test_on_postgresql_a_worker_that_slept_past_its_lease_is_fenced(installation, crew, tmp_path):
    words = tmp_path / "words"
    words.mkdir()
    (words / "HOLD").touch()
    job_id = submit(installation, "ears", seed=1, model="pets")
    sleeper = crew.start_worker(installation.settings, witnesses=words)
    wait_until((words / "pets.fusing").exists, "the fusion's begin")
    with installation.catalog.transaction():
        sleeper.freeze()
    crew.start_worker(installation.settings)
    (done,) = wait_for(installation, job_id)
    (words / "HOLD").unlink()
    sleeper.signal(signal.SIGCONT)
    wait_until(lambda: not (words / "pets.fusing").exists(), "the fence")
    assert done.attempt == 2
    assert installation.find(job_id) == done
    assert len(revisions_of(installation, "pets")) == 1
