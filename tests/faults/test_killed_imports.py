"""An api that is killed with -9 at every step of taking a bundle in: nothing is there, or all of it."""

import json
import os
import signal

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from catalog import Settings
from tests.api.conftest import fine_tuned, json_logs, learned, learned_folder, weights
from tests.faults.api_with_kill_points import AFTER_THE_COMMIT, POINTS, ApiNursery

__all__ = ["fine_tuned", "json_logs", "learned", "learned_folder", "weights"]


@pytest.fixture(scope="module")
def nursery():
    opened = ApiNursery()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, learned):
    path = tmp_path_factory.mktemp("bundle") / "animals.condu"
    path.write_bytes(learned.get("/v1/models/animals/bundle").content)
    return path


def looked_at(folder, look):
    """What `look` finds in an api that is started on the folder after the death of another."""
    with TestClient(create_app(Settings(data=folder)), base_url="http://localhost") as client:
        return look(client)


def names(client):
    return [[row["name"] for row in client.get(f"/v1/{kind}").json()[kind]] for kind in ("models", "bases")]


def last_line(response):
    return json.loads(response.text.splitlines()[-1])["report"]


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_import_registers_nothing_and_leaves_only_what_a_sweep_takes(
    tmp_path, nursery, bundle, *, point
):
    folder = tmp_path / "data"
    assert nursery.take_in(folder, bundle, point=POINTS[point]) == -signal.SIGKILL

    def look(client):
        found = names(client)
        for path in (folder / "blobs" / "incoming").iterdir():
            os.utime(path, (1, 1))  # what is being written is left alone while it may still grow
        swept = last_line(client.post("/v1/sweep", json={"delete": True, "grace_s": 0}))
        blobs = client.app.state.services.store.blobs
        return found, swept["bytes_freed"], list(blobs.list()), list((blobs.folder / "incoming").iterdir())

    found, bytes_freed, *left = looked_at(folder, look)
    assert found == [[], []]
    assert bytes_freed > 0
    assert left == [[], []]


@pytest.mark.parametrize("point", ["in the middle of a blob", "inside the transaction"])
def test_after_a_killed_import_the_next_one_goes_through(tmp_path, nursery, bundle, *, point):
    folder = tmp_path / "data"
    assert nursery.take_in(folder, bundle, point=POINTS[point]) == -signal.SIGKILL

    assert nursery.take_in(folder, bundle) == 0

    def look(client):
        return names(client), last_line(client.post("/v1/verify"))["ok"]

    assert looked_at(folder, look) == ([["animals"], ["tiny"]], True)


def test_an_import_that_was_killed_after_its_commit_is_all_there(tmp_path, nursery, bundle):
    folder = tmp_path / "data"
    assert nursery.take_in(folder, bundle, point=AFTER_THE_COMMIT) == -signal.SIGKILL

    def look(client):
        client.post("/v1/sweep", json={"delete": True, "grace_s": 0})
        return client.get("/v1/models/animals").json()["tasks"], last_line(client.post("/v1/verify"))["ok"]

    assert looked_at(folder, look) == (["pets", "digits"], True)
