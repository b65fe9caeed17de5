import json

import pytest

from api.maintenance import as_ndjson
from api.schemas.installation import ProgressLine, VerifyLine
from store.errors import BlobsUnavailableError
from tests.api.conftest import damage
from tests.installing import embedded_only


def lines(condu, what, **body):
    response = condu.post(f"/v1/{what}", json=body) if body else condu.post(f"/v1/{what}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def report(condu, what, **body):
    *progress, last = lines(condu, what, **body)
    assert all(set(line) == {"progress"} for line in progress)
    return last["report"]


def num_blobs(condu):
    return condu.get("/v1/stats").json()["blobs"]


def test_a_verification_of_a_sound_store_reads_every_byte(condu):
    *progress, last = lines(condu, "verify")

    assert last["report"]["ok"]
    assert last["report"]["problems"] == []
    assert last["report"]["verified_bytes"] == condu.get("/v1/stats").json()["blob_bytes"]
    totals = {line["progress"]["total_bytes"] for line in progress}
    assert totals == {last["report"]["verified_bytes"]}
    done = [line["progress"]["done_bytes"] for line in progress]
    assert done == sorted(done)


@embedded_only
def test_a_verification_names_the_blob_that_is_damaged(condu):
    head = condu.get("/v1/models/animals/revisions").json()["revisions"][0]["manifest"]
    mask = condu.services.store.manifest(head).task("pets").mask
    damage(condu, mask)

    found = report(condu, "verify")

    assert not found["ok"]
    assert any(mask in problem for problem in found["problems"])


@embedded_only
def test_a_verification_also_reads_uploads_and_revisions_behind_the_head(condu, dataset):
    first = condu.get("/v1/models/animals/revisions").json()["revisions"][1]["manifest"]
    mask = condu.services.store.manifest(first).task("pets").mask
    for digest in (dataset, mask):
        damage(condu, digest)

    problems = report(condu, "verify")["problems"]

    assert all(any(digest in problem for problem in problems) for digest in (dataset, mask))


def test_a_sweep_says_what_it_would_remove_and_removes_nothing(condu):
    before = num_blobs(condu)

    found = report(condu, "sweep", grace_s=0)

    assert not found["deleted"]
    assert found["num_removed"] == len(found["digests"]) > 0
    assert found["expired_revisions"] == ["animals@1"]
    assert found["bytes_freed"] > 0
    assert num_blobs(condu) == before
    assert condu.post("/v1/models/animals/rollback", json={"revision": 1}).status_code == 200


def test_a_sweep_removes_what_it_said_and_the_head_still_answers(condu):
    promised = report(condu, "sweep", grace_s=0)
    before = num_blobs(condu)

    found = report(condu, "sweep", delete=True, grace_s=0)

    assert {name: found[name] for name in ("digests", "bytes_freed", "expired_revisions")} == {
        name: promised[name] for name in ("digests", "bytes_freed", "expired_revisions")
    }
    assert num_blobs(condu) == before - found["num_removed"]
    assert report(condu, "verify")["ok"]
    assert condu.get("/v1/models/animals/tasks/pets/checkpoint").status_code == 200
    again = report(condu, "sweep", delete=True, grace_s=0)
    assert (again["num_removed"], again["bytes_freed"]) == (0, 0)


def test_a_swept_revision_cannot_be_used_any_more_and_says_so(condu):
    report(condu, "sweep", delete=True, grace_s=0)

    revisions = condu.get("/v1/models/animals/revisions").json()["revisions"]
    assert revisions[1]["expired_at"] is not None
    rollback = condu.problem("POST", "/v1/models/animals/rollback", json={})
    assert (rollback["status"], rollback["type"]) == (409, "/problems/no-rollback")
    download = condu.problem("GET", "/v1/models/animals/tasks/pets/checkpoint?revision=1")
    assert download["status"] == 404
    assert "expired" in download["detail"]


def test_a_sweep_keeps_as_many_revisions_as_it_is_told(condu):
    found = report(condu, "sweep", delete=True, keep_revisions=2, grace_s=0)

    assert found["expired_revisions"] == []
    assert condu.post("/v1/models/animals/rollback", json={"revision": 1}).status_code == 200


def test_a_sweep_without_a_body_only_looks_and_spares_what_is_young(condu):
    found = report(condu, "sweep")

    assert (found["deleted"], found["num_removed"]) == (False, 0)


def test_a_sweep_that_could_take_blobs_from_a_job_is_refused(condu, dataset):
    condu.post("/v1/models/animals/tasks", json={"name": "food", "dataset": dataset})

    problem = condu.problem("POST", "/v1/sweep", json={"delete": True, "grace_s": 0})

    assert (problem["status"], problem["type"]) == (409, "/problems/still-in-use")
    assert condu.post("/v1/sweep", json={"delete": True}).status_code == 200
    assert report(condu, "verify")["ok"]


def test_an_upload_that_nothing_needs_any_more_is_swept(condu, dataset):
    condu.delete(f"/v1/datasets/{dataset}")

    assert dataset in report(condu, "sweep", delete=True, grace_s=0)["digests"]
    assert not condu.services.store.blobs.contains(dataset)


@pytest.mark.parametrize("body", [{"keep_revisions": 0}, {"grace_s": -1}, {"dellete": True}])
def test_a_sweep_that_makes_no_sense_is_refused(condu, body):
    assert condu.problem("POST", "/v1/sweep", json=body)["type"] == "/problems/invalid-request"


def test_work_that_breaks_midway_ends_with_the_problem_as_its_last_line():
    def breaking():
        yield VerifyLine(progress=ProgressLine(done_bytes=1, total_bytes=2))
        raise BlobsUnavailableError("cannot read: disk on fire")

    first, last = [json.loads(line) for line in as_ndjson(breaking(), lambda body: VerifyLine(problem=body))]

    assert first == {"progress": {"done_bytes": 1, "total_bytes": 2}}
    assert last["problem"]["type"] == "/problems/storage-unavailable"
    assert "on fire" in last["problem"]["detail"]
