import hashlib

import pytest

from tests.api.conftest import scratch_files
from tests.imagesets.building import image_bytes, two_classes, write_tar, write_zip


def test_an_uploaded_archive_is_named_by_its_content_and_looked_through(empty, tmp_path):
    content = write_zip(tmp_path / "pets.zip", two_classes(3)).read_bytes()

    response = empty.put("/v1/datasets", content=content)

    assert response.status_code == 201
    dataset = response.json()
    assert dataset["digest"] == hashlib.sha256(content).hexdigest()
    assert (dataset["classes"], dataset["images"]) == (["cat", "sea otter"], 6)
    assert (dataset["format"], dataset["has_split"]) == ("zip", False)
    assert response.headers["location"] == f"/v1/datasets/{dataset['digest']}"
    shown = empty.get(response.headers["location"]).json()
    assert (shown["images"], shown["released_at"]) == (6, None)
    assert empty.get("/v1/datasets").json() == {"datasets": [shown]}
    assert scratch_files(empty) == []


def test_an_archive_uploaded_twice_is_kept_once(empty, tmp_path):
    content = write_tar(tmp_path / "pets.tar", two_classes(2)).read_bytes()

    digests = {empty.put("/v1/datasets", content=content).json()["digest"] for _ in range(2)}

    assert len(digests) == 1
    assert empty.get("/v1/stats").json()["blobs"] == 1


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({}, "image"),
        ({"cat/0.png": image_bytes()}, "class"),
        ({"cat/readme.txt": b"x", "dog/readme.txt": b"x"}, "image"),
        (
            {
                "classes.txt": b"cat\ndog\n",
                "labels.csv": b"path,label\n0.png,cat\nmissing.png,dog\n",
                "0.png": image_bytes(),
            },
            "missing.png",
        ),
    ],
    ids=["empty", "one-class", "no-images", "csv-names-a-missing-file"],
)
def test_an_archive_that_nothing_can_be_learned_from_is_refused(empty, tmp_path, members, word):
    content = write_zip(tmp_path / "pets.zip", members).read_bytes()

    body = empty.problem("PUT", "/v1/datasets", content=content)

    assert (body["status"], body["type"]) == (422, "/problems/invalid-archive")
    assert word in body["detail"]
    assert empty.get("/v1/stats").json()["blobs"] == 0
    assert scratch_files(empty) == []


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_archive_is_refused(empty, content):
    assert empty.problem("PUT", "/v1/datasets", content=content)["type"] == "/problems/invalid-archive"


def test_a_data_set_can_be_removed_unless_a_job_needs_it(condu, dataset):
    job = condu.post("/v1/models/animals/tasks", json={"name": "food", "dataset": dataset}).json()["job"]
    assert condu.problem("DELETE", f"/v1/datasets/{dataset}")["type"] == "/problems/still-in-use"

    condu.post(f"/v1/jobs/{job['id']}/cancel")

    assert condu.delete(f"/v1/datasets/{dataset}").json()["removed"] == dataset
    assert condu.problem("GET", f"/v1/datasets/{dataset}")["status"] == 404
