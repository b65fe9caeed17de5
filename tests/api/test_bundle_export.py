"""A whole model is one download: with a length, a version and ranges, and never damaged unnoticed."""

import pytest
from starlette.testclient import TestClient

from tests.api.bundles import bundle, export, send
from tests.api.conftest import LOCAL, damage
from tests.installing import embedded_only

__all__ = ["bundle"]

URL = "/v1/models/animals/bundle"


def test_an_earlier_revision_can_be_exported(learned, empty):
    answer = send(empty, export(learned, revision=1))

    assert answer["tasks"] == ["pets"]
    revisions = learned.get("/v1/models/animals/revisions").json()["revisions"]
    assert (
        empty.get("/v1/models/animals/revisions").json()["revisions"][0]["manifest"]
        == revisions[1]["manifest"]
    )


def test_a_bundle_says_how_long_it_is_which_version_and_under_which_name(learned, empty, bundle):
    response = learned.head(URL)

    headers = response.headers
    assert (response.status_code, response.content) == (200, b"")
    assert int(headers["content-length"]) == len(bundle)
    assert headers["content-disposition"] == 'attachment; filename="animals-r2.condu"'
    assert (headers["condu-revision"], headers["accept-ranges"]) == ("2", "bytes")
    assert headers["etag"] == f'"{send(empty, bundle)["bundle"]}"'


def test_a_broken_download_goes_on_where_it_stopped(learned, bundle):
    etag = learned.head(URL).headers["etag"]
    stop = len(bundle) // 3

    first = learned.get(URL, headers={"range": f"bytes=0-{stop - 1}"})
    rest = learned.get(URL, headers={"range": f"bytes={stop}-", "if-range": etag})

    assert (first.status_code, rest.status_code) == (206, 206)
    assert rest.headers["content-range"] == f"bytes {stop}-{len(bundle) - 1}/{len(bundle)}"
    assert first.content + rest.content == bundle


def test_a_download_of_another_version_starts_anew(learned, bundle):
    response = learned.get(URL, headers={"range": "bytes=100-", "if-range": '"another"'})

    assert (response.status_code, response.content) == (200, bundle)


def test_a_client_that_has_the_bundle_is_told_so(learned):
    etag = learned.head(URL).headers["etag"]

    assert learned.get(URL, headers={"if-none-match": etag}).status_code == 304


def test_a_range_beyond_the_end_is_refused(learned, bundle):
    problem = learned.problem("GET", URL, headers={"range": f"bytes={len(bundle)}-"})

    assert (problem["status"], problem["type"]) == (416, "/problems/unusable-range")


@pytest.mark.parametrize("url", ["/v1/models/nobody/bundle", f"{URL}?revision=7"])
def test_a_model_or_revision_that_is_not_there_cannot_be_exported(learned, url):
    assert learned.problem("GET", url)["type"] == "/problems/not-found"


@embedded_only
def test_an_export_of_damaged_bytes_breaks_off_and_never_looks_whole(condu):
    head = condu.get("/v1/models/animals/revisions").json()["revisions"][0]["manifest"]
    damage(condu, condu.services.store.manifest(head).unified)
    client = TestClient(condu.app, base_url=LOCAL, raise_server_exceptions=False)

    response = client.get(URL)

    assert len(response.content) < int(response.headers["content-length"])
