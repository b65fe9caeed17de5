"""What a task's expert could do in each revision, beside what it was."""

from dataclasses import replace

import pytest

from catalog.database import downgrade_schema, upgrade_schema
from catalog.revisions import publish_revision
from catalog.tasks import find_task, list_triggers
from tests.catalog.examples import digest_of, learn, new_task, new_trigger

ROUTING = {"num_images": 20, "shares": [{"task": None, "chosen_first": 0.0, "chosen": 1.0, "weight": 0.5}]}


@pytest.fixture
def session(catalog, model):
    with catalog.transaction() as opened:
        yield opened


def test_every_revision_keeps_what_was_measured_in_it(session):
    publish_revision(
        session,
        model="pets",
        parent=None,
        manifest=digest_of("one"),
        cause="train",
        triggers=[replace(new_trigger("fur"), accuracy=90.5, routing=ROUTING)],
        task=new_task("fur"),
    )
    publish_revision(
        session,
        model="pets",
        parent=1,
        manifest=digest_of("two"),
        cause="train",
        triggers=[
            replace(new_trigger("fur"), unmeasured="its images were not kept"),
            replace(new_trigger("size"), accuracy=70.0),
        ],
        task=new_task("size"),
    )
    history = list_triggers(session, "pets", "fur")
    assert [trigger.accuracy for trigger in history] == [90.5, None]
    assert [trigger.routing for trigger in history] == [ROUTING, None]
    assert [trigger.unmeasured for trigger in history] == [None, "its images were not kept"]
    assert find_task(session, "pets", "size").trigger.accuracy == 70.0


def test_a_catalog_of_before_learns_what_each_task_could_do_at_its_own_step(catalog, model):
    with catalog.transaction() as session:
        learn(session, model, "fur", parent=None, manifest="one")
        learn(session, model, "size", parent=1, manifest="two")
    downgrade_schema(catalog.url, "0002")
    upgrade_schema(catalog.url)
    with catalog.snapshot() as session:
        fur, size = (list_triggers(session, model, task) for task in ("fur", "size"))
    assert [trigger.accuracy for trigger in fur] == [90.5, None]
    assert [trigger.accuracy for trigger in size] == [90.5]
    assert fur[0].routing is fur[0].unmeasured is None
