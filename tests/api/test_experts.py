import hashlib

import pytest
import torch
from safetensors.torch import load
from starlette.testclient import TestClient

from tests.api.conftest import LOCAL, damage
from tests.installing import embedded_only
from tests.tiny_clip import tiny_tensors

URL = "/v1/models/animals/tasks/pets/checkpoint"


@pytest.fixture
def whole(learned):
    """The whole file and its headers."""
    response = learned.get(URL)
    assert response.status_code == 200
    return response


def test_a_downloaded_expert_has_the_base_s_names_shapes_and_dtypes(learned, whole):
    tensors = load(whole.content)

    base = tiny_tensors()
    assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {
        name: (t.shape, t.dtype) for name, t in base.items()
    }
    changed = [name for name, tensor in tensors.items() if not torch.equal(tensor, base[name])]
    assert "visual.proj" in changed
    assert "logit_scale" not in changed


def test_the_expert_of_the_first_revision_is_the_fine_tuned_checkpoint(learned, fine_tuned):
    response = learned.get(URL, params={"revision": 1})

    tensors, original = load(response.content), load(fine_tuned["pets"].read_bytes())
    for name, tensor in original.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=2e-7, atol=2e-7)
    assert response.headers["condu-revision"] == "1"


def test_a_download_says_how_long_it_is_which_version_and_under_which_name(learned, whole):
    task = learned.get("/v1/models/animals/tasks/pets").json()

    headers = whole.headers
    assert int(headers["content-length"]) == len(whole.content)
    assert headers["etag"] == f'"{task["expert_digest"]}"'
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-disposition"] == 'attachment; filename="animals-pets-r2.safetensors"'
    assert (headers["condu-revision"], headers["content-type"]) == ("2", "application/octet-stream")


def test_a_head_request_gives_the_headers_without_the_file(learned, whole):
    response = learned.head(URL)

    assert response.status_code == 200
    assert response.content == b""
    for name in ("etag", "content-length", "accept-ranges", "condu-revision"):
        assert response.headers[name] == whole.headers[name]


def test_any_range_is_that_part_of_the_whole(learned, whole):
    size = len(whole.content)
    ranges = {
        "bytes=0-0": (0, 1),
        "bytes=7-8": (7, 9),
        "bytes=1000003-1500001": (1_000_003, 1_500_002),
        f"bytes={size - 5}-": (size - 5, size),
        "bytes=-9": (size - 9, size),
        f"bytes=-{size + 100}": (0, size),
        f"bytes=10-{size + 100}": (10, size),
    }
    for header, (start, stop) in ranges.items():
        part = learned.get(URL, headers={"range": header})

        assert part.status_code == 206, header
        assert part.content == whole.content[start:stop], header
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert part.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize(
    "header", ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,5-9", "bytes=-", "bytes="]
)
def test_a_range_that_is_none_is_ignored(learned, header):
    response = learned.get(URL, headers={"range": header})

    assert response.status_code == 200
    assert len(response.content) == int(response.headers["content-length"])


@pytest.mark.parametrize("header", ["bytes=999999999999-", "bytes=-0"])
def test_a_range_beyond_the_end_cannot_be_had(learned, whole, header):
    response = learned.get(URL, headers={"range": header})

    assert response.status_code == 416
    assert response.json()["type"] == "/problems/unusable-range"
    assert response.headers["content-range"] == f"bytes */{len(whole.content)}"


def test_a_broken_download_goes_on_only_while_it_is_the_same_expert(learned, whole):
    etag = whole.headers["etag"]

    same = learned.get(URL, headers={"range": "bytes=100-", "if-range": etag})
    other = learned.get(URL, headers={"range": "bytes=100-", "if-range": '"another"'})
    weak = learned.get(URL, headers={"range": "bytes=100-", "if-range": f"W/{etag}"})

    assert (same.status_code, same.content) == (206, whole.content[100:])
    assert (other.status_code, weak.status_code) == (200, 200)
    assert other.content == whole.content


def test_a_client_that_has_the_expert_is_not_sent_it_again(learned, whole):
    etag = whole.headers["etag"]
    for known in (etag, f'"x", W/{etag}', "*"):
        response = learned.get(URL, headers={"if-none-match": known})

        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
    assert learned.get(URL, headers={"if-none-match": '"x"'}).status_code == 200


def test_a_new_revision_changes_the_etag_of_a_task_it_changed(condu, whole, learn_task):
    learn_task("animals", "food", classes=("rice", "soup"))

    assert condu.head(URL).headers["etag"] != whole.headers["etag"]
    old = condu.get(URL, params={"revision": 2})
    assert hashlib.sha256(old.content).digest() == hashlib.sha256(whole.content).digest()


@pytest.mark.parametrize(
    ("url", "slug"),
    [
        ("/v1/models/animals/tasks/food/checkpoint", "unknown-task"),
        ("/v1/models/animals/tasks/digits/checkpoint?revision=1", "unknown-task"),
        ("/v1/models/fresh/tasks/pets/checkpoint", "unknown-task"),
        ("/v1/models/animals/tasks/pets/checkpoint?revision=7", "not-found"),
        ("/v1/models/nobody/tasks/pets/checkpoint", "not-found"),
    ],
)
def test_an_expert_that_is_not_there_is_not_found(learned, url, slug):
    problem = learned.problem("GET", url)

    assert (problem["status"], problem["type"]) == (404, f"/problems/{slug}")


def test_a_client_that_leaves_in_the_middle_holds_nothing_in_memory(condu):
    with condu.stream("GET", URL) as response:
        pieces = response.iter_raw()
        next(pieces)
        assert condu.services.pool.stats().leased == 1

    assert condu.services.pool.stats().leased == 0


@embedded_only
def test_a_download_of_damaged_bytes_breaks_off_and_never_looks_whole(condu):
    damage(condu, mask_of(condu, "pets"))
    client = TestClient(condu.app, base_url=LOCAL, raise_server_exceptions=False)

    response = client.get(URL)

    assert len(response.content) < int(response.headers["content-length"])


def mask_of(condu, task):
    revision = condu.get("/v1/models/animals/revisions").json()["revisions"][0]
    return condu.services.store.manifest(revision["manifest"]).task(task).mask
