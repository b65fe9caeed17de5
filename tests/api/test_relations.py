"""What the service tells of tasks beside each other: accuracy now, overlap, routing."""

import pytest

from catalog.revisions import find_revision
from catalog.tasks import revision_tasks
from store.overlap import measure_overlap
from tests.api.conftest import damage
from tests.api.measuring import AT_FIRST, publish_measures
from tests.installing import embedded_only

MODEL = "/v1/models/animals"
MEASURED = {"accuracy": 85.0, "routing": AT_FIRST}


def masks_of(installation, number=None):
    with installation.services.catalog.snapshot() as session:
        record = find_revision(session, "animals", number)
    store = installation.services.store
    return measure_overlap(store.blobs, store.manifest(record.manifest))


def test_a_task_shows_how_good_it_is_now_beside_its_own_step(condu):
    publish_measures(condu.services, pets=MEASURED, digits={"unmeasured": "no images"})

    pets = condu.get(f"{MODEL}/tasks/pets").json()
    assert (pets["accuracy"]["expert"], pets["accuracy"]["now"]) == (87.5, 85.0)
    assert pets["accuracy"]["unmeasured"] is None
    assert [entry["accuracy"] for entry in pets["fidelity"]["history"]] == [None, None, 85.0]
    newest = condu.get(f"{MODEL}/revisions").json()["revisions"][0]
    assert [task["accuracy"] for task in newest["tasks"]] == [85.0, None]
    digits = condu.get(f"{MODEL}/tasks/digits").json()
    assert (digits["accuracy"]["now"], digits["accuracy"]["unmeasured"]) == (None, "no images")


def test_a_revision_that_nobody_measured_says_so(learned):
    pets = learned.get(f"{MODEL}/tasks/pets").json()

    assert pets["accuracy"]["now"] is pets["routing"] is None
    assert "came in a bundle or was made by an earlier version" in pets["accuracy"]["unmeasured"]
    assert pets["unrouted"] == pets["accuracy"]["unmeasured"]


def test_a_task_shows_which_parameters_it_shares_with_the_others(learned):
    overlap = masks_of(learned)
    for task, other in (("pets", "digits"), ("digits", "pets")):
        (found,) = learned.get(f"{MODEL}/tasks/{task}").json()["overlap"]
        assert found == {
            "task": other,
            "jaccard": overlap.jaccard(task, other),
            "share": overlap.share(task, other),
        }
        assert 0 < found["jaccard"] < found["share"] < 1


def test_a_task_shows_where_its_images_were_routed_when_that_was_last_measured(condu):
    publish_measures(condu.services, pets=MEASURED, digits={})
    publish_measures(condu.services, pets={"unmeasured": "its images are gone"}, digits={})

    pets = condu.get(f"{MODEL}/tasks/pets").json()
    assert (pets["accuracy"]["now"], pets["accuracy"]["unmeasured"]) == (None, "its images are gone")
    assert (pets["routing"]["revision"], pets["routing"]["images"], pets["unrouted"]) == (3, 4, None)
    assert pets["routing"]["shares"] == AT_FIRST["shares"]


def test_the_overlap_of_a_model_is_that_of_its_masks_in_any_revision(condu, learn_task):
    learn_task("animals", "food", classes=("rice", "soup"))
    for number, tasks in ((None, ["pets", "digits", "food"]), (2, ["pets", "digits"]), (1, ["pets"])):
        answer = condu.get(f"{MODEL}/overlap", params={} if number is None else {"revision": number}).json()
        overlap = masks_of(condu, number)
        assert (answer["revision"], answer["tasks"]) == (number or 3, tasks)
        assert answer["jaccard"] == [[overlap.jaccard(row, column) for column in tasks] for row in tasks]
        assert answer["share"] == [[overlap.share(row, column) for column in tasks] for row in tasks]
        assert all(answer["jaccard"][at][at] == 1.0 for at in range(len(tasks)))


def test_the_routing_of_a_model_has_a_row_a_task_from_when_it_was_measured(condu, learn_task):
    publish_measures(condu.services, pets=MEASURED, digits={"unmeasured": "no images"})
    learn_task("animals", "food", classes=("rice", "soup"))

    answer = condu.get(f"{MODEL}/routing").json()
    assert answer["columns"] == [None, "pets", "digits", "food"]
    pets, digits, food = answer["rows"]
    assert (pets["task"], pets["revision"], pets["images"], pets["unrouted"]) == ("pets", 3, 4, None)
    assert pets["chosen_first"] == [0.0, 1.0, 0.0, 0.0]
    assert pets["chosen"] == [1.0, 1.0, 1.0, 0.0]
    assert sum(pets["weight"]) == pytest.approx(1)
    assert (digits["chosen_first"], digits["images"], digits["revision"]) == (None, 0, None)
    assert food["unrouted"]
    before = condu.get(f"{MODEL}/routing", params={"revision": 2}).json()
    assert before["columns"] == [None, "pets", "digits"]
    assert [row["chosen"] for row in before["rows"]] == [None, None]


def test_a_measure_of_a_revision_that_was_rolled_back_over_is_not_shown(condu):
    publish_measures(condu.services, pets=MEASURED, digits={})
    condu.post(f"{MODEL}/rollback")
    publish_measures(condu.services, pets={"accuracy": 80.0}, digits={})

    pets = condu.get(f"{MODEL}/tasks/pets").json()
    assert pets["accuracy"]["now"] == 80.0
    assert pets["routing"] is None


def test_an_expert_stays_as_good_as_it_was_when_another_task_is_removed(condu):
    publish_measures(condu.services, pets=MEASURED, digits={"unmeasured": "no images"})
    condu.delete(f"{MODEL}/tasks/digits")

    pets = condu.get(f"{MODEL}/tasks/pets").json()
    assert (pets["revision"], pets["accuracy"]["now"], pets["routing"]["revision"]) == (4, 85.0, 3)
    assert pets["overlap"] == []
    assert condu.get(f"{MODEL}/routing").json()["columns"] == [None, "pets"]


@pytest.mark.parametrize("what", ["overlap", "routing"])
def test_a_model_that_has_learned_nothing_has_neither(learned, what):
    answer = learned.get(f"/v1/models/fresh/{what}").json()

    assert (answer["model"], answer["revision"]) == ("fresh", None)
    assert answer.get("tasks", answer.get("rows")) == []
    assert learned.problem("GET", f"/v1/models/nobody/{what}")["status"] == 404
    assert learned.problem("GET", f"{MODEL}/{what}", params={"revision": 99})["status"] == 404


@embedded_only
def test_a_damaged_mask_is_told_where_it_is_needed_and_the_list_stays_readable(condu):
    with condu.services.catalog.snapshot() as session:
        pets, _ = revision_tasks(session, "animals", 2)
    damage(condu, pets.trigger.mask)

    for path in ("tasks/digits", "overlap"):
        problem = condu.problem("GET", f"{MODEL}/{path}")
        assert (problem["status"], problem["type"]) == (500, "/problems/corrupt-blob")
    assert [task["name"] for task in condu.get(f"{MODEL}/tasks").json()["tasks"]] == ["pets", "digits"]
