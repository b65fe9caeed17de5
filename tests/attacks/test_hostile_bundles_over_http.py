"""A hostile bundle that is sent to the service: refused by name, and nothing of it is registered."""

import base64
import json

import pytest

from tests.api.bundles import (
    NOTHING_IMPORTED,
    bundle,
    index_of,
    payloads_of,
    rebuilt,
    refusal,
    registered,
    send,
    sweep_all,
    with_facts,
)
from tests.api.conftest import CONFIG, empty, scratch_files
from tests.store.bundling import sha256

__all__ = ["bundle", "empty"]


@pytest.mark.parametrize(
    ("request_options", "slug"),
    [
        ({"files": {"file": b"x"}}, "unsupported-body"),
        (
            {
                "content": b"x",
                "headers": {"content-digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"},
            },
            "damaged-upload",
        ),
        ({"content": b"x"}, "invalid-bundle"),
        ({"content": b""}, "invalid-bundle"),
    ],
    ids=["a form", "damaged", "no bundle", "nothing"],
)
def test_a_body_that_is_no_bundle_is_refused(empty, request_options, slug):
    assert empty.problem("POST", "/v1/bundles", **request_options)["type"] == f"/problems/{slug}"
    assert scratch_files(empty) == []


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_bundle_with_a_flipped_bit_is_refused_and_nothing_of_it_is_registered(empty, bundle, share):
    damaged = bytearray(bundle)
    damaged[int(share * len(bundle))] ^= 4

    problem = refusal(empty, bytes(damaged))

    assert (problem["status"], problem["type"]) == (422, "/problems/invalid-bundle")
    assert registered(empty) == NOTHING_IMPORTED
    sweep_all(empty)
    assert list(empty.services.store.blobs.list()) == []
    assert send(empty, bundle)["name"] == "animals"


def first_task(**fields):
    return lambda facts: facts["tasks"][0].update(fields)


FACTS = {
    "no tasks": lambda facts: facts.pop("tasks"),
    "a task less": lambda facts: facts["tasks"].pop(),
    "tasks in another order": lambda facts: facts["tasks"].reverse(),
    "tasks of other names": first_task(name="cats"),
    "a task's name is a number": first_task(name=1),
    "an accuracy beyond all": first_task(accuracy_expert=101.0),
    "an accuracy that is a text": first_task(accuracy_expert="high"),
    "a count below zero": first_task(num_train=-1),
    "a count beyond all": first_task(bits_cleared=2**63),
    "a data set that is a path": first_task(dataset="../../x"),
    "a reference that is none": first_task(reference="hearsay"),
    "a training as long as a book": first_task(training={"notes": "x" * 200_000}),
    "another fusion": lambda facts: facts["model"].update(fusion="magic"),
    "another norm": lambda facts: facts["model"].update(rescaler_norm="tensor_mean_l1"),
    "another dtype": lambda facts: facts["model"].update(unified_dtype="bfloat16"),
    "another tuning": lambda facts: facts["model"].update(tuning="lora"),
    "a revision before the first": lambda facts: facts.update(revision=0),
    "no base": lambda facts: facts.pop("base"),
    "a field more": lambda facts: facts.update(more=1),
    "a field more of a task": first_task(path="/"),
}


@pytest.mark.parametrize("fault", FACTS)
def test_a_catalog_section_that_lies_is_refused(empty, bundle, fault):
    problem = refusal(empty, with_facts(bundle, FACTS[fault]))

    assert (problem["status"], problem["type"]) == (422, "/problems/invalid-bundle")
    assert registered(empty) == NOTHING_IMPORTED


BASE_FACTS = {
    "a config that cannot be built": ({"config": {"embed_dim": -1}}, "unknown-architecture"),
    "a preprocessing that is none": ({"preprocessing": {}}, "unknown-architecture"),
    "a preprocessing with odd values": ({"preprocessing": {"size": 7}}, "unknown-architecture"),
    "a name that is a path": ({"name": "../tiny"}, "invalid-name"),
    "another architecture": ({"config": json.loads(CONFIG) | {"embed_dim": 64}}, "invalid-bundle"),
}


@pytest.mark.parametrize("fault", BASE_FACTS)
def test_a_base_that_could_not_be_registered_is_refused(empty, bundle, fault):
    change, slug = BASE_FACTS[fault]

    problem = refusal(empty, with_facts(bundle, lambda facts: facts["base"].update(change)))

    assert (problem["status"], problem["type"]) == (422, f"/problems/{slug}")
    assert registered(empty) == NOTHING_IMPORTED


def test_a_preprocessing_of_another_size_than_the_tower_s_is_refused(empty, bundle):
    content = with_facts(bundle, lambda facts: facts["base"]["preprocessing"].update(size=[64, 64]))

    assert refusal(empty, content)["type"] == "/problems/unknown-architecture"


def test_a_model_s_name_that_could_be_a_path_is_refused(empty, bundle):
    content = with_facts(bundle, lambda facts: facts["model"].update(name="../../etc"))

    assert refusal(empty, content)["type"] == "/problems/invalid-name"
    assert send(empty, content, name="fine")["name"] == "fine"


def with_prototypes(content, learned, change):
    """The bundle with what `change` makes of the first task's prototypes and of its entry."""
    index, payloads = index_of(content)[0], payloads_of(content)
    digests = [digest for digest, _, _ in index["blobs"]]
    manifest = json.loads(payloads[digests.index(index["head"])])
    task = manifest["tasks"][0]
    position = digests.index(task["prototypes"])
    payloads[position] = change(payloads[position], task, manifest)
    task["prototypes"] = sha256(payloads[position])
    head = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    payloads[digests.index(index["head"])] = head
    return rebuilt(index | {"head": sha256(head)}, payloads)


PROTOTYPES = {
    "no prototypes": lambda content, task, manifest: b"hello",
    "other classes": lambda content, task, manifest: task.update(classes=["dog", "cat"]) or content,
    "a class twice": lambda content, task, manifest: task.update(classes=["cat", "cat"]) or content,
    "no classes": lambda content, task, manifest: task.update(classes=[]) or content,
    "a template without a place": lambda content, task, manifest: task.update(templates=["a"]) or content,
    "a set too large to read": lambda content, task, manifest: bytes(300),
}


@pytest.mark.parametrize("fault", PROTOTYPES)
def test_prototypes_that_do_not_fit_their_task_are_refused(empty, learned, bundle, monkeypatch, *, fault):
    monkeypatch.setattr("api.bundle_import.MAX_PROTOTYPE_BYTES", 1000 if "large" not in fault else 200)

    problem = refusal(empty, with_prototypes(bundle, learned, PROTOTYPES[fault]))

    assert (problem["status"], problem["type"]) == (422, "/problems/invalid-bundle"), problem
    assert registered(empty) == NOTHING_IMPORTED


def test_a_task_s_name_that_could_be_a_path_is_refused(empty, learned, bundle):
    content = with_prototypes(
        with_facts(bundle, first_task(name="../pets")),
        learned,
        lambda content, task, manifest: task.update(name="../pets") or content,
    )

    assert refusal(empty, content)["type"] == "/problems/invalid-name"
    assert registered(empty) == NOTHING_IMPORTED
