"""A disk that is really full: a small file system of its own, filled to the brim."""

import shutil
import subprocess
from dataclasses import replace

import pytest

from api.app import create_app
from catalog import Settings
from tests.api.conftest import CONFIG, LOCAL, Installation, scratch_files
from tests.imagesets.building import two_classes, write_zip

MEBIBYTE = 2**20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S607 - where it is differs between systems


@pytest.fixture
def condu(small_disk, weights):
    """An installation on the small disk, with a base; it keeps no room free: the disk itself refuses."""
    with Installation(create_app(Settings(data=small_disk / "data")), base_url=LOCAL) as client:
        client.app.state.services = replace(
            client.services, uploads=replace(client.services.uploads, keep_free_bytes=0)
        )
        assert put(client, "tiny", weights).status_code == 201
        yield client


@pytest.fixture
def fill(small_disk):
    """Leaves so many bytes free; 40 MiB and more empties the disk again."""
    filler = small_disk / "filler"

    def leave(num_bytes):
        filler.unlink(missing_ok=True)
        free_bytes = shutil.disk_usage(small_disk).free
        with filler.open("wb") as file:
            file.write(bytes(max(free_bytes - num_bytes, 0)))

    return leave


def put(installation, name, weights):
    chunks = iter([weights.read_bytes()])  # no length is declared, so that nothing is refused beforehand
    return installation.put(f"/v1/bases/{name}", params={"config": CONFIG}, content=chunks)


def incoming(installation):
    return list((installation.settings.data / "blobs" / "incoming").iterdir())


@pytest.mark.parametrize(
    ("free_bytes", "slug"),
    [(2 * MEBIBYTE, "storage-full"), (9 * MEBIBYTE, "storage-unavailable")],
    ids=["while-receiving", "while-keeping"],
)
def test_an_upload_to_a_full_disk_is_refused_and_goes_through_once_there_is_room(
    condu, fill, weights, tmp_path, free_bytes, slug
):
    path = tmp_path / "other.zip"
    noise = {
        f"{label}/{n}.png": weights.read_bytes()[: 3 * MEBIBYTE] for n in (1,) for label in ("cat", "dog")
    }
    content = write_zip(path, two_classes(2) | noise).read_bytes()
    assert 5 * MEBIBYTE < len(content) < 7 * MEBIBYTE
    fill(free_bytes)

    problem = condu.problem("PUT", "/v1/datasets", content=iter([content]))

    assert (problem["status"], problem["type"]) == (507, f"/problems/{slug}")
    assert "condu sweep" in problem["remedy"]
    assert scratch_files(condu) == []
    assert incoming(condu) == []
    assert condu.get("/v1/bases/tiny").status_code == 200
    fill(40 * MEBIBYTE)
    assert condu.put("/v1/datasets", content=iter([content])).status_code == 201


def test_a_change_that_the_catalog_cannot_write_is_refused_and_goes_through_once_there_is_room(condu, fill):
    fill(0)

    problem = condu.problem("POST", "/v1/models", json={"name": "m", "base": "tiny"})

    assert problem["status"] in {503, 507}
    fill(40 * MEBIBYTE)
    assert condu.post("/v1/models", json={"name": "m", "base": "tiny"}).status_code == 201


@pytest.mark.parametrize(
    ("free_bytes", "slug"),
    [(5 * MEBIBYTE, "storage-full"), (18 * MEBIBYTE, "storage-unavailable")],
    ids=["while-receiving", "while-keeping"],
)
def test_a_bundle_on_a_full_disk_registers_nothing_and_goes_through_once_there_is_room(
    condu, fill, learned, *, free_bytes, slug
):
    bundle = learned.get("/v1/models/animals/bundle").content
    assert 12 * MEBIBYTE < len(bundle) < 14 * MEBIBYTE
    condu.delete("/v1/bases/tiny")
    condu.post("/v1/sweep", json={"delete": True, "grace_s": 0})
    fill(free_bytes)

    problem = condu.problem("POST", "/v1/bundles", content=iter([bundle]))

    assert (problem["status"], problem["type"]) == (507, f"/problems/{slug}")
    assert scratch_files(condu) == []
    assert incoming(condu) == []
    assert condu.get("/v1/models").json() == {"models": []}
    assert condu.get("/v1/bases").json() == {"bases": []}
    fill(40 * MEBIBYTE)
    assert condu.post("/v1/bundles", content=iter([bundle])).status_code == 201
    assert condu.get("/v1/models/animals").json()["tasks"] == ["pets", "digits"]
