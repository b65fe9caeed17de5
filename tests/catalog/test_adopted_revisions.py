"""A revision that came in a bundle: the first of its model, with all its tasks at once."""

import pytest

from catalog.blobs import NewBlob, blob_bytes
from catalog.errors import InvalidNameError, StaleHeadError
from catalog.revisions import adopt_revision, find_revision, list_revisions
from catalog.tasks import head_tasks, list_triggers
from tests.catalog.examples import digest_of, learn, new_task, new_trigger


@pytest.fixture
def session(catalog, model):
    with catalog.transaction() as opened:
        yield opened


def adopt(session, *names):
    return adopt_revision(
        session,
        model="pets",
        manifest=digest_of("adopted"),
        learned=[(new_task(name), new_trigger(name)) for name in names],
        blobs=[NewBlob(digest_of("adopted"), 10, "manifest")],
    )


def test_an_adopted_revision_is_the_head_and_serves_its_tasks_in_their_order(session):
    assert adopt(session, "fur", "ears") == 1

    head = find_revision(session, "pets")
    assert (head.number, head.parent, head.cause, head.job_id) == (1, None, "bundle", None)
    assert head.manifest == digest_of("adopted")
    tasks = head_tasks(session, "pets")
    assert [(task.name, task.revision_learned) for task in tasks] == [("fur", 1), ("ears", 1)]
    assert [task.trigger.mask for task in tasks] == [new_trigger("fur").mask, new_trigger("ears").mask]
    assert blob_bytes(session)["manifest"] == 10


def test_a_model_learns_on_from_an_adopted_revision(session):
    adopt(session, "fur", "ears")

    assert learn(session, "pets", "paws", parent=1, manifest="two") == 2

    assert [task.name for task in head_tasks(session, "pets")] == ["fur", "ears", "paws"]
    assert [trigger.revision for trigger in list_triggers(session, "pets", "fur")] == [1, 2]


def test_a_revision_without_tasks_can_be_adopted(session):
    assert adopt(session) == 1
    assert head_tasks(session, "pets") == []


def test_only_a_model_that_has_learned_nothing_adopts_a_revision(session):
    learn(session, "pets", "fur", parent=None, manifest="one")

    with pytest.raises(StaleHeadError, match="is revision 1"):
        adopt(session, "ears")


def test_a_task_whose_name_is_none_is_not_adopted(catalog, model):
    with pytest.raises(InvalidNameError, match="cannot name a task"), catalog.transaction() as session:
        adopt(session, "fur", "../ears")

    with catalog.transaction() as session:
        assert list_revisions(session, "pets") == []
