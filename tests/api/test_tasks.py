import json
import threading

import pytest
import torch

from api.removal import publish_without
from catalog.errors import StaleHeadError
from catalog.jobs import find_job
from serving.errors import UnknownTaskError
from store.safefile import write_safetensors
from tests.api.conftest import scratch_files
from tests.tiny_clip import tiny_expert_tensors, tiny_tensors

CLASSES = {"class": ["rice", "soup"]}


def submit(installation, model="animals", **body):
    return installation.post(f"/v1/models/{model}/tasks", json=body)


def import_task(installation, content, *, model="animals", task="food", **params):
    return installation.put(
        f"/v1/models/{model}/tasks/{task}/checkpoint", params=CLASSES | params, content=content
    )


def job_record(installation, response):
    with installation.services.catalog.snapshot() as session:
        return find_job(session, response.json()["job"]["id"])


def num_jobs(installation):
    return len(installation.get("/v1/jobs").json()["jobs"])


def test_a_submitted_task_becomes_a_queued_job_that_says_all_the_worker_needs(condu, dataset):
    response = submit(
        condu,
        name="food",
        dataset=dataset,
        templates=["a dish of {}."],
        training={"iterations": 20, "learning_rate": 1e-4},
    )

    assert response.status_code == 202
    job = response.json()["job"]
    assert job["state"] == "queued"
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    shown = condu.get(response.headers["location"]).json()
    assert (shown["kind"], shown["model"], shown["task"]) == ("train", "animals", "food")
    record = job_record(condu, response)
    assert record.dataset == dataset
    assert record.request["templates"] == ["a dish of {}."]
    assert record.request["training"]["iterations"] == 20
    assert record.request["training"]["batch_size"] == 64


def test_a_task_without_options_is_learned_with_the_defaults(condu, dataset):
    record = job_record(condu, submit(condu, name="food", dataset=dataset))

    assert record.request["templates"] == ["a photo of a {}."]
    assert record.request["training"]["iterations"] == 1000


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"name": "pets"}, 409, "already-exists"),
        ({"name": "Not A Name"}, 422, "invalid-name"),
        ({"dataset": "0" * 64}, 404, "not-found"),
        ({"templates": ["no slot"]}, 422, "invalid-templates"),
        ({"templates": ["{} and {}"]}, 422, "invalid-templates"),
        ({"templates": []}, 422, "invalid-templates"),
        ({"training": {"iterations": 0}}, 422, "invalid-request"),
        ({"training": {"learning_rate": -1}}, 422, "invalid-request"),
        ({"training": {"epochs": 3}}, 422, "invalid-request"),
        ({"training": {"warmup_iterations": 50, "iterations": 10}}, 422, "invalid-request"),
        ({"trainning": {}}, 422, "invalid-request"),
    ],
)
def test_a_task_that_cannot_be_learned_is_refused_and_no_job_is_left(condu, dataset, body, status, slug):
    problem = condu.problem(
        "POST", "/v1/models/animals/tasks", json={"name": "food", "dataset": dataset} | body
    )

    assert (problem["status"], problem["type"]) == (status, f"/problems/{slug}")
    assert num_jobs(condu) == 0


def test_a_training_option_that_is_no_number_is_refused(condu, dataset):
    text = json.dumps({"name": "food", "dataset": dataset, "training": {"learning_rate": float("nan")}})

    problem = condu.problem(
        "POST", "/v1/models/animals/tasks", content=text, headers={"content-type": "application/json"}
    )

    assert problem["errors"][0]["field"] == "body.training.learning_rate"


def test_a_task_that_a_job_is_learning_already_is_refused(condu, dataset, fine_tuned):
    assert submit(condu, name="food", dataset=dataset).status_code == 202

    assert submit(condu, name="food", dataset=dataset).status_code == 409
    assert import_task(condu, fine_tuned["food"].read_bytes()).status_code == 409
    assert submit(condu, "fresh", name="food", dataset=dataset).status_code == 202


def test_a_task_of_an_unknown_model_is_not_found(condu, dataset):
    assert submit(condu, "nobody", name="food", dataset=dataset).status_code == 404


def test_an_imported_checkpoint_is_kept_for_the_job(condu, fine_tuned, dataset):
    response = import_task(
        condu, fine_tuned["food"].read_bytes(), template=["a dish of {}.", "{}"], dataset=dataset
    )

    assert response.status_code == 202, response.text
    record = job_record(condu, response)
    assert (record.kind, record.task, record.dataset) == ("import", "food", dataset)
    assert record.request == {"classes": ["rice", "soup"], "templates": ["a dish of {}.", "{}"]}
    kept = condu.services.store.blobs.read(record.checkpoint)
    assert bytes(kept) == fine_tuned["food"].read_bytes()
    assert scratch_files(condu) == []


@pytest.mark.parametrize(
    ("change", "tensor", "expected"),
    [
        (lambda tensors: tensors.pop("visual.proj"), "visual.proj", "this tensor"),
        (lambda tensors: tensors.update(intruder=torch.zeros(2)), "intruder", "no tensor of this name"),
        (lambda tensors: tensors.update(logit_scale=torch.zeros(3)), "logit_scale", "shape ()"),
        (
            lambda tensors: tensors.update(logit_scale=tensors["logit_scale"].to(torch.int64)),
            "logit_scale",
            "float32",
        ),
    ],
    ids=["missing", "extra", "misshaped", "misdtyped"],
)
def test_a_checkpoint_that_does_not_fit_the_base_is_refused_by_tensor_before_a_job(
    learned, tmp_path, change, tensor, expected
):
    tensors = tiny_expert_tensors(tiny_tensors(), seed=3)
    change(tensors)
    path = tmp_path / "upload.safetensors"
    write_safetensors(path, tensors)
    num_blobs = learned.get("/v1/stats").json()["blobs"]

    problem = learned.problem(
        "PUT", "/v1/models/animals/tasks/food/checkpoint", params=CLASSES, content=path.read_bytes()
    )

    assert (problem["status"], problem["type"]) == (422, "/problems/incompatible-tensors")
    assert problem["tensor"] == tensor
    assert expected in problem["expected"]
    assert num_jobs(learned) == 0
    assert learned.get("/v1/stats").json()["blobs"] == num_blobs
    assert scratch_files(learned) == []


def unread():
    """A body that must not be asked for."""
    yield b""
    raise AssertionError("the body was read")


@pytest.mark.parametrize(
    ("where", "params", "slug"),
    [
        ("animals/tasks/food", {}, "invalid-request"),
        ("animals/tasks/food", {"class": ["rice", "rice"]}, "invalid-request"),
        ("animals/tasks/food", {"class": ["rice", " "]}, "invalid-labels"),
        ("animals/tasks/food", CLASSES | {"template": "no slot"}, "invalid-templates"),
        ("animals/tasks/food", CLASSES | {"dataset": "0" * 64}, "not-found"),
        ("animals/tasks/pets", CLASSES, "already-exists"),
        ("animals/tasks/No", CLASSES, "invalid-name"),
        ("nobody/tasks/food", CLASSES, "not-found"),
    ],
)
def test_an_import_that_cannot_be_is_refused_before_its_checkpoint_is_received(learned, where, params, slug):
    problem = learned.problem("PUT", f"/v1/models/{where}/checkpoint", params=params, content=unread())

    assert problem["type"] == f"/problems/{slug}"


def test_a_task_shows_how_faithful_and_how_good_it_is(learned):
    pets = learned.get("/v1/models/animals/tasks/pets").json()

    assert (pets["name"], pets["model"], pets["revision"], pets["revision_learned"]) == (
        "pets",
        "animals",
        2,
        1,
    )
    assert pets["classes"] == ["cat", "dog"]
    assert pets["templates"] == ["a photo of a {}."]
    assert 0 < pets["density"] < 1
    assert pets["rescaler"] > 0
    assert pets["l1_norm"] > 0
    assert pets["bits_cleared"] > 0
    at_its_own_step = {"individual": 90.0, "expert": 87.5, "zero_shot": 50.0}
    assert {name: pets["accuracy"][name] for name in at_its_own_step} == at_its_own_step
    assert pets["images"] == {"train": 8, "test": 2, "skipped": 1}
    fidelity = pets["fidelity"]
    assert fidelity["reference"] == "previous revision"
    assert 0 < fidelity["relative_l2"] < 2
    assert 0 < fidelity["cosine"] < 1
    assert [entry["revision"] for entry in fidelity["history"]] == [1, 2]
    first = fidelity["history"][0]
    assert (first["reference"], first["bits_cleared"], first["rescaler"]) == ("original", 0, 1.0)
    assert first["relative_l2"] < 1e-6


def test_all_tasks_of_a_model_are_listed_in_the_order_they_were_learned(learned):
    tasks = learned.get("/v1/models/animals/tasks").json()

    assert tasks["revision"] == 2
    assert [task["name"] for task in tasks["tasks"]] == ["pets", "digits"]
    assert tasks["tasks"][1].items() <= learned.get("/v1/models/animals/tasks/digits").json().items()
    assert learned.get("/v1/models/fresh/tasks").json() == {"model": "fresh", "revision": None, "tasks": []}


@pytest.mark.parametrize("model", ["animals", "fresh"])
def test_a_task_that_the_head_does_not_hold_is_unknown(learned, model):
    problem = learned.problem("GET", f"/v1/models/{model}/tasks/food")

    assert (problem["status"], problem["type"]) == (404, "/problems/unknown-task")
    assert problem["known_tasks"] == (["pets", "digits"] if model == "animals" else [])


def test_a_removed_task_is_served_no_more_and_the_answer_says_what_remains_of_it(condu):
    before = condu.get("/v1/models/animals/tasks/digits").json()

    removed = condu.delete("/v1/models/animals/tasks/pets").json()

    assert (removed["revision"], removed["tasks"]) == (3, ["digits"])
    assert "imprint" in removed["detail"]
    assert "rolled back" in removed["detail"]
    assert condu.get("/v1/models/animals").json()["tasks"] == ["digits"]
    assert condu.problem("GET", "/v1/models/animals/tasks/pets")["status"] == 404
    after = condu.get("/v1/models/animals/tasks/digits").json()
    assert after["expert_digest"] == before["expert_digest"]
    assert (after["rescaler"], after["revision_learned"], after["bits_cleared"]) == (before["rescaler"], 2, 0)
    assert condu.problem("DELETE", "/v1/models/animals/tasks/pets")["type"] == "/problems/unknown-task"


def test_a_model_whose_last_task_was_removed_answers_as_its_base(condu):
    for task in ("pets", "digits"):
        condu.delete(f"/v1/models/animals/tasks/{task}")

    model = condu.get("/v1/models/animals").json()
    assert (model["head_revision"], model["tasks"]) == (4, [])
    assert model["storage"]["marginal_bytes_per_task"] == 0
    revisions = condu.get("/v1/models/animals/revisions").json()["revisions"]
    assert [revision["cause"] for revision in revisions] == ["remove", "remove", "train", "train"]


def test_a_removal_on_a_head_that_has_moved_begins_anew(condu, learn_task):
    services = condu.services
    behind = services.heads.pin("animals")
    learn_task("animals", "food", classes=("rice", "soup"))

    with pytest.raises(StaleHeadError):
        publish_without(services, behind, "pets")

    assert condu.delete("/v1/models/animals/tasks/pets").json()["tasks"] == ["digits", "food"]


def test_removals_at_the_same_time_lose_nothing(condu):
    answers = {}

    def remove(task):
        answers[task] = condu.delete(f"/v1/models/animals/tasks/{task}")

    threads = [threading.Thread(target=remove, args=(task,)) for task in ("pets", "digits")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [answer.status_code for answer in answers.values()] == [200, 200]
    assert {answer.json()["revision"] for answer in answers.values()} == {3, 4}
    assert condu.get("/v1/models/animals").json()["tasks"] == []


def test_a_name_that_was_removed_can_be_learned_again_with_a_history_of_its_own(condu, learn_task):
    condu.delete("/v1/models/animals/tasks/pets")

    learn_task("animals", "pets", classes=("rice", "soup"))

    pets = condu.get("/v1/models/animals/tasks/pets").json()
    assert (pets["revision_learned"], pets["classes"]) == (4, ["rice", "soup"])
    assert [entry["revision"] for entry in pets["fidelity"]["history"]] == [4]


def test_an_unknown_task_knows_what_to_say_of_a_model_without_revisions():
    error = UnknownTaskError(model="m", task="t", revision=None, known=())

    assert "has learned nothing yet" in str(error)
