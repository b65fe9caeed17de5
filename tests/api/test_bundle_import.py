"""A model leaves one installation as a file and enters another, where it answers as it did."""

import json
from dataclasses import replace

import pytest

import api.bundle_import
from catalog import Catalog
from catalog.errors import CatalogUnavailableError
from store.safefile import write_safetensors
from tests.api.bundles import (
    NOTHING_IMPORTED,
    bundle,
    export,
    lean,
    put_base,
    refusal,
    registered,
    send,
    sweep_all,
    verified,
    with_facts,
)
from tests.api.conftest import CONFIG
from tests.api.learning import learn
from tests.tiny_clip import TINY_BATCHNORM_CONFIG, image_bytes, tiny_expert_tensors, tiny_image, tiny_tensors

__all__ = ["bundle", "lean"]

PICTURES = [image_bytes(tiny_image(seed)) for seed in range(3)]


def classify(installation, model="animals", **fields):
    files = [("images", (f"{number}.png", picture)) for number, picture in enumerate(PICTURES)]
    files += [(name, (None, value)) for name, value in fields.items()]
    response = installation.post(f"/v1/models/{model}/classify", files=files)
    assert response.status_code == 200, response.text
    return response.json()["results"]


def test_an_imported_model_answers_as_it_did_where_it_came_from(learned, empty, bundle):
    answer = send(empty, bundle)

    assert (answer["name"], answer["base"], answer["tasks"]) == ("animals", "tiny", ["pets", "digits"])
    assert (answer["head_revision"], answer["base_is_new"]) == (1, True)
    for fields in ({}, {"task": "pets"}, {"task": "digits"}, {"k": "1"}):
        assert classify(empty, **fields) == classify(learned, **fields)
    for task in ("pets", "digits"):
        url = f"/v1/models/animals/tasks/{task}/checkpoint"
        assert empty.get(url).content == learned.get(url).content


def test_an_imported_model_is_the_revision_that_was_exported(learned, empty, bundle):
    send(empty, bundle)

    here, there = (i.get("/v1/models/animals/revisions").json()["revisions"] for i in (empty, learned))
    assert (here[0]["manifest"], here[0]["cause"], here[0]["job"]) == (there[0]["manifest"], "bundle", None)
    assert (len(here), here[0]["parent"]) == (1, None)
    assert here[0]["tasks"] == there[0]["tasks"]
    assert empty.get("/v1/bases/tiny").json()["digest"] == learned.get("/v1/bases/tiny").json()["digest"]
    storages = [i.get("/v1/models/animals").json()["storage"] for i in (empty, learned)]
    assert storages[0] == storages[1]


def test_what_is_known_of_the_tasks_comes_along(learned, empty, bundle):
    send(empty, bundle)

    for task in ("pets", "digits"):
        here, there = (i.get(f"/v1/models/animals/tasks/{task}").json() for i in (empty, learned))
        assert here["revision_learned"] == 1
        assert [past["revision"] for past in here["fidelity"]["history"]] == [1]
        for each in (here, there):
            each["fidelity"].pop("history")
            for name in ("revision", "revision_learned"):
                each.pop(name)
        assert here == there
    base_here, base_there = (i.get("/v1/bases/tiny").json() for i in (empty, learned))
    assert {**base_here, "created_at": 0} == {**base_there, "created_at": 0}


def test_what_was_imported_is_sound_and_survives_a_sweep(empty, bundle):
    send(empty, bundle)

    assert sweep_all(empty)["num_removed"] == 0
    assert verified(empty) == verified(empty) | {"ok": True, "problems": []}
    assert empty.get("/v1/stats").status_code == 200


def test_an_imported_model_learns_on(empty, bundle, fine_tuned):
    send(empty, bundle)

    number = learn(empty.services, "animals", "food", classes=("rice", "soup"), checkpoint=fine_tuned["food"])

    assert number == 2
    assert empty.get("/v1/models/animals").json()["tasks"] == ["pets", "digits", "food"]
    assert verified(empty)["ok"]
    assert empty.delete("/v1/models/animals/tasks/pets").status_code == 200
    assert empty.post("/v1/models/animals/rollback", json={"revision": 1}).json()["tasks"] == [
        "pets",
        "digits",
    ]


def test_an_imported_model_can_be_exported_again_with_nothing_changed_but_its_number(empty, bundle):
    send(empty, bundle)

    def renumber(facts):
        facts["revision"] = 2

    assert with_facts(export(empty), renumber) == bundle


def test_a_model_that_has_learned_nothing_moves_too(learned, empty):
    answer = send(empty, export(learned, "fresh"))

    assert (answer["name"], answer["head_revision"], answer["tasks"]) == ("fresh", None, [])
    assert classify(empty, "fresh", labels="cat") == classify(learned, "fresh", labels="cat")


def test_a_model_that_has_lost_all_its_tasks_moves_too(condu, empty):
    for task in ("pets", "digits"):
        condu.delete(f"/v1/models/animals/tasks/{task}")

    answer = send(empty, export(condu))

    assert (answer["head_revision"], answer["tasks"]) == (1, [])
    assert classify(empty, labels="cat") == classify(condu, labels="cat")


def test_statistics_that_a_task_has_of_its_own_come_along(condu, empty, tmp_path):
    base = tiny_tensors(config=TINY_BATCHNORM_CONFIG)
    tuned = tiny_expert_tensors(base, 1)
    tuned |= {name: tensor + 0.1 for name, tensor in tuned.items() if name.endswith("running_mean")}
    for name, tensors in (("base", base), ("tuned", tuned)):
        write_safetensors(tmp_path / name, tensors)
    put_base(condu, "bn", content=(tmp_path / "base").read_bytes(), config=json.dumps(TINY_BATCHNORM_CONFIG))
    condu.post("/v1/models", json={"name": "birds", "base": "bn"})
    learn(condu.services, "birds", "wings", classes=("red", "blue"), checkpoint=tmp_path / "tuned")

    storage = send(empty, export(condu, "birds"))["storage"]

    assert storage["buffer_bytes"] > 0
    url = "/v1/models/birds/tasks/wings/checkpoint"
    assert empty.get(url).content == condu.get(url).content
    assert verified(empty)["ok"]


def test_without_its_base_a_bundle_needs_the_base_and_says_which(learned, empty, lean):
    digest = learned.get("/v1/bases/tiny").json()["digest"]

    problem = refusal(empty, lean)

    assert (problem["status"], problem["type"], problem["base"]) == (409, "/problems/missing-base", digest)
    assert digest in problem["detail"]
    assert "with its base" in problem["remedy"]
    assert registered(empty) == NOTHING_IMPORTED


def test_without_its_base_a_bundle_finds_it_under_whatever_name(learned, empty, lean, bundle, weights):
    put_base(empty, "mine", content=weights.read_bytes())

    answer = send(empty, lean)

    assert len(lean) < len(bundle) / 2
    assert (answer["base"], answer["base_is_new"]) == ("mine", False)
    assert classify(empty, task="pets") == classify(learned, task="pets")


def test_a_base_that_is_here_is_used_again_whatever_it_is_called(empty, bundle, weights):
    put_base(empty, "mine", content=weights.read_bytes())

    answer = send(empty, bundle, base="another")

    assert (answer["base"], answer["base_is_new"]) == ("mine", False)
    assert registered(empty)["bases"] == ["mine"]


def test_of_two_equal_bases_the_one_of_the_bundle_s_name_is_used(empty, bundle, weights):
    for name in ("mine", "tiny"):
        put_base(empty, name, content=weights.read_bytes())

    assert send(empty, bundle)["base"] == "tiny"


@pytest.mark.parametrize("with_base", [True, False])
def test_the_same_weights_fed_in_another_way_are_another_base(empty, bundle, lean, weights, *, with_base):
    config = json.loads(CONFIG) | {"preprocess_cfg": {"mean": [0.1, 0.1, 0.1]}}
    put_base(empty, "tiny", content=weights.read_bytes(), config=json.dumps(config))
    content = bundle if with_base else lean

    problem = refusal(empty, content)
    answer = send(empty, content, base="as-exported")

    assert (problem["status"], problem["type"]) == (409, "/problems/already-exists")
    assert "?base=" in problem["detail"]
    assert (answer["base"], answer["base_is_new"]) == ("as-exported", True)
    assert empty.get("/v1/bases/as-exported").json()["preprocessing"]["mean"] != [0.1, 0.1, 0.1]


def test_a_base_s_name_that_other_weights_bear_is_refused(empty, bundle, tmp_path):
    write_safetensors(tmp_path / "other.safetensors", tiny_tensors(seed=7))
    put_base(empty, "tiny", content=(tmp_path / "other.safetensors").read_bytes())

    assert refusal(empty, bundle)["type"] == "/problems/already-exists"
    assert registered(empty) == {"models": [], "bases": ["tiny"]}
    assert send(empty, bundle, base="tiny-2")["base"] == "tiny-2"


def test_a_model_s_name_that_is_taken_is_refused_with_the_way_out(condu, bundle):
    problem = refusal(condu, bundle)

    assert (problem["status"], problem["type"]) == (409, "/problems/already-exists")
    assert "--name" in problem["detail"]
    answer = send(condu, bundle, name="animals-2")
    assert (answer["name"], answer["base_is_new"]) == ("animals-2", False)
    assert classify(condu, "animals-2") == classify(condu)
    assert verified(condu)["ok"]


def unread():
    """A body that must not be asked for."""
    yield b""
    raise AssertionError("the body was read")


@pytest.mark.parametrize(
    ("name", "slug"), [("animals", "already-exists"), ("Animals", "invalid-name"), ("..", "invalid-name")]
)
def test_a_name_that_cannot_be_given_is_refused_before_the_bundle_is_received(condu, name, slug):
    assert refusal(condu, unread(), name=name)["type"] == f"/problems/{slug}"


def test_a_base_cannot_be_given_a_name_that_is_none(empty, bundle):
    assert refusal(empty, bundle, base="../tiny")["type"] == "/problems/invalid-name"
    assert registered(empty) == NOTHING_IMPORTED


class UnwritableCatalog(Catalog):
    """A catalog that can be read."""

    def transaction(self):
        raise CatalogUnavailableError("the disk is full")


def test_a_catalog_that_cannot_be_written_registers_nothing_and_does_so_later(empty, bundle):
    services = empty.services
    catalog = UnwritableCatalog(services.settings)
    empty.app.state.services = replace(services, catalog=catalog)

    assert refusal(empty, bundle)["type"] == "/problems/catalog-unavailable"

    empty.app.state.services = services
    catalog.close()
    assert registered(empty) == NOTHING_IMPORTED
    assert send(empty, bundle)["name"] == "animals"


def test_a_model_that_was_registered_meanwhile_keeps_its_name(empty, bundle, monkeypatch):
    """Another import was faster: what this one wrote is not registered over it."""
    real = api.bundle_import.import_bundle

    def overtaken(*arguments, **options):
        imported = real(*arguments, **options)
        monkeypatch.undo()
        send(empty, bundle)
        return imported

    monkeypatch.setattr(api.bundle_import, "import_bundle", overtaken)

    assert refusal(empty, bundle)["type"] == "/problems/already-exists"
    assert registered(empty) == {"models": ["animals"], "bases": ["tiny"]}
    assert verified(empty)["ok"]
