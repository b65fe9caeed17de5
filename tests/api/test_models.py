import pytest


def test_a_new_model_has_learned_nothing_and_takes_no_room_beside_its_base(condu):
    response = condu.post(
        "/v1/models",
        json={
            "name": "new",
            "base": "tiny",
            "tuning": "full",
            "rescaler_norm": "tensor_mean_l1",
            "unified_dtype": "bfloat16",
        },
    )

    assert response.status_code == 201
    assert response.headers["location"] == "/v1/models/new"
    model = condu.get("/v1/models/new").json()
    assert model == response.json()
    assert (model["head_revision"], model["tasks"], model["base"]) == (None, [], "tiny")
    assert (model["rescaler_norm"], model["unified_dtype"]) == ("tensor_mean_l1", "bfloat16")
    storage = model["storage"]
    assert storage["unified_bytes"] == storage["marginal_bytes_per_task"] == 0
    assert storage["total_bytes"] == storage["base_bytes"] == storage["full_checkpoint_bytes"]


def test_a_model_shows_what_each_task_takes_on_disk(learned):
    model = learned.get("/v1/models/animals").json()

    assert (model["head_revision"], model["tasks"]) == (2, ["pets", "digits"])
    storage = model["storage"]
    parameters = learned.get("/v1/bases/tiny").json()["parameters"]
    assert set(storage["trigger_bytes"]) == {"pets", "digits"}
    assert all(0 < size <= parameters / 8 + 64 * 1024 for size in storage["trigger_bytes"].values())
    assert 0 < storage["prototype_bytes"] < 10_000
    mean = (sum(storage["trigger_bytes"].values()) + storage["prototype_bytes"]) / 2
    assert storage["marginal_bytes_per_task"] == pytest.approx(mean, abs=1)
    assert storage["total_bytes"] > storage["base_bytes"] + storage["unified_bytes"]
    assert storage["full_checkpoint_bytes"] == learned.get("/v1/bases/tiny").json()["size_bytes"]


def test_all_models_are_listed_by_name(learned):
    models = learned.get("/v1/models").json()["models"]

    assert [model["name"] for model in models] == ["animals", "fresh"]
    assert models[0] == learned.get("/v1/models/animals").json()


@pytest.mark.parametrize(
    ("change", "status", "slug"),
    [
        ({"name": "animals"}, 409, "already-exists"),
        ({"base": "nothing"}, 404, "not-found"),
        ({"name": "No Good"}, 422, "invalid-name"),
        ({"name": ""}, 422, "invalid-request"),
        ({"tuning": "partial"}, 422, "invalid-request"),
        ({"rescaler_norm": "l2"}, 422, "invalid-request"),
        ({"unified_dtype": "int2"}, 422, "invalid-request"),
        ({"color": "red"}, 422, "invalid-request"),
    ],
)
def test_a_model_that_cannot_be_is_refused(learned, change, status, slug):
    body = learned.problem("POST", "/v1/models", json={"name": "new", "base": "tiny"} | change)

    assert (body["status"], body["type"]) == (status, f"/problems/{slug}")
    assert len(learned.get("/v1/models").json()["models"]) == 2


def test_a_removed_model_is_gone_with_its_tasks(condu):
    removed = condu.delete("/v1/models/animals").json()

    assert removed["removed"] == "animals"
    assert "sweep" in removed["detail"]
    for path in ("", "/tasks", "/revisions", "/tasks/pets"):
        assert condu.problem("GET", f"/v1/models/animals{path}")["status"] == 404
    assert condu.problem("DELETE", "/v1/models/animals")["status"] == 404


def test_a_model_that_a_job_works_on_stays(condu, dataset):
    condu.post("/v1/models/animals/tasks", json={"name": "food", "dataset": dataset})

    assert condu.problem("DELETE", "/v1/models/animals")["type"] == "/problems/still-in-use"


def test_a_json_body_beyond_its_bound_is_refused(empty_for_reading):
    body = empty_for_reading.problem("POST", "/v1/models", json={"name": "x" * 2**20, "base": "b"})

    assert (body["status"], body["type"], body["limit_bytes"]) == (413, "/problems/too-large", 2**20)
