"""The client commands against the real api."""

import io
import json
import os
import subprocess
import sys

import pytest
from safetensors import safe_open

from catalog.jobs import find_job
from cli.client import Client
from cli.commands.asking import agree_to_remove
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from tests.cli.documents import document
from tests.tiny_clip import TINY_CONFIG


def test_a_base_is_uploaded_shown_and_removed(run, service, tmp_path):
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(TINY_CONFIG))

    added = document(run("base", "add", "second", "--weights", service.weights, "--config", config, "--json"))

    assert added["parameters"] == document(run("base", "show", "tiny", "--json"))["parameters"]
    listed = run("base", "list").stdout
    assert "second" in listed
    assert "tiny" in listed
    assert document(run("base", "remove", "second", "--yes", "--json"))["removed"] == "second"


@pytest.mark.parametrize(
    "words",
    [
        ["base", "add", "b"],
        ["base", "add", "b", "--pretrained", "openai"],
        ["task", "import", "animals", "t", "--checkpoint", __file__],
        ["classify", "animals", __file__, "--label", "a", "--labels-file", __file__],
        ["task", "add", "animals", "t", "--dataset", "/no/such/file.tar"],
    ],
    ids=" ".join,
)
def test_arguments_that_make_no_sense_together_end_with_the_usage_code(run, words):
    result = run(*words)

    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith("error: ")


def test_a_config_that_is_no_json_is_refused_before_anything_is_sent(run, service):
    result = run("base", "add", "b", "--weights", service.weights, "--config", __file__)

    assert result.exit_code == ExitCode.USAGE
    assert "is not JSON" in result.stderr


def test_weights_that_no_hub_has_are_refused_by_the_service(run):
    result = run("base", "add", "b", "--architecture", "ViT-B-32", "--pretrained", "no-such-tag")

    assert result.exit_code == ExitCode.REFUSED
    assert "no-such-tag" in result.stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("typed", "code"), [("y\n", None), ("n\n", ExitCode.FAILED)])
def test_a_person_is_asked_before_something_is_removed(monkeypatch, typed, code):
    monkeypatch.setattr("sys.stdin", Terminal(typed))

    if code is None:
        assert agree_to_remove("the model zoo", agreed=False) is None
    else:
        with pytest.raises(CommandFailedError, match="nothing was removed"):
            agree_to_remove("the model zoo", agreed=False)


def test_a_model_is_created_listed_and_removed(run):
    created = document(run("model", "create", "short-lived", "--base", "tiny", "--json"))

    assert created["head_revision"] is None
    assert "short-lived" in run("model", "list").stdout
    assert "none yet" in run("model", "show", "short-lived").stdout
    assert run("model", "remove", "short-lived", "--yes").exit_code == ExitCode.OK
    assert "short-lived" not in run("model", "list").stdout


def test_a_model_is_shown_with_tasks_revisions_and_storage(run):
    shown = document(run("model", "show", "animals", "--json"))

    assert shown["tasks"] == ["pets", "digits"]
    assert [revision["number"] for revision in shown["revisions"]] == [2, 1]
    text = run("model", "show", "animals").stdout
    assert "trigger of pets" in text
    assert "base and 2 full checkpoints instead" in text


def test_a_head_is_rolled_back_and_forth(run, taught):
    assert document(run("model", "rollback", taught, "--json"))["head_revision"] == 1
    assert "revision 2" in run("model", "rollback", taught, "--revision", "2").stdout


def test_a_refusal_ends_with_its_code_and_says_what_to_do_next(run):
    result = run("model", "show", "nowhere")

    assert result.exit_code == ExitCode.REFUSED
    assert "no model 'nowhere'" in result.stderr
    assert "remedy: " in result.stderr
    assert "next: condu model list" in result.stderr
    assert result.stdout == ""


def test_a_refusal_is_one_json_document_when_json_is_asked_for(run):
    result = run("model", "show", "nowhere", "--json")

    error = json.loads(result.stdout)["error"]
    assert (error["type"], error["status"]) == ("/problems/not-found", 404)
    assert error["next"] == "condu model list"


def test_no_service_ends_with_its_own_code(run):
    result = run("stats", "--url", "http://127.0.0.1:9")

    assert result.exit_code == ExitCode.UNREACHABLE
    assert "next: condu serve" in result.stderr


def test_nothing_is_removed_unasked(run):
    result = run("model", "remove", "animals")

    assert result.exit_code == ExitCode.USAGE
    assert "add --yes" in result.stderr


def test_a_folder_of_pictures_becomes_a_dataset(run, pictures):
    added = document(run("dataset", "add", pictures, "--json"))

    assert (added["classes"], added["images"]) == (["cat", "dog"], 6)
    assert added["digest"] in run("dataset", "list").stdout
    assert run("dataset", "remove", added["digest"], "--yes").exit_code == ExitCode.OK


def test_tasks_are_listed_and_shown_with_their_accuracies(run):
    assert "pets" in run("task", "list", "animals").stdout
    assert document(run("task", "show", "animals", "digits", "--json"))["revision_learned"] == 2
    shown = run("task", "show", "animals", "pets").stdout
    assert "accuracy: individual" in shown
    assert "fidelity: cosine to the " in shown


def test_training_is_submitted_with_its_options_and_left_alone(run, service, model, pictures):
    words = ["--template", "a {}.", "--iterations", 7, "--betas", "0.8", "0.9", "--no-augment", "--no-watch"]
    job = document(run("task", "add", model, "pets", "--dataset", pictures, *words, "--json"))["job"]

    with Client(service.url) as client:
        submitted = client.get_job(job["id"])
    assert (submitted.state, submitted.kind, submitted.task) == ("queued", "train", "pets")
    with service.services.catalog.snapshot() as session:
        request = find_job(session, job["id"]).request
    assert request["templates"] == ["a {}."]
    assert request["training"]["iterations"] == 7
    assert request["training"]["betas"] == [0.8, 0.9]
    assert request["training"]["augment"] is False
    assert document(run("jobs", "cancel", job["id"], "--json"))["state"] == "cancelled"


def test_a_checkpoint_is_uploaded_as_a_task(run, service, model, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("cat\n\ndog\n")

    words = ["--checkpoint", service.fine_tuned, "--classes-file", classes, "--no-watch", "--json"]
    job = document(run("task", "import", model, "pets", *words))["job"]

    with Client(service.url) as client:
        assert client.get_job(job["id"]).kind == "import"
        client.cancel_job(job["id"])


def test_a_dataset_may_be_named_by_its_digest(run, service, model, pictures):
    digest = document(run("dataset", "add", pictures, "--json"))["digest"]

    job = document(run("task", "add", model, "p", "--dataset", digest, "--no-watch", "--json"))["job"]

    assert run("jobs", "cancel", job["id"]).stdout == f"job {job['id']}: cancelled\n"


def test_a_task_is_removed_and_its_imprint_told_of(run, taught):
    result = run("task", "remove", taught, "digits", "--yes")

    assert "still shapes the unified delta" in result.stdout
    assert document(run("model", "show", taught, "--json"))["tasks"] == ["pets"]


def test_images_are_classified_by_the_named_expert(run, image):
    words = ["--task", "pets", "--top-k", 1, "--json"]
    answer = document(run("classify", "animals", image, image, *words))

    assert [len(result["predictions"]) for result in answer["results"]] == [1, 1]
    assert [share["task"] for share in answer["results"][0]["experts"]] == ["pets"]


def test_a_named_expert_is_asked_among_all_that_the_model_has_learned(run, image):
    words = ["--task", "pets", "--label-set", "union", "--json"]
    (result,) = document(run("classify", "animals", image, *words))["results"]

    assert {prediction["label"] for prediction in result["predictions"]} == {"cat", "dog", "one", "two"}


def test_more_images_than_fit_a_request_are_answered_in_order(run, image, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")

    answer = document(
        run("classify", "animals", *[image] * 33, broken, "--label", "x", "--label", "y", "--json")
    )

    assert [result["error"] is None for result in answer["results"]] == [True] * 33 + [False]


def test_all_options_of_an_answer_reach_the_service(run, image, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("a cat\na dog\na house\n")
    words = ["--labels-file", labels, "--template", "{}.", "--top-k", 3, "--k", 1, "--no-include-base"]
    words += ["--weighting", "softmax", "--temperature", "0.1", "--space", "probabilities", "--revision", 2]

    answer = document(run("classify", "animals", image, *words, "--json"))

    (result,) = answer["results"]
    assert answer["revision"] == 2
    assert {prediction["label"] for prediction in result["predictions"]} == {"a cat", "a dog", "a house"}
    assert len(result["experts"]) == 1
    assert result["experts"][0]["task"] is not None


def test_answers_for_people_name_who_answered_and_what_could_not_be_read(run, image, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")

    shown = run("classify", "animals", image, broken).stdout

    assert "base 0.33" in shown
    assert "error: " in shown


def test_an_expert_is_exported_as_a_file_that_opens(run, tmp_path):
    target = tmp_path / "pets.safetensors"

    done = document(run("export", "animals", "pets", target, "--json"))

    assert done["size_bytes"] == target.stat().st_size
    with safe_open(target, "np") as file:
        assert "logit_scale" in file.keys()  # noqa: SIM118 (no mapping)
    assert run("export", "animals", "digits", target, "--revision", 1).exit_code == ExitCode.REFUSED


def test_stats_verify_and_sweep_report_in_both_forms(run):
    assert document(run("stats", "--json"))["models"] >= 1
    assert "workers" in run("stats").stdout
    assert document(run("verify", "--json"))["ok"] is True
    assert "everything is whole" in run("verify").stdout
    assert document(run("sweep", "--json"))["deleted"] is False
    assert "dry run" in run("sweep").stdout


def test_damage_ends_a_verification_with_the_failure_code(run, service):
    digest = document(run("task", "show", "animals", "pets", "--json"))["expert_digest"]
    assert digest
    manifest = document(run("model", "show", "animals", "--json"))["revisions"][0]["manifest"]
    (blob,) = [path for path in service.folder.rglob(f"*{manifest}*") if path.is_file()]
    content = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(content[:-1] + b"?")
    try:
        result = run("verify", "--json")
    finally:
        blob.write_bytes(content)

    assert result.exit_code == ExitCode.FAILED
    assert json.loads(result.stdout)["error"]["report"]["ok"] is False
    assert "damaged" in result.stderr


def test_colours_are_left_out_where_nobody_wants_them(service):
    environment = {**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "", "CONDU_URL": service.url}

    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "model", "show", "nowhere"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == ExitCode.REFUSED
    assert "\x1b[" not in done.stdout + done.stderr
