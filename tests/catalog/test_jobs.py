import pytest
from sqlalchemy import text

from catalog.attempts import (
    claim_job,
    fence_job,
    finish_job,
    record_log,
    record_progress,
    requeue_jobs,
)
from catalog.errors import (
    AlreadyExistsError,
    InvalidNameError,
    NoSuchRowError,
    StaleAttemptError,
    StillInUseError,
)
from catalog.job_events import (
    KEPT_FIRST_LOG_EVENTS,
    MAX_LOG_CHARACTERS,
    MAX_LOG_EVENTS,
    MAX_PROGRESS_EVENTS,
    add_event,
    list_events,
)
from catalog.jobs import cancel_job, count_jobs, find_job, list_jobs, submit_job
from tests.catalog.examples import digest_of, learn
from tests.installing import ENGINE_JOBS


@pytest.fixture
def session(catalog, model):
    with catalog.transaction() as opened:
        yield opened


@pytest.fixture
def job(session, queue):
    return submit_job(session, queue, kind="train", model="pets", task="fur", request={"seed": 1})


def num_queued_in_the_engine(session):
    query = text(f"SELECT count(*) FROM {ENGINE_JOBS} WHERE status = 'ENQUEUED'")  # noqa: S608 - a name of ours
    return session.execute(query).scalar()


def states(session, job_id):
    return [event.body["state"] for event in list_events(session, job_id) if event.kind == "state"]


def test_a_submitted_job_is_queued_here_and_in_the_engine(session, job):
    assert find_job(session, job.job_id) == job
    assert (job.state, job.attempt, job.request, job.is_finished) == ("queued", 0, {"seed": 1}, False)
    assert num_queued_in_the_engine(session) == 1
    assert states(session, job.job_id) == ["queued"]


def test_a_job_whose_transaction_rolls_back_was_never_there(catalog, queue, model):
    def submit_and_fail():
        with catalog.transaction() as session:
            submit_job(session, queue, kind="train", model=model, task="fur", request={})
            assert num_queued_in_the_engine(session) == 1
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        submit_and_fail()
    with catalog.snapshot() as session:
        assert list_jobs(session) == []
        assert num_queued_in_the_engine(session) == 0


def test_a_name_is_taken_while_a_job_is_learning_it(session, queue, job):
    with pytest.raises(StillInUseError, match=f"job {job.job_id} is learning task 'fur'"):
        submit_job(session, queue, kind="import", model="pets", task="fur", request={})
    cancel_job(session, job.job_id)
    submit_job(session, queue, kind="import", model="pets", task="fur", request={})


def test_a_job_for_what_there_is_not_or_what_is_there_already_is_refused(session, queue):
    learn(session, "pets", "fur", parent=None, manifest="one")
    for refused, wrong in (
        (AlreadyExistsError, {"task": "fur"}),
        (NoSuchRowError, {"model": "birds"}),
        (NoSuchRowError, {"dataset": digest_of("nothing")}),
        (InvalidNameError, {"task": "Fur"}),
    ):
        with pytest.raises(refused):
            submit_job(
                session, queue, kind="train", request={}, **({"model": "pets", "task": "ears"} | wrong)
            )
    assert num_queued_in_the_engine(session) == 0


def test_jobs_are_listed_newest_first_by_model_and_by_state(session, queue, job):
    second = submit_job(session, queue, kind="train", model="pets", task="ears", request={})
    cancel_job(session, job.job_id)
    assert {record.job_id for record in list_jobs(session)} == {job.job_id, second.job_id}
    assert [record.job_id for record in list_jobs(session, state="queued")] == [second.job_id]
    assert list_jobs(session, model="birds") == []
    assert len(list_jobs(session, limit=1)) == 1
    assert count_jobs(session) == {"queued": 1, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 1}


def test_a_job_that_is_not_there_is_named(session):
    for ask in (find_job, cancel_job):
        with pytest.raises(NoSuchRowError, match="no job 'nothing'"):
            ask(session, "nothing")


def test_a_queued_job_whose_dead_worker_had_published_is_cancelled_no_more(session, job):
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    learn(session, "pets", "fur", parent=None, manifest="one", job_id=job.job_id, attempt=1)
    requeue_jobs(session, "a", num_releases=0)
    assert cancel_job(session, job.job_id).state == "queued"
    claimed = claim_job(session, job.job_id, worker="b", max_attempts=3)
    assert (claimed.state, claimed.attempt) == ("running", 2)


def test_a_queued_job_is_cancelled_at_once_and_never_claimed(session, job):
    cancelled = cancel_job(session, job.job_id)
    assert (cancelled.state, cancelled.is_finished) == ("cancelled", True)
    assert cancelled.finished_at is not None
    assert claim_job(session, job.job_id, worker="a", max_attempts=3) is None
    assert find_job(session, job.job_id).attempt == 0


def test_a_running_job_is_only_asked_to_stop(session, job):
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    asked = cancel_job(session, job.job_id)
    assert (asked.state, asked.cancel_requested) == ("running", True)


def test_a_job_that_was_to_be_cancelled_is_cancelled_by_whoever_takes_over(session, job):
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    cancel_job(session, job.job_id)
    requeue_jobs(session, "a", num_releases=0)
    assert claim_job(session, job.job_id, worker="b", max_attempts=3) is None
    assert find_job(session, job.job_id).state == "cancelled"


def test_a_job_that_published_can_be_cancelled_no_more(session, job):
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    learn(session, "pets", "fur", parent=None, manifest="one", job_id=job.job_id, attempt=1)
    cancel_job(session, job.job_id)
    requeue_jobs(session, "a", num_releases=0)
    assert claim_job(session, job.job_id, worker="b", max_attempts=3).attempt == 2


def test_a_finished_job_stays_as_it_is(session, job):
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    finish_job(session, job.job_id, attempt=1, state="succeeded", result={"revision": 1})
    done = cancel_job(session, job.job_id)
    assert (done.state, done.result, done.cancel_requested) == ("succeeded", {"revision": 1}, False)
    assert claim_job(session, job.job_id, worker="b", max_attempts=3) is None
    with pytest.raises(StaleAttemptError):
        finish_job(session, job.job_id, attempt=1, state="failed", error={})


def test_every_start_is_a_new_attempt_and_fences_the_one_before(session, job):
    first = claim_job(session, job.job_id, worker="a", max_attempts=3)
    assert (first.state, first.attempt, first.worker) == ("running", 1, "a")
    assert requeue_jobs(session, "a", num_releases=0) == [job.job_id]
    second = claim_job(session, job.job_id, worker="b", max_attempts=3)
    assert (second.attempt, second.worker, second.started_at) == (2, "b", first.started_at)
    fence_job(session, job.job_id, attempt=2)
    for write in (
        lambda: fence_job(session, job.job_id, attempt=1),
        lambda: record_log(session, job.job_id, attempt=1, text="I live"),
        lambda: record_progress(session, job.job_id, attempt=1, progress={}, as_event=True),
        lambda: finish_job(session, job.job_id, attempt=1, state="succeeded"),
    ):
        with pytest.raises(StaleAttemptError):
            write()
    assert states(session, job.job_id) == ["queued", "running", "queued", "running"]


def test_only_the_jobs_of_the_dead_worker_are_requeued(session, queue, job):
    other = submit_job(session, queue, kind="train", model="pets", task="ears", request={})
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    claim_job(session, other.job_id, worker="b", max_attempts=3)
    assert requeue_jobs(session, "a", num_releases=0) == [job.job_id]
    assert requeue_jobs(session, "a", num_releases=0) == []
    assert find_job(session, other.job_id).worker == "b"


def test_a_job_that_kills_its_workers_is_given_up(session, job):
    for _ in range(3):
        assert claim_job(session, job.job_id, worker="a", max_attempts=3) is not None
        requeue_jobs(session, "a", num_releases=0)
    assert claim_job(session, job.job_id, worker="a", max_attempts=3) is None
    given_up = find_job(session, job.job_id)
    assert given_up.state == "failed"
    assert given_up.error["title"] == "The job was given up after 3 attempts"
    assert set(given_up.error) == {"title", "detail", "remedy"}


def test_a_stopping_worker_costs_its_job_no_attempt(session, job):
    for _ in range(5):
        claim_job(session, job.job_id, worker="a", max_attempts=1)
        requeue_jobs(session, "a", num_releases=1)
    claimed = claim_job(session, job.job_id, worker="a", max_attempts=1)
    assert (claimed.attempt, claimed.num_releases) == (6, 5)
    requeue_jobs(session, "a", num_releases=0)
    assert claim_job(session, job.job_id, worker="a", max_attempts=1) is None


def test_a_job_that_published_and_then_killed_its_workers_has_succeeded(session, job):
    claim_job(session, job.job_id, worker="a", max_attempts=1)
    learn(session, "pets", "fur", parent=None, manifest="one", job_id=job.job_id, attempt=1)
    requeue_jobs(session, "a", num_releases=0)
    assert claim_job(session, job.job_id, worker="a", max_attempts=1) is None
    done = find_job(session, job.job_id)
    assert (done.state, done.result, done.error) == ("succeeded", {"revision": 1}, None)


def test_events_are_followed_from_where_one_stopped(session, job):
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    record_log(session, job.job_id, attempt=1, text="first")
    seen = list_events(session, job.job_id)[-1].seq
    record_progress(session, job.job_id, attempt=1, progress={"step": 2}, as_event=True)
    record_progress(session, job.job_id, attempt=1, progress={"step": 3}, as_event=False)
    finish_job(session, job.job_id, attempt=1, state="failed", error={"title": "no"})
    news = list_events(session, job.job_id, after_seq=seen)
    assert [(event.kind, event.body) for event in news] == [
        ("progress", {"step": 2}),
        ("state", {"state": "failed", "attempt": 1, "error": {"title": "no"}}),
    ]
    assert find_job(session, job.job_id).progress == {"step": 3}


def test_a_long_curve_is_thinned_but_spans_the_whole_job(session, job):
    num_points = 5 * MAX_PROGRESS_EVENTS
    for step in range(num_points):
        add_event(session, job.job_id, kind="progress", body={"step": step})
    steps = [event.body["step"] for event in list_events(session, job.job_id) if event.kind == "progress"]
    assert len(steps) <= MAX_PROGRESS_EVENTS
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, num_points - 1)
    for quarter in range(4):
        assert any(quarter <= 4 * step / num_points < quarter + 1 for step in steps)
    seqs = [event.seq for event in list_events(session, job.job_id)]
    assert len(set(seqs)) == len(seqs)


def test_of_a_long_log_the_beginning_and_the_end_stay(session, job):
    num_lines = MAX_LOG_EVENTS + 50
    for line in range(num_lines):
        add_event(session, job.job_id, kind="log", body={"text": line})
    lines = [event.body["text"] for event in list_events(session, job.job_id) if event.kind == "log"]
    assert len(lines) <= MAX_LOG_EVENTS
    assert lines[:KEPT_FIRST_LOG_EVENTS] == list(range(KEPT_FIRST_LOG_EVENTS))
    assert lines[-50:] == list(range(num_lines - 50, num_lines))


def test_a_log_line_without_end_is_cut(session, job):
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    record_log(session, job.job_id, attempt=1, text="x" * 100_000)
    assert len(list_events(session, job.job_id)[-1].body["text"]) == MAX_LOG_CHARACTERS
