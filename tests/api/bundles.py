"""Bundles over HTTP: fetches and sends them, and puts them together anew with something changed in them."""

import json

import pytest

from tests.api.conftest import CONFIG
from tests.store.bundling import bundle_of

NOTHING_IMPORTED = {"models": [], "bases": []}


@pytest.fixture(scope="session")
def bundle(learned):
    return export(learned)


@pytest.fixture(scope="session")
def lean(learned):
    return export(learned, without_base=True)


def put_base(installation, name, *, content, config=CONFIG):
    response = installation.put(f"/v1/bases/{name}", params={"config": config}, content=content)
    assert response.status_code == 201, response.text
    return response.json()


def send(installation, content, **params):
    response = installation.post("/v1/bundles", params=params, content=content)
    assert response.status_code == 201, response.text
    return response.json()


def refusal(installation, content, **params):
    return installation.problem("POST", "/v1/bundles", params=params, content=content)


def registered(installation):
    return {
        "models": [model["name"] for model in installation.get("/v1/models").json()["models"]],
        "bases": [base["name"] for base in installation.get("/v1/bases").json()["bases"]],
    }


def sweep_all(installation):
    body = {"delete": True, "grace_s": 0}
    return json.loads(installation.post("/v1/sweep", json=body).text.splitlines()[-1])["report"]


def verified(installation):
    return json.loads(installation.post("/v1/verify").text.splitlines()[-1])["report"]


def export(installation, model="animals", **params):
    """The bytes of a model's bundle."""
    response = installation.get(f"/v1/models/{model}/bundle", params=params)
    assert response.status_code == 200, response.text
    return response.content


def index_of(content):
    """The index of a bundle, and where it begins."""
    size = int.from_bytes(content[-24:-16], "little")
    start = len(content) - 24 - size
    return json.loads(content[start:-24]), start


def payloads_of(content):
    return [content[position : position + length] for _, position, length in index_of(content)[0]["blobs"]]


def with_facts(content, change):
    """The bundle with another catalog section, framed as it should be."""
    index, _ = index_of(content)
    change(index["catalog"])
    return rebuilt(index, payloads_of(content))


def rebuilt(index, payloads):
    return bundle_of(
        payloads,
        base=index["base"],
        head=index["head"],
        has_base=index["has_base"],
        catalog=index["catalog"],
        change=lambda made: made.update({"adapter": index["adapter"]} if "adapter" in index else {}),
    )
