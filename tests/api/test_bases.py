import base64
import json

import open_clip
import pytest
import torch

from store.safefile import write_safetensors
from tests.api.conftest import CONFIG, scratch_files
from tests.tiny_clip import TINY_CONFIG, tiny_tensors


@pytest.fixture
def file(tmp_path):
    """Writes tensors as a safetensors file and gives its bytes."""

    def write(tensors):
        path = tmp_path / "upload.safetensors"
        write_safetensors(path, tensors)
        return path.read_bytes()

    return write


def put(installation, name="tiny", *, content, config=CONFIG, **request):
    return installation.put(f"/v1/bases/{name}", params={"config": config}, content=content, **request)


def test_an_uploaded_base_is_shown_as_it_was_taken_in(empty, weights):
    response = put(empty, content=weights.read_bytes())

    assert response.status_code == 201
    assert response.headers["location"] == "/v1/bases/tiny"
    shown = empty.get("/v1/bases/tiny").json()
    assert shown == response.json()
    assert shown["architecture"] is None
    assert shown["config"]["embed_dim"] == TINY_CONFIG["embed_dim"]
    assert len(shown["digest"]) == 64
    assert shown["parameters"] == sum(t.numel() for t in tiny_tensors().values() if t.is_floating_point())
    assert shown["size_bytes"] >= 4 * shown["parameters"]
    assert empty.get("/v1/bases").json() == {"bases": [shown]}


def test_the_same_weights_under_the_same_name_again_change_nothing(empty, weights):
    first = put(empty, content=weights.read_bytes())

    again = put(empty, content=weights.read_bytes())

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


def test_other_weights_under_a_taken_name_are_refused(condu, file):
    body = condu.problem(
        "PUT", "/v1/bases/tiny", params={"config": CONFIG}, content=file(tiny_tensors(seed=7))
    )

    assert (body["status"], body["type"]) == (409, "/problems/already-exists")
    assert condu.get("/v1/models/animals").json()["tasks"] == ["pets", "digits"]


def test_the_same_weights_as_another_architecture_are_refused_under_a_taken_name(condu, weights):
    config = json.loads(CONFIG)
    config["preprocess_cfg"] = {"mean": [0.1, 0.1, 0.1]}

    assert put(condu, content=weights.read_bytes(), config=json.dumps(config)).status_code == 409


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        (lambda tensors: tensors.pop("visual.proj"), "visual.proj"),
        (lambda tensors: tensors.update(intruder=torch.zeros(2)), "intruder"),
        (lambda tensors: tensors.update(logit_scale=torch.zeros(3)), "logit_scale"),
        (lambda tensors: tensors.update(positional_embedding=tensors["positional_embedding"].double()), None),
        (lambda tensors: tensors.update(positional_embedding=torch.zeros(16, 32, dtype=torch.int64)), None),
    ],
    ids=["missing", "extra", "misshaped", "float64", "integer"],
)
def test_a_base_with_a_tensor_that_does_not_fit_is_refused_by_its_name(empty, file, change, tensor):
    tensors = tiny_tensors()
    change(tensors)

    body = empty.problem("PUT", "/v1/bases/tiny", params={"config": CONFIG}, content=file(tensors))

    assert (body["status"], body["type"]) == (422, "/problems/incompatible-tensors")
    assert body["tensor"] == (tensor or "positional_embedding")
    assert body["expected"]
    assert body["got"]
    assert empty.get("/v1/bases").json() == {"bases": []}
    assert scratch_files(empty) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_base_with_values_that_are_no_numbers_is_refused(empty, file, value):
    tensors = tiny_tensors()
    tensors["visual.proj"][0, 0] = value

    body = empty.problem("PUT", "/v1/bases/tiny", params={"config": CONFIG}, content=file(tensors))

    assert (body["status"], body["type"]) == (422, "/problems/invalid-weights")
    assert "visual.proj" in body["detail"]


@pytest.mark.parametrize(
    ("params", "slug"),
    [
        ({"architecture": "ViT-Z-99"}, "unknown-architecture"),
        ({"config": '{"embed_dim": -1}'}, "unknown-architecture"),
        ({"config": "{"}, "invalid-request"),
        ({"config": "[1]"}, "invalid-request"),
        ({"config": "[" * 15_000}, "invalid-request"),
        ({}, "invalid-request"),
        ({"architecture": "ViT-B-32", "config": CONFIG}, "invalid-request"),
    ],
    ids=["unknown", "impossible", "no-json", "no-object", "deep", "neither", "both"],
)
def test_an_architecture_that_is_none_is_refused_before_the_weights_are_received(empty, params, slug):
    body = empty.problem("PUT", "/v1/bases/tiny", params=params, content=unread())

    assert (body["status"], body["type"]) == (422, f"/problems/{slug}")


def unread():
    """A body that must not be asked for."""
    yield b""
    raise AssertionError("the body was read")


def test_weights_of_another_architecture_than_the_named_one_are_refused(empty, weights):
    body = empty.problem(
        "PUT", "/v1/bases/tiny", params={"architecture": "ViT-B-32"}, content=weights.read_bytes()
    )

    assert body["type"] == "/problems/incompatible-tensors"


@pytest.mark.parametrize("name", ["Tiny", "a b", "..", "a..b", "-a", "x" * 64, "%2e%2e%2fetc"])
def test_a_name_that_could_be_a_path_is_no_name(empty, weights, name):
    assert put(empty, name, content=weights.read_bytes()).status_code in {404, 422}
    assert empty.get("/v1/bases").json() == {"bases": []}


def test_a_base_sent_as_a_form_is_refused_with_the_way_to_send_it(empty, weights):
    body = empty.problem(
        "PUT", "/v1/bases/tiny", params={"config": CONFIG}, files={"file": weights.read_bytes()}
    )

    assert (body["status"], body["type"]) == (415, "/problems/unsupported-body")
    assert "curl -T" in body["detail"]


@pytest.mark.parametrize("digest", [base64.b64encode(bytes(32)).decode(), "abcde"], ids=["other", "none"])
def test_a_body_that_was_damaged_on_the_way_is_refused(empty, weights, digest):
    body = empty.problem(
        "PUT",
        "/v1/bases/tiny",
        params={"config": CONFIG},
        content=weights.read_bytes(),
        headers={"content-digest": f"sha-256=:{digest}:"},
    )

    assert (body["status"], body["type"]) == (422, "/problems/damaged-upload")


def test_a_base_that_a_model_is_on_stays(condu):
    assert condu.problem("DELETE", "/v1/bases/tiny")["type"] == "/problems/still-in-use"

    assert condu.get("/v1/bases/tiny").status_code == 200


def test_a_base_that_nothing_is_on_can_be_removed(condu):
    for model in ("animals", "fresh"):
        assert condu.delete(f"/v1/models/{model}").status_code == 200

    assert condu.delete("/v1/bases/tiny").json()["removed"] == "tiny"

    assert condu.problem("GET", "/v1/bases/tiny")["status"] == 404
    assert condu.problem("DELETE", "/v1/bases/tiny")["status"] == 404


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        ({"name": "b", "architecture": "ViT-B-32", "pretrained": "no-such-tag"}, "unknown-pretrained"),
        ({"name": "b", "architecture": "ViT-Z-99", "pretrained": "openai"}, "unknown-architecture"),
        ({"name": "b", "architecture": "ViT-B-32"}, "invalid-request"),
        ({"name": "b", "config": TINY_CONFIG, "pretrained": "openai"}, "invalid-request"),
        ({"name": "B", "architecture": "ViT-B-32", "pretrained": "openai"}, "invalid-name"),
    ],
    ids=["tag", "architecture", "no-tag", "config", "name"],
)
def test_published_weights_that_there_are_not_are_refused(empty, body, slug):
    assert empty.problem("POST", "/v1/bases", json=body)["type"] == f"/problems/{slug}"


@pytest.fixture
def publish(monkeypatch):
    """Lets open_clip know of an architecture `condu-tiny` whose weights `small` are published at a URL."""

    def at(url):
        published = {"small": {"url": url, "mean": (0.5, 0.5, 0.5)}}
        monkeypatch.setitem(vars(open_clip.factory)["_MODEL_CONFIGS"], "condu-tiny", TINY_CONFIG)
        monkeypatch.setitem(vars(open_clip.pretrained)["_PRETRAINED"], "condu-tiny", published)
        return {"name": "b", "architecture": "condu-tiny", "pretrained": "small"}

    return at


def test_published_weights_are_fetched_and_kept(empty, weights, publish):
    response = empty.post("/v1/bases", json=publish(weights.as_uri()))

    assert response.status_code == 201, response.text
    assert response.headers["location"] == "/v1/bases/b"
    base = empty.get("/v1/bases/b").json()
    assert (base["architecture"], base["preprocessing"]["mean"]) == ("condu-tiny", [0.5, 0.5, 0.5])
    assert base["digest"] == put(empty, content=weights.read_bytes()).json()["digest"]
    assert scratch_files(empty) == []


def test_published_weights_that_cannot_be_fetched_may_be_tried_again(empty, weights, publish):
    response = empty.post("/v1/bases", json=publish(f"{weights.as_uri()}.gone"))

    assert (response.status_code, response.json()["type"]) == (503, "/problems/pretrained-unavailable")
    assert response.headers["retry-after"]


def test_published_weights_are_not_fetched_for_a_name_that_is_taken(condu):
    body = condu.problem(
        "POST", "/v1/bases", json={"name": "tiny", "architecture": "ViT-B-32", "pretrained": "openai"}
    )

    assert (body["status"], body["type"]) == (409, "/problems/already-exists")
