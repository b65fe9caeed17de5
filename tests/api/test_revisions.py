import pytest


def head(condu):
    return condu.get("/v1/models/animals").json()["head_revision"]


def rollback(condu, model="animals", **body):
    return condu.post(f"/v1/models/{model}/rollback", json=body)


def test_revisions_are_listed_with_what_each_did_to_every_task(learned):
    listed = learned.get("/v1/models/animals/revisions").json()

    assert (listed["model"], listed["head_revision"]) == ("animals", 2)
    newest, first = listed["revisions"]
    assert (newest["number"], newest["parent"], newest["is_head"], newest["cause"]) == (2, 1, True, "train")
    assert (first["number"], first["parent"], first["is_head"], first["expired_at"]) == (1, None, False, None)
    assert [task["task"] for task in newest["tasks"]] == ["pets", "digits"]
    assert [task["reference"] for task in newest["tasks"]] == ["previous revision", "original"]
    assert [task["task"] for task in first["tasks"]] == ["pets"]
    assert newest["tasks"][0]["density"] < first["tasks"][0]["density"]


def test_a_roll_back_serves_the_parent_and_forgets_nothing(condu):
    rolled = rollback(condu).json()

    assert rolled == {"model": "animals", "head_revision": 1, "previous_revision": 2, "tasks": ["pets"]}
    assert condu.problem("GET", "/v1/models/animals/tasks/digits")["status"] == 404

    forward = rollback(condu, revision=2).json()

    assert (forward["head_revision"], forward["tasks"]) == (2, ["pets", "digits"])


def test_a_roll_back_without_a_body_goes_to_the_parent(condu):
    assert condu.post("/v1/models/animals/rollback").json()["head_revision"] == 1


@pytest.mark.parametrize(
    ("model", "body", "status", "slug"),
    [
        ("animals", {"revision": 9}, 404, "not-found"),
        ("animals", {"revision": 0}, 422, "invalid-request"),
        ("animals", {"to": 1}, 422, "invalid-request"),
        ("fresh", {}, 409, "no-rollback"),
        ("nobody", {}, 404, "not-found"),
    ],
)
def test_a_roll_back_to_where_nothing_is_is_refused(learned, model, body, status, slug):
    problem = learned.problem("POST", f"/v1/models/{model}/rollback", json=body)

    assert (problem["status"], problem["type"]) == (status, f"/problems/{slug}")
    assert head(learned) == 2


def test_a_roll_back_past_the_first_revision_is_refused(condu):
    rollback(condu)

    problem = condu.problem("POST", "/v1/models/animals/rollback", json={})

    assert (problem["status"], problem["type"]) == (409, "/problems/no-rollback")
    assert "first" in problem["detail"]
    assert head(condu) == 1


def test_a_task_learned_after_a_roll_back_has_no_history_on_the_branch_that_was_left(condu, learn_task):
    rollback(condu, revision=1)

    assert learn_task("animals", "food", classes=("rice", "soup")) == 3

    pets = condu.get("/v1/models/animals/tasks/pets").json()
    assert [entry["revision"] for entry in pets["fidelity"]["history"]] == [1, 3]
