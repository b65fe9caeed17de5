"""Workers that are really killed and really stopped."""

import signal

import pytest

from catalog.dbos_queue import Hands
from catalog.revisions import list_revisions
from tests.catalog.examples import add_model, digest_of
from tests.catalog.stage import wait_until
from tests.installing import ENGINE_JOBS


@pytest.fixture(autouse=True)
def _a_model(model):
    """Every test here has one."""


def list_manifests(stage):
    with stage.catalog.snapshot() as session:
        return [revision.manifest for revision in list_revisions(session, "pets")]


def kill(process):
    process.kill()
    process.wait()


def test_a_job_whose_worker_was_killed_is_finished_by_another_from_its_unfinished_step(stage):
    job_id = stage.submit("note", "hang_first", "note")
    process = stage.start_process()
    stage.wait_for_word("hang")
    with stage.worker():
        kill(process)
        assert stage.wait_for_end(job_id).result == {"attempt": 2}
    assert [(line.what, line.attempt) for line in stage.play.read()] == [
        ("note", 1),
        ("hang", 1),
        ("hang", 2),
        ("note", 2),
    ]


def test_a_worker_killed_on_the_same_machine_is_not_waited_for(stage):
    stage.settings = stage.settings.model_copy(update={"lease_s": 600.0})
    job_id = stage.submit("hang_first")
    process = stage.start_process()
    stage.wait_for_word("hang")
    kill(process)
    with stage.worker():
        assert stage.wait_for_end(job_id).result == {"attempt": 2}


def test_a_worker_killed_on_another_machine_is_replaced_when_its_lease_runs_out(stage):
    job_id = stage.submit("hang_first")
    process = stage.start_process()
    stage.wait_for_word("hang")
    stage.execute("UPDATE workers SET host = 'another machine'")
    kill(process)
    with stage.worker():
        assert stage.wait_for_end(job_id).result == {"attempt": 2}


def test_a_job_whose_worker_died_after_publishing_is_not_published_again(stage):
    job_id = stage.submit("publish_and_die_first")
    process = stage.start_process()
    assert process.wait(30) == -signal.SIGKILL
    assert stage.find(job_id).state == "running"
    with stage.worker():
        assert stage.wait_for_end(job_id).state == "succeeded"
    assert stage.play.read_words() == ["published-1", "published-1"]
    assert list_manifests(stage) == [digest_of("by attempt 1")]


def test_a_worker_that_slept_past_its_lease_is_fenced_and_then_works_on(stage):
    job_id = stage.submit("hang_first_and_publish")
    process = stage.start_process()
    stage.wait_for_word("hang")
    stage.freeze(process)
    with stage.worker():
        assert stage.wait_for_end(job_id).result == {"attempt": 2}
    stage.play.wake()
    process.send_signal(signal.SIGCONT)
    assert stage.wait_for_word("StaleAttemptError") == process.pid
    assert list_manifests(stage) == [digest_of("by attempt 2")]
    assert stage.find(job_id).result == {"attempt": 2}
    following = stage.submit("note", task="ears")
    assert stage.wait_for_end(following).state == "succeeded"
    assert stage.wait_for_word("note") == process.pid
    process.terminate()
    assert process.wait(30) == 0


def test_a_step_that_ended_after_its_worker_was_fenced_is_not_remembered(stage):
    job_id = stage.submit("hang_first", "note")
    process = stage.start_process()
    stage.wait_for_word("hang")
    stage.freeze(process)
    with stage.worker():
        stage.wait_for_end(job_id)
    stage.play.wake()
    process.send_signal(signal.SIGCONT)
    assert stage.wait_for_word("JobFenced") == process.pid
    assert [line.attempt for line in stage.play.read() if line.what == "note"] == [2]


def test_jobs_of_one_model_never_overlap_whichever_workers_take_them(stage, catalog):
    with catalog.transaction() as session:
        add_model(session, "birds")
    job_ids = [
        stage.submit("be_alone", model=model, task=f"task-{number}")
        for number in range(4)
        for model in ("pets", "birds")
    ]
    stage.start_process(concurrency=2)
    with stage.worker(concurrency=2):
        for job_id in job_ids:
            assert stage.wait_for_end(job_id).state == "succeeded"
    assert sorted(stage.play.read_words()) == ["alone-birds"] * 4 + ["alone-pets"] * 4


def test_a_job_that_kills_every_worker_is_given_up_and_the_next_one_runs(stage):
    stage.settings = stage.settings.model_copy(update={"max_attempts": 2})
    poison, following = stage.submit("die"), stage.submit("note", task="ears")
    for _ in range(2):
        assert stage.start_process().wait(30) == -signal.SIGKILL
    with stage.worker():
        assert stage.wait_for_end(following).state == "succeeded"
    failed = stage.find(poison)
    assert (failed.state, failed.error["title"]) == ("failed", "The job was given up after 2 attempts")
    assert stage.play.read_words() == ["die", "die", "note"]


def test_a_worker_that_died_between_our_record_and_the_engines_does_not_block_the_model(stage):
    finished = stage.submit("note")
    process = stage.start_process()
    stage.wait_for_end(finished)
    kill(process)
    # As if it had died a moment earlier: the job is over for us, for the engine it still runs.
    lost = f"UPDATE {ENGINE_JOBS} SET status = 'PENDING' WHERE workflow_uuid = :job"  # noqa: S608
    stage.execute(lost, job=finished)
    following = stage.submit("note", task="ears")
    with stage.worker():
        assert stage.wait_for_end(following).state == "succeeded"
    assert stage.find(finished).attempt == 1
    assert stage.play.read_words() == ["note", "note"]


class LookingTooEarly(Hands):
    """Hands that looked at the jobs of a worker just before it began one."""

    def _list_jobs_of(self, worker):
        return []


def test_a_job_that_a_slow_worker_begins_while_it_is_taken_for_dead_is_run_again(stage):
    job_id = stage.submit("hang_first")
    stage.start_process()
    stage.wait_for_word("hang")
    hands = LookingTooEarly(stage.settings.catalog_url)
    while stage.find(job_id).state == "running":  # a beat in between, and it is not taken for dead
        for worker in stage.list_workers():
            hands.take_over(worker, num_releases=0)
    hands.close()
    stage.play.wake()
    assert stage.wait_for_end(job_id).result == {"attempt": 2}


def test_jobs_of_a_worker_that_died_without_a_row_are_found(stage):
    job_id = stage.submit("hang_first")
    process = stage.start_process()
    stage.wait_for_word("hang")
    stage.freeze(process)
    stage.execute("DELETE FROM workers")
    kill(process)
    with stage.worker():
        assert stage.wait_for_end(job_id).result == {"attempt": 2}
        wait_until(lambda: len(stage.list_workers()) == 1)


def test_a_worker_that_is_told_to_stop_gives_its_job_back_and_exits(stage):
    job_id = stage.submit("wait")
    process = stage.start_process()
    stage.wait_for_word("wait")
    process.terminate()
    assert process.wait(30) == 0
    assert (stage.find(job_id).state, stage.find(job_id).num_releases) == ("queued", 1)
    assert stage.list_workers() == []
