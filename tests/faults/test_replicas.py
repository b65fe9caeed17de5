"""Several api replicas and several workers on one installation, each a process of its own."""

import signal

import pytest

from catalog.models import create_model
from store.verify import verify
from tests.faults.crew import wait_until
from tests.faults.importing import revisions_of, submit, wait_for
from tests.worker.installation import Installation


@pytest.fixture
def installation(tmp_path, migrated_file):
    with Installation.opened(tmp_path / "data", migrated_file) as opened:
        with opened.catalog.transaction() as session:
            create_model(session, name="birds", base="tiny")
        yield opened


def test_fusions_on_one_model_never_overlap_and_on_two_models_run_side_by_side(installation, crew, tmp_path):
    words = tmp_path / "words"
    words.mkdir()
    job_ids = [
        submit(installation, f"task-{number}", model=model, seed=number)
        for number in range(3)
        for model in ("pets", "birds")
    ]
    for _ in range(3):
        # Neither model's first fusion ends before the other one's has begun.
        crew.start_worker(installation.settings, witnesses=words, others=("pets", "birds"))
    wait_for(installation, *job_ids)
    assert sorted(path.name for path in words.iterdir()) == ["birds.seen", "pets.seen"]
    for model in ("pets", "birds"):
        assert [revision.number for revision in revisions_of(installation, model)] == [3, 2, 1]


def test_every_replica_answers_from_a_new_revision_as_soon_as_any_does(installation, crew):
    clients = [crew.start_api(installation.settings).connect() for _ in range(2)]
    crew.start_worker(installation.settings)
    for number, (told, other) in enumerate((clients, clients[::-1], clients), 1):
        job_id = submit(installation, f"task-{number}", seed=number)
        wait_until(lambda: told.get("/v1/models/pets").json()["head_revision"] == number, "the revision")  # noqa: B023
        # The other replica is asked right after, and once: it knows as soon as the first one does.
        shown = other.get("/v1/models/pets").json()
        assert (shown["head_revision"], len(shown["tasks"])) == (number, number)
        wait_for(installation, job_id)


def test_an_answer_that_is_under_way_ends_on_the_revision_that_it_began_on(installation, crew):
    client = crew.start_api(installation.settings).connect()
    crew.start_worker(installation.settings)
    wait_for(installation, submit(installation, "ears", seed=1))
    path = "/v1/models/pets/bundle"
    whole = client.get(path).content
    with client.stream("GET", path) as answer:
        pieces = answer.iter_raw(4096)
        began = next(pieces)
        wait_for(installation, submit(installation, "feet", seed=2))
        assert client.get("/v1/models/pets").json()["head_revision"] == 2
        assert began + b"".join(pieces) == whole
    assert client.get(path).content != whole


def test_a_worker_frozen_between_fold_and_publish_is_fenced_when_it_goes_on(installation, crew, tmp_path):
    words = tmp_path / "words"
    words.mkdir()
    (words / "HOLD").touch()
    job_id = submit(installation, "ears")
    sleeper = crew.start_worker(installation.settings, witnesses=words)
    wait_until((words / "pets.fusing").exists, "the fusion's begin")
    with installation.catalog.transaction():
        sleeper.freeze()  # not while it holds the lock that all writers need
    crew.start_worker(installation.settings)
    (job,) = wait_for(installation, job_id)
    published = [(revision.number, revision.manifest) for revision in revisions_of(installation, "pets")]
    (words / "HOLD").unlink()
    sleeper.signal(signal.SIGCONT)
    wait_until(lambda: not (words / "pets.fusing").exists(), "the fence")
    following = submit(installation, "feet", seed=2)
    wait_for(installation, following)
    assert job.attempt == 2
    assert [(r.number, r.manifest) for r in revisions_of(installation, "pets")][1:] == published
    assert installation.find(job_id) == job
    assert sleeper.is_alive()
    manifests = {revision.manifest for revision in revisions_of(installation, "pets")}
    assert not [step.problem for step in verify(installation.store, manifests=manifests) if step.problem]
