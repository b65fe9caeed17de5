import pytest

from catalog.attempts import claim_job, requeue_jobs
from catalog.blobs import NewBlob, blob_bytes, forget_blobs, record_blobs
from catalog.errors import (
    AlreadyExistsError,
    NoSuchRowError,
    RollbackError,
    StaleAttemptError,
    StaleHeadError,
)
from catalog.jobs import submit_job
from catalog.models import find_model
from catalog.retention import expire_revisions
from catalog.revisions import find_revision, list_revisions, rollback_head
from catalog.tasks import check_task_free, find_task, head_tasks, list_triggers, revision_tasks
from tests.catalog.examples import digest_of, learn, remove


@pytest.fixture
def session(catalog, model):
    with catalog.transaction() as opened:
        yield opened


def names(tasks):
    return [task.name for task in tasks]


def test_a_published_revision_is_the_head_and_serves_its_task_as_it_was_told(session):
    assert learn(session, "pets", "fur", parent=None, manifest="one") == 1
    head = find_revision(session, "pets")
    assert (head.number, head.parent, head.manifest, head.cause) == (1, None, digest_of("one"), "train")
    (task,) = head_tasks(session, "pets")
    assert (task.name, task.revision_learned, task.classes) == ("fur", 1, ("cat", "dog"))
    assert (task.num_train, task.num_test, task.images_skipped) == (80, 20, 1)
    assert (task.accuracy_individual, task.accuracy_expert, task.accuracy_base) == (91.0, 90.5, 60.0)
    assert (task.prototypes, task.prototypes_bytes) == (digest_of("prototypes fur"), 400)
    assert task.trigger.mask == digest_of("mask fur one")
    assert (task.trigger.rescaler, task.trigger.reference) == (1.25, "original")


def test_every_revision_keeps_its_own_triggers_in_the_order_of_learning(session):
    learn(session, "pets", "fur", parent=None, manifest="one")
    learn(session, "pets", "ears", parent=1, manifest="two")
    assert names(head_tasks(session, "pets")) == ["fur", "ears"]
    assert names(revision_tasks(session, "pets", 1)) == ["fur"]
    assert [trigger.mask for trigger in list_triggers(session, "pets", "fur")] == [
        digest_of("mask fur one"),
        digest_of("mask fur two"),
    ]
    assert find_task(session, "pets", "fur").trigger.revision == 2
    assert find_task(session, "pets", "fur", revision=1).trigger.revision == 1


def test_work_on_an_old_head_is_refused_and_changes_nothing(session):
    learn(session, "pets", "fur", parent=None, manifest="one")
    for parent in (None, 2):
        with pytest.raises(StaleHeadError, match="the head of model 'pets' is revision 1"):
            learn(session, "pets", "ears", parent=parent, manifest="two")
    assert names(head_tasks(session, "pets")) == ["fur"]
    assert len(list_revisions(session, "pets")) == 1


def test_a_model_that_is_not_there_is_told_from_a_stale_head(session):
    with pytest.raises(NoSuchRowError, match="no model 'birds'"):
        learn(session, "birds", "fur", parent=None, manifest="one", names=["fur"])


def test_a_task_that_is_served_cannot_be_learned_again(session):
    learn(session, "pets", "fur", parent=None, manifest="one")
    with pytest.raises(AlreadyExistsError, match="serves a task 'fur' already"):
        learn(session, "pets", "fur", parent=1, manifest="two", names=["fur"])


@pytest.mark.parametrize("names", [["fur"], ["ears"], ["fur", "ears", "tails"], ["fur", "ears", "ears"]])
def test_triggers_that_do_not_fit_the_tasks_are_a_defect(session, names):
    learn(session, "pets", "fur", parent=None, manifest="one")
    with pytest.raises(ValueError, match=r"the revision would serve \['ears', 'fur'\]"):
        learn(session, "pets", "ears", parent=1, manifest="two", names=names)


def test_a_removed_task_is_served_no_more_and_can_come_back(session):
    learn(session, "pets", "fur", parent=None, manifest="one")
    learn(session, "pets", "ears", parent=1, manifest="two")
    assert remove(session, "pets", "fur", parent=2, manifest="three") == 3
    assert names(head_tasks(session, "pets")) == ["ears"]
    assert find_revision(session, "pets").job_id is None
    with pytest.raises(NoSuchRowError, match="serves no task 'fur' in revision 3"):
        find_task(session, "pets", "fur")
    learn(session, "pets", "fur", parent=3, manifest="four")
    assert [trigger.revision for trigger in list_triggers(session, "pets", "fur")] == [1, 2, 4]


def test_a_rollback_leaves_later_tasks_unserved_and_their_names_free(session):
    learn(session, "pets", "fur", parent=None, manifest="one")
    learn(session, "pets", "ears", parent=1, manifest="two")
    assert rollback_head(session, "pets").number == 1
    assert names(head_tasks(session, "pets")) == ["fur"]
    check_task_free(session, "pets", "ears")
    # Number 2 is taken for ever, also after a rollback.
    assert learn(session, "pets", "ears", parent=1, manifest="again") == 3
    assert find_task(session, "pets", "ears").revision_learned == 3
    assert find_revision(session, "pets").parent == 1


def test_a_rollback_can_itself_be_undone(session):
    learn(session, "pets", "fur", parent=None, manifest="one")
    learn(session, "pets", "ears", parent=1, manifest="two")
    rollback_head(session, "pets", to=1)
    assert rollback_head(session, "pets", to=2).number == 2
    assert names(head_tasks(session, "pets")) == ["fur", "ears"]


def test_a_rollback_past_the_first_revision_is_refused_by_its_number(session):
    with pytest.raises(RollbackError, match="has no revision yet"):
        rollback_head(session, "pets")
    learn(session, "pets", "fur", parent=None, manifest="one")
    with pytest.raises(RollbackError, match="revision 1 is the first of model 'pets'"):
        rollback_head(session, "pets")
    with pytest.raises(NoSuchRowError, match="no revision 7"):
        rollback_head(session, "pets", to=7)
    assert find_model(session, "pets").head_revision == 1


def test_an_expired_revision_can_neither_be_read_nor_rolled_back_to(session):
    learn(session, "pets", "fur", parent=None, manifest="one")
    learn(session, "pets", "ears", parent=1, manifest="two")
    assert [record.number for record in expire_revisions(session)] == [1]
    with pytest.raises(NoSuchRowError, match="revision 1 of model 'pets' expired"):
        find_revision(session, "pets", 1)
    for target in (None, 1):
        with pytest.raises(RollbackError, match="revision 1 of model 'pets' expired"):
            rollback_head(session, "pets", to=target)
    assert [record.expired_at is None for record in list_revisions(session, "pets")] == [True, False]


def test_reading_before_the_first_revision_says_what_to_do(session):
    assert head_tasks(session, "pets") == []
    with pytest.raises(NoSuchRowError, match="no revision yet: let it learn a task first"):
        find_revision(session, "pets")
    with pytest.raises(NoSuchRowError, match="has no revision yet"):
        find_task(session, "pets", "fur")


def test_a_job_publishes_once_whoever_asks_again(session, queue):
    job = submit_job(session, queue, kind="train", model="pets", task="fur", request={})
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    how = {"job_id": job.job_id, "names": ["fur"], "parent": None}
    assert learn(session, "pets", "fur", manifest="one", attempt=1, **how) == 1
    assert learn(session, "pets", "fur", manifest="other", attempt=1, **how) == 1
    requeue_jobs(session, "a", num_releases=0)
    claim_job(session, job.job_id, worker="b", max_attempts=3)
    assert learn(session, "pets", "fur", manifest="other", attempt=2, **how) == 1
    assert [record.manifest for record in list_revisions(session, "pets")] == [digest_of("one")]


def test_an_attempt_that_lost_its_job_publishes_nothing(session, queue):
    job = submit_job(session, queue, kind="train", model="pets", task="fur", request={})
    claim_job(session, job.job_id, worker="a", max_attempts=3)
    requeue_jobs(session, "a", num_releases=0)
    how = {"parent": None, "manifest": "one", "job_id": job.job_id}
    with pytest.raises(StaleAttemptError):
        learn(session, "pets", "fur", attempt=1, **how)
    claim_job(session, job.job_id, worker="b", max_attempts=3)
    with pytest.raises(StaleAttemptError, match=f"attempt 1 of job {job.job_id} is over"):
        learn(session, "pets", "fur", attempt=1, **how)
    assert list_revisions(session, "pets") == []
    assert learn(session, "pets", "fur", attempt=2, **how) == 1


def test_blobs_are_counted_once_however_often_they_are_named(session):
    record_blobs(session, [NewBlob("a", 5, "mask"), NewBlob("a", 5, "mask"), NewBlob("b", 7, "unified")])
    record_blobs(session, [NewBlob("a", 5, "mask"), NewBlob("c", 11, "mask")])
    assert blob_bytes(session) == {"mask": 16, "unified": 7}
    forget_blobs(session, ["a", *(f"unknown {number}" for number in range(1200))])
    assert blob_bytes(session) == {"mask": 11, "unified": 7}
