"""A model that learns adapters: made, taught, asked, downloaded in both forms, moved, verified and swept."""

import json

import pytest
import torch
from safetensors.torch import load, save_file

from store.strict_json import canonical_json
from tests.api.adapters import RANK, SEED, create, learn_adapters, trained_adapter
from tests.api.bundles import (
    export,
    index_of,
    payloads_of,
    put_base,
    rebuilt,
    refusal,
    send,
    sweep_all,
    verified,
    with_facts,
)
from tests.store.bundling import sha256
from tests.tiny_clip import image_bytes, tiny_image, tiny_tensors

PICTURES = [image_bytes(tiny_image(seed)) for seed in range(3)]


@pytest.fixture
def zoo(condu, tmp_path):
    """The installation, with a model `zoo` of two tasks; their adapters are in `files`."""
    condu.files = learn_adapters(condu, tmp_path)
    return condu


def classify(installation, **fields):
    files = [("images", (f"{number}.png", picture)) for number, picture in enumerate(PICTURES)]
    files += [(name, (None, value)) for name, value in fields.items()]
    response = installation.post("/v1/models/zoo/classify", files=files)
    assert response.status_code == 200, response.text
    return response.json()["results"]


def checkpoint(installation, task, **params):
    response = installation.get(f"/v1/models/zoo/tasks/{task}/checkpoint", params=params)
    assert response.status_code == 200, response.text
    return response


def test_a_new_model_says_what_its_adapters_start_from(condu):
    made, again, other = create(condu), create(condu, "twin"), create(condu, "other", lora_seed=8)
    assert (made["tuning"], made["lora_rank"], made["lora_seed"]) == ("lora", RANK, SEED)
    assert made["adapter"] == again["adapter"] != other["adapter"]
    storage = made["storage"]
    assert storage["total_bytes"] == storage["base_bytes"] + storage["adapter_bytes"]
    assert 0 < storage["adapter_bytes"] == storage["full_checkpoint_bytes"] < storage["base_bytes"]
    assert condu.get("/v1/stats").json()["blob_bytes_by_kind"]["adapter"] == 2 * storage["adapter_bytes"]


def test_rank_and_seed_are_64_and_0_unless_they_are_given(condu):
    made = create(condu, lora_rank=None, lora_seed=None)
    assert (made["lora_rank"], made["lora_seed"]) == (64, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tuning": "full"}, "lora_rank is given, but tuning is full"),
        ({"tuning": "full", "lora_rank": None}, "lora_seed is given, but tuning is full"),
        ({"lora_rank": 0}, "lora_rank"),
        ({"lora_seed": -1}, "lora_seed"),
    ],
)
def test_what_makes_no_adapter_is_refused(condu, change, says):
    body = {"name": "zoo", "base": "tiny", "tuning": "lora", "lora_rank": 4, "lora_seed": 0} | change
    assert says in json.dumps(condu.problem("POST", "/v1/models", json=body))


def test_a_name_that_is_taken_or_a_base_that_is_not_there_is_told_as_ever(condu):
    body = {"name": "animals", "base": "tiny", "tuning": "lora"}
    assert condu.problem("POST", "/v1/models", json=body)["status"] == 409
    assert condu.problem("POST", "/v1/models", json=body | {"name": "zoo", "base": "none"})["status"] == 404


def test_what_adapters_start_from_can_be_downloaded_whole_and_in_part(condu):
    create(condu)
    url = "/v1/models/zoo/adapter"
    whole = condu.get(url)
    start = load(whole.content)
    assert all(not factor.any() for name, factor in start.items() if name.endswith("lora_B.weight"))
    assert all(factor.any() for name, factor in start.items() if name.endswith("lora_A.weight"))
    assert whole.headers["content-disposition"] == 'attachment; filename="zoo-adapter.safetensors"'
    assert condu.get(url, headers={"Range": "bytes=100-299"}).content == whole.content[100:300]
    assert condu.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert condu.head(url).headers["content-length"] == str(len(whole.content))


def test_a_model_tuned_in_full_has_no_adapters(condu):
    assert "tuned in full" in condu.problem("GET", "/v1/models/animals/adapter")["detail"]
    problem = condu.problem("GET", "/v1/models/animals/tasks/pets/checkpoint", params={"form": "adapter"})
    assert problem["status"] == 422
    assert "form=checkpoint" in problem["detail"] + problem["remedy"]


def test_an_expert_downloads_as_a_plain_checkpoint_with_its_adapter_merged(zoo):
    merged = load(checkpoint(zoo, "pets", revision=1).content)
    base, factors = tiny_tensors(), load(zoo.files["pets"].read_bytes())
    assert {name: (t.shape, t.dtype) for name, t in merged.items()} == {
        name: (t.shape, t.dtype) for name, t in base.items()
    }
    adapted = [name.removesuffix(".lora_A.weight") for name in factors if name.endswith("lora_A.weight")]
    for name, tensor in base.items():
        layer = name.removesuffix(".weight")
        if layer in adapted:
            down, up = factors[f"{layer}.lora_A.weight"], factors[f"{layer}.lora_B.weight"]
            torch.testing.assert_close(merged[name], tensor + up @ down / RANK**0.5, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(merged[name], tensor)


def test_the_adapter_itself_downloads_too(zoo):
    found = load(checkpoint(zoo, "pets", form="adapter", revision=1).content)
    for name, factor in load(zoo.files["pets"].read_bytes()).items():
        torch.testing.assert_close(found[name], factor, rtol=1e-6, atol=1e-6)
    response = checkpoint(zoo, "pets", form="adapter")
    assert response.headers["content-disposition"] == 'attachment; filename="zoo-pets-r2-adapter.safetensors"'


def test_the_two_forms_have_tags_of_their_own_and_go_on_where_they_broke_off(zoo):
    url = "/v1/models/zoo/tasks/pets/checkpoint"
    tags = set()
    for form in ("checkpoint", "adapter"):
        whole = checkpoint(zoo, "pets", form=form)
        tags.add(whole.headers["etag"])
        for start, stop in ((0, 10), (1000, 70_001), (len(whole.content) - 5000, len(whole.content))):
            part = zoo.get(url, params={"form": form}, headers={"Range": f"bytes={start}-{stop - 1}"})
            assert part.content == whole.content[start:stop]
        unchanged = zoo.get(url, params={"form": form}, headers={"If-None-Match": whole.headers["etag"]})
        assert unchanged.status_code == 304
    assert len(tags) == 2
    assert checkpoint(zoo, "pets").headers["etag"] != checkpoint(zoo, "pets", revision=1).headers["etag"]


def test_it_answers_as_the_downloaded_checkpoint_does(zoo):
    merged = load(checkpoint(zoo, "pets").content)
    with zoo.services.pool.lease(*pinned(zoo), "pets") as expert:
        for name, tensor in expert.model.state_dict().items():
            torch.testing.assert_close(merged[name], tensor, rtol=1e-6, atol=1e-6)
    answers = classify(zoo, task="pets")
    assert [answer["experts"][0]["task"] for answer in answers] == ["pets"] * 3
    assert {found["label"] for found in answers[0]["predictions"]} == {"cat", "dog"}
    assert classify(zoo)


def pinned(installation):
    found = installation.services.heads.pin("zoo")
    return found.ref, found.manifest


def test_storage_counts_the_base_the_start_the_unified_delta_and_each_task(zoo):
    storage = zoo.get("/v1/models/zoo").json()["storage"]
    parts = storage["base_bytes"] + storage["adapter_bytes"] + storage["unified_bytes"]
    parts += sum(storage["trigger_bytes"].values()) + storage["prototype_bytes"]
    assert 0 < storage["total_bytes"] - parts < 5000
    assert max(storage["trigger_bytes"].values()) < storage["adapter_bytes"] / 16


def test_a_task_s_page_tells_of_masks_over_the_adapters_alone(zoo):
    page = zoo.get("/v1/models/zoo/tasks/pets").json()
    assert 0 < page["density"] < 1
    assert page["expert_digest"] == checkpoint(zoo, "pets", form="adapter").headers["etag"].strip('"')
    assert zoo.get("/v1/models/zoo/overlap").status_code == 200
    assert zoo.get("/v1/health").json()["parts"]["heads"]["status"] == "ok"


def test_a_sweep_spares_it_and_verify_finds_it_sound(zoo):
    before = checkpoint(zoo, "pets").content
    create(zoo, "untaught", lora_rank=2)
    sweep_all(zoo)
    assert verified(zoo)["ok"]
    assert checkpoint(zoo, "pets").content == before
    assert zoo.get("/v1/models/untaught/adapter").status_code == 200


def test_removed_it_leaves_nothing_behind(zoo):
    before = {blob.digest for blob in zoo.services.store.blobs.list()}
    start = zoo.get("/v1/models/zoo").json()["adapter"]
    assert start in before
    assert zoo.delete("/v1/models/zoo").status_code == 200
    sweep_all(zoo)
    assert start not in {blob.digest for blob in zoo.services.store.blobs.list()}
    assert "adapter" not in zoo.get("/v1/stats").json()["blob_bytes_by_kind"]
    assert zoo.get("/v1/models/animals/tasks/pets/checkpoint").status_code == 200


@pytest.mark.parametrize("with_base", [True, False])
def test_it_moves_to_another_installation_and_answers_as_it_did(zoo, empty, weights, with_base):
    if not with_base:
        put_base(empty, "plain", content=weights.read_bytes())
    made = send(empty, export(zoo, "zoo", without_base=not with_base))
    here = zoo.get("/v1/models/zoo").json()
    for property_name in ("tuning", "adapter", "lora_rank", "lora_seed", "tasks"):
        assert made[property_name] == here[property_name]
    for fields in ({}, {"task": "pets"}, {"task": "digits"}):
        assert classify(empty, **fields) == classify(zoo, **fields)
    sweep_all(empty)
    assert verified(empty)["ok"]
    for form in ("checkpoint", "adapter"):
        assert checkpoint(empty, "pets", form=form).content == checkpoint(zoo, "pets", form=form).content


def test_one_that_has_learned_nothing_moves_too(condu, empty):
    start = create(condu)["adapter"]
    assert send(empty, export(condu, "zoo"))["adapter"] == start
    sweep_all(empty)
    assert empty.get("/v1/models/zoo/adapter").content == condu.get("/v1/models/zoo/adapter").content


def test_a_bundle_that_contradicts_itself_about_adapters_is_refused(zoo, empty):
    bundle = export(zoo, "zoo")

    def lie(facts):
        facts["model"]["tuning"] = "full"

    assert "differ in what the model tunes" in refusal(empty, with_facts(bundle, lie))["detail"]


def test_a_bundle_whose_adapters_follow_an_unknown_rule_asks_for_an_upgrade(condu, empty):
    create(condu)
    bundle = export(condu, "zoo")
    index, _ = index_of(bundle)
    payloads = payloads_of(bundle)
    place = [digest for digest, _, _ in index["blobs"]].index(index["adapter"])
    document = json.loads(payloads[place])
    document["extends"]["scale"] = "alpha/rank"
    payloads[place] = canonical_json(document)
    index["adapter"] = sha256(payloads[place])
    detail = refusal(empty, rebuilt(index, payloads))["detail"]
    assert "'alpha/rank'" in detail
    assert "upgrade condu" in detail


def test_an_adapter_is_taken_in_as_a_task(zoo, tmp_path):
    path = trained_adapter(zoo, tmp_path / "food.safetensors", seed=9)
    url = "/v1/models/zoo/tasks/food/checkpoint"
    ticket = zoo.put(url, params={"class": ["pizza", "soup"]}, content=path.read_bytes())
    assert ticket.status_code == 202, ticket.text


def test_a_whole_checkpoint_is_no_adapter_and_the_other_way_round(zoo, fine_tuned, tmp_path):
    params = {"class": ["pizza", "soup"]}
    whole, adapter = fine_tuned["food"].read_bytes(), zoo.files["pets"].read_bytes()
    for model, content in (("zoo", whole), ("animals", adapter)):
        problem = zoo.problem(
            "PUT", f"/v1/models/{model}/tasks/food/checkpoint", params=params, content=content
        )
        assert problem["status"] == 422
        assert "takes an adapter's file" in json.dumps(problem)
    save_file({name: factor[..., :-1].contiguous() for name, factor in load(adapter).items()}, tmp_path / "x")
    problem = zoo.problem(
        "PUT", "/v1/models/zoo/tasks/food/checkpoint", params=params, content=(tmp_path / "x").read_bytes()
    )
    assert "lora" in problem["tensor"]
