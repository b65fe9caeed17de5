from threading import Event

import pytest

from catalog.attempts import claim_job, requeue_jobs
from catalog.errors import CatalogUnavailableError
from catalog.job_events import MAX_LOG_CHARACTERS, list_events
from catalog.job_queue import (
    JobCancelled,
    JobDeferred,
    JobFailedError,
    JobFenced,
    JobHinderedError,
    JobInterruption,
    JobReleased,
)
from catalog.jobs import cancel_job, find_job, submit_job
from catalog.running_job import RunningJob, run_claimed
from tests.catalog.examples import learn
from tests.catalog.full_disk import FullDisk, Gone


class Memory:
    """What an engine does with steps, in a dict."""

    def __init__(self):
        self.values = {}

    def remember(self, name, run):
        if name not in self.values:
            self.values[name] = run()
        return self.values[name]


class Setting:
    """A job in hand, and what may happen to it from outside."""

    def __init__(self, catalog, queue, model):
        self.catalog = catalog
        self.memory = Memory()
        self.stopping = Event()
        with catalog.transaction() as session:
            submitted = submit_job(session, queue, kind="train", model=model, task="fur", request={})
        self.job_id = submitted.job_id

    def start(self, worker="a"):
        with self.catalog.transaction() as session:
            job = claim_job(session, self.job_id, worker=worker, max_attempts=3)
        return RunningJob(
            self.catalog, job, remember=self.memory.remember, poll_s=0.0, stopping=self.stopping
        )

    def run(self, run):
        run_claimed(self.start(), run, stopping=self.stopping)
        return self.find()

    def lose(self, worker="a"):
        with self.catalog.transaction() as session:
            requeue_jobs(session, worker, num_releases=0)

    def cancel(self):
        with self.catalog.transaction() as session:
            cancel_job(session, self.job_id)

    def find(self):
        with self.catalog.snapshot() as session:
            return find_job(session, self.job_id)

    def events(self, kind):
        with self.catalog.snapshot() as session:
            return [event.body for event in list_events(session, self.job_id) if event.kind == kind]


@pytest.fixture
def setting(catalog, queue, model):
    return Setting(catalog, queue, model)


def test_what_a_job_returns_is_its_result(setting):
    done = setting.run(lambda context: {"revision": context.attempt})
    assert (done.state, done.result, done.error, done.worker) == ("succeeded", {"revision": 1}, None, None)


def test_a_foreseen_failure_is_told_to_the_user_in_the_jobs_words(setting):
    def fail(context):
        raise JobFailedError("No images", detail="The archive is empty.", remedy="Fill it.")

    failed = setting.run(fail)
    assert failed.state == "failed"
    assert failed.error == {"title": "No images", "detail": "The archive is empty.", "remedy": "Fill it."}
    assert setting.events("log") == []


def test_an_unforeseen_failure_leaves_its_traceback_in_the_log(setting):
    def stumble(context):
        raise ZeroDivisionError("x" * 2 * MAX_LOG_CHARACTERS + "the end")

    failed = setting.run(stumble)
    assert failed.error["detail"].startswith("ZeroDivisionError: xxx")
    (log,) = setting.events("log")
    assert log["text"].endswith("the end\n")


def test_a_finished_step_is_not_run_again_by_the_next_attempt(setting):
    runs = []
    first = setting.start()
    assert first.step("unpack", lambda: runs.append(1) or ("a", 1)) == ["a", 1]
    setting.lose()
    assert setting.start("b").step("unpack", lambda: runs.append(2)) == ["a", 1]
    assert runs == [1]


def test_a_step_that_failed_is_not_remembered(setting):
    context = setting.start()

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        context.step("unpack", fail)
    assert setting.memory.values == {}


def test_a_step_must_return_what_json_can_hold(setting):
    with pytest.raises(TypeError, match="not JSON serializable"):
        setting.start().step("unpack", object)


def test_a_step_that_outlived_its_attempt_is_not_remembered(setting):
    context = setting.start()
    with pytest.raises(JobFenced):
        context.step("train", setting.lose)
    assert setting.memory.values == {}
    with pytest.raises(JobFenced):
        context.step("fold", lambda: pytest.fail("a fenced job must not begin a step"))


def test_a_job_is_told_when_it_was_cancelled(setting):
    context = setting.start()
    context.check_cancelled()
    setting.cancel()
    with pytest.raises(JobCancelled):
        context.check_cancelled()
    with pytest.raises(JobCancelled):
        context.step("fold", lambda: None)


def test_a_cancelled_job_ends_as_cancelled_even_where_it_catches_all_errors(setting):
    def run(context):
        setting.cancel()
        try:
            context.check_cancelled()
        except Exception:  # noqa: BLE001 - what a careless job may do
            return {"swallowed": True}

    assert setting.run(run).state == "cancelled"


def test_a_job_that_published_is_cancelled_no_more(setting):
    context = setting.start()
    with setting.catalog.transaction() as session:
        learn(session, "pets", "fur", parent=None, manifest="one", job_id=setting.job_id, attempt=1)
    setting.cancel()
    context.check_cancelled()


def test_a_job_of_a_stopping_worker_is_left_for_the_next(setting):
    def run(context):
        setting.stopping.set()
        context.check_cancelled()

    with pytest.raises(JobReleased):
        setting.run(run)
    assert setting.find().state == "running"


def test_what_breaks_while_the_worker_stops_is_no_failure_of_the_job(setting):
    def run(context):
        setting.stopping.set()
        raise RuntimeError("the training process was stopped")

    with pytest.raises(JobReleased, match="the training process was stopped"):
        setting.run(run)
    assert setting.find().state == "running"


@pytest.mark.parametrize(
    "write",
    [
        lambda context: context.log("I live"),
        lambda context: context.report({"step": 1}),
        lambda context: context.check_cancelled(),
        lambda context: {"revision": 1},
    ],
)
def test_a_job_that_was_given_to_another_worker_writes_nothing_more(setting, write):
    def run(context):
        setting.lose()
        return write(context)

    with pytest.raises(JobInterruption) as interrupted:
        setting.run(run)
    assert interrupted.type is JobFenced
    assert setting.find().state == "queued"
    assert setting.events("log") == setting.events("progress") == []


def test_a_commit_that_the_catalog_fenced_ends_the_attempt_and_not_the_job(setting):
    def run(context):
        setting.lose()
        with setting.catalog.transaction() as session:
            learn(session, "pets", "fur", parent=None, manifest="one", job_id=context.job_id, attempt=1)

    with pytest.raises(JobFenced):
        setting.run(run)
    assert setting.find().state == "queued"


def test_reports_are_cheap_and_the_last_one_is_kept(setting):
    def run(context):
        for step in range(1000):
            context.report({"step": step, "steps": 1000})
        return {}

    done = setting.run(run)
    assert done.progress == {"step": 999, "steps": 1000}
    assert len(setting.events("progress")) < 100
    assert setting.events("progress")[0] == {"step": 0, "steps": 1000}


@pytest.fixture
def full_disk(settings, setting):
    setting.catalog = FullDisk(settings)
    yield setting.catalog
    setting.catalog.close()


def test_the_end_of_a_job_is_recorded_as_soon_as_the_database_takes_it(setting, full_disk):
    context = setting.start()
    full_disk.num_refusals = 2
    run_claimed(context, lambda context: {"revision": 1}, stopping=setting.stopping)
    assert full_disk.num_refusals == 0
    assert setting.find().state == "succeeded"


def test_a_stopping_worker_does_not_wait_for_a_database_that_refuses(setting, full_disk):
    def run(context):
        full_disk.num_refusals = 1000
        setting.stopping.set()
        return {}

    with pytest.raises(JobReleased, match="could not be recorded"):
        setting.run(run)


@pytest.fixture
def gone(settings, setting):
    setting.catalog = Gone(settings)
    yield setting.catalog
    setting.catalog.close()


def test_a_job_computes_and_reports_on_while_the_catalog_is_gone(setting, gone):
    def run(context):
        gone.num_refusals = 2
        context.check_cancelled()
        context.report({"step": 1})
        assert gone.num_refusals == 0
        context.check_cancelled()
        return {}

    assert setting.run(run).state == "succeeded"


def test_a_step_waits_for_a_catalog_that_is_gone(setting, gone):
    def run(context):
        gone.num_refusals = 3
        return context.step("fold", dict)

    assert setting.run(run).state == "succeeded"
    assert gone.num_refusals == 0


def test_a_line_of_the_log_waits_for_a_catalog_that_is_gone(setting, gone):
    def run(context):
        gone.num_refusals = 3
        context.log("I live")

    setting.run(run)
    assert [event["text"] for event in setting.events("log")] == ["I live"]


def test_a_job_that_finds_the_catalog_gone_is_not_over_and_did_not_use_up_an_attempt(setting):
    def run(context):
        raise CatalogUnavailableError("the server is gone")

    with pytest.raises(JobDeferred, match="the server is gone") as deferred:
        setting.run(run)
    assert not deferred.value.is_counted
    assert setting.find().state == "running"


def test_a_job_whose_needs_do_not_answer_fails_when_it_has_no_attempt_left(setting):
    def run(context):
        raise JobHinderedError("The storage refused", detail="It is gone.", remedy="Bring it back.")

    assert setting.run(run).error["title"] == "The storage refused"
