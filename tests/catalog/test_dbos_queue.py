import logging
import threading

import pytest

from catalog.dbos_queue import DbosRunner, Hands, check_sqlite
from catalog.errors import CatalogError, CatalogUnavailableError
from tests.catalog.examples import add_model
from tests.catalog.full_disk import FullDisk
from tests.catalog.stage import wait_until


@pytest.fixture(autouse=True)
def _a_model(model):
    """Every test here has one."""


@pytest.mark.parametrize(("python", "sqlite"), [((3, 11), (3, 40, 1)), ((3, 12), (3, 42, 0))])
def test_a_clock_that_the_engine_can_read_is_taken(python, sqlite):
    check_sqlite(python, sqlite)


def test_a_clock_that_the_engine_cannot_read_is_refused_with_a_way_out():
    with pytest.raises(CatalogError, match=r"Python 3.12 here has SQLite 3.40.1.*use Python 3.11"):
        check_sqlite((3, 12), (3, 40, 1))


def test_jobs_of_a_model_run_in_the_order_in_which_they_came(stage):
    job_ids = [stage.submit("note", task=f"task-{number}") for number in range(3)]
    with stage.worker():
        ends = [stage.wait_for_end(job_id) for job_id in job_ids]
    assert [end.state for end in ends] == ["succeeded"] * 3
    assert [end.result for end in ends] == [{"attempt": 1}] * 3
    assert [end.started_at for end in ends] == sorted(end.started_at for end in ends)


def test_a_worker_signs_on_and_off_and_leaves_no_thread(stage):
    before = threading.active_count()
    with stage.worker(device="cuda:0") as runner:
        (worker,) = stage.list_workers()
        assert (worker.worker_id, worker.device, worker.is_alive) == (runner.worker_id, "cuda:0", True)
    assert stage.list_workers() == []
    wait_until(lambda: threading.active_count() == before)


def test_every_start_of_a_worker_is_another_worker(settings, catalog):
    assert DbosRunner(settings, catalog).worker_id != DbosRunner(settings, catalog).worker_id


def test_a_worker_goes_on_beating_and_keeps_its_row(stage):
    with stage.worker():
        (first,) = stage.list_workers()
        wait_until(lambda: stage.list_workers()[0].beat_at > first.beat_at)
        assert stage.list_workers()[0].started_at == first.started_at


def test_a_worker_whose_row_was_taken_signs_on_again(stage):
    with stage.worker() as runner:
        stage.execute("DELETE FROM workers")
        wait_until(stage.list_workers)
        assert [worker.worker_id for worker in stage.list_workers()] == [runner.worker_id]
        assert stage.wait_for_end(stage.submit("note")).state == "succeeded"


def test_a_worker_outlasts_a_database_that_takes_nothing_for_a_while(stage, settings, caplog):
    job_id = stage.submit("note")
    catalog = FullDisk(settings)
    runner = DbosRunner(settings, catalog)
    with caplog.at_level(logging.CRITICAL):
        runner.start(stage.play.run)
        catalog.num_refusals = 10
        assert stage.wait_for_end(job_id).state == "succeeded"
        runner.stop()
    catalog.close()
    assert catalog.num_refusals == 0


def test_a_worker_that_another_signs_off_first_takes_nothing_over(stage):
    job_id = stage.submit("hang_first")
    with stage.worker() as runner:
        stage.wait_for_word("hang")
        hands = Hands(stage.catalog.url)
        (seen,) = stage.list_workers()
        wait_until(lambda: stage.list_workers()[0].beat_at > seen.beat_at)
        hands.take_over(seen, num_releases=0)
        hands.close()
        assert (stage.find(job_id).state, stage.find(job_id).worker) == ("running", runner.worker_id)
        stage.play.wake()
        assert stage.wait_for_end(job_id).attempt == 1


def test_a_running_job_is_cancelled_and_the_next_one_runs(stage):
    cancelled, following = stage.submit("wait"), stage.submit("note", task="ears")
    with stage.worker():
        stage.wait_for_word("wait")
        stage.cancel(cancelled)
        assert stage.wait_for_end(cancelled).state == "cancelled"
        assert stage.wait_for_end(following).state == "succeeded"
    assert stage.play.read_words() == ["wait", "JobCancelled", "note"]


def test_a_cancelled_queued_job_is_never_begun(stage):
    cancelled, following = stage.submit("note"), stage.submit("note", task="ears")
    stage.cancel(cancelled)
    with stage.worker():
        assert stage.wait_for_end(following).state == "succeeded"
    assert stage.find(cancelled).state == "cancelled"
    assert stage.play.read_words() == ["note"]


def test_a_job_of_a_stopping_worker_is_resumed_by_the_next_at_its_unfinished_step(stage):
    job_id = stage.submit("note", "wait", "note")
    with stage.worker():
        stage.wait_for_word("wait")
    released = stage.find(job_id)
    assert (released.state, released.worker, released.num_releases) == ("queued", None, 1)
    with stage.worker():
        assert stage.wait_for_end(job_id).result == {"attempt": 2}
    assert [(line.what, line.attempt) for line in stage.play.read()] == [
        ("note", 1),
        ("wait", 1),
        ("JobReleased", 1),
        ("wait", 2),
        ("note", 2),
    ]


def test_a_failed_job_does_not_hold_up_the_next(stage, caplog):
    failed, following = stage.submit("no_such_action"), stage.submit("note", task="ears")
    with stage.worker(), caplog.at_level(logging.CRITICAL):
        assert stage.wait_for_end(following).state == "succeeded"
    assert stage.find(failed).error["detail"].startswith("AttributeError")


def test_a_worker_with_several_devices_runs_several_models_but_each_one_by_one(stage, catalog):
    with catalog.transaction() as session:
        add_model(session, "birds")
    job_ids = [
        stage.submit("be_alone", model=model, task=f"task-{number}")
        for number in range(3)
        for model in ("pets", "birds")
    ]
    with stage.worker(concurrency=2):
        for job_id in job_ids:
            assert stage.wait_for_end(job_id).state == "succeeded"
    assert sorted(stage.play.read_words()) == ["alone-birds"] * 3 + ["alone-pets"] * 3


def test_the_engine_says_nothing_on_its_own(stage, capfd):
    with stage.worker():
        stage.wait_for_end(stage.submit("note"))
    assert capfd.readouterr() == ("", "")


def test_a_job_whose_needs_do_not_answer_is_tried_again_from_its_unfinished_step(stage):
    job_id = stage.submit("note", "hindered_first", "note")
    with stage.worker():
        assert stage.wait_for_end(job_id).result == {"attempt": 2}
    assert [(line.what, line.attempt) for line in stage.play.read()] == [
        ("note", 1),
        ("hindered", 1),
        ("hindered", 2),
        ("note", 2),
    ]
    assert stage.find(job_id).num_releases == 0


def test_a_job_whose_needs_never_answer_fails_in_their_words_after_its_last_attempt(stage, settings):
    job_id = stage.submit("hindered")
    with stage.worker():
        failed = stage.wait_for_end(job_id)
    assert (failed.state, failed.attempt) == ("failed", settings.max_attempts)
    assert failed.error["title"] == "The storage refused"


def test_a_job_that_found_the_catalog_gone_is_begun_again_and_it_does_not_count(stage):
    job_id = stage.submit("without_catalog_first")
    with stage.worker():
        done = stage.wait_for_end(job_id)
    assert (done.result, done.num_releases) == ({"attempt": 2}, 1)


def test_a_job_is_given_back_as_soon_as_the_catalog_takes_it(stage, caplog):
    job_id = stage.submit("without_catalog_first")
    with caplog.at_level(logging.CRITICAL), stage.worker() as runner:
        hands = vars(runner)["_hands"] = Unwilling(vars(runner)["_hands"], refusals=3)
        assert stage.wait_for_end(job_id).result == {"attempt": 2}
        assert hands.refusals == 0


class Unwilling:
    """Hands whose database takes nothing for the first few times."""

    def __init__(self, hands, refusals):
        self.hands, self.refusals = hands, refusals

    def __getattr__(self, name):
        return getattr(self.hands, name)

    def give_back(self, job_id, **how):
        if self.refusals:
            self.refusals -= 1
            raise CatalogUnavailableError("the server is gone")
        self.hands.give_back(job_id, **how)
