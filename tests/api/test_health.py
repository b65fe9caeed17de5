import shutil
from dataclasses import replace

from catalog.workers import register_worker
from tests.installing import embedded_only


def health(condu, status):
    response = condu.get("/v1/health")
    assert response.status_code == status
    assert response.headers["cache-control"] == "no-store"
    return response.json()


def states(body):
    return {name: part["status"] for name, part in body["parts"].items()}


def add_worker(condu, lease_s):
    with condu.services.catalog.transaction() as session:
        register_worker(session, f"worker-{lease_s}", device="cpu", lease_s=lease_s)


def test_an_installation_with_a_living_worker_is_well(condu):
    add_worker(condu, lease_s=60)

    body = health(condu, 200)

    assert body["status"] == "ok"
    assert states(body) == dict.fromkeys(("catalog", "disk", "device", "residents", "heads", "workers"), "ok")


def test_without_a_living_worker_it_is_degraded_but_answers(condu):
    add_worker(condu, lease_s=0)

    body = health(condu, 200)

    assert (body["status"], states(body)["workers"]) == ("degraded", "degraded")
    assert "condu worker" in body["parts"]["workers"]["detail"]


def head_manifest(condu):
    return condu.get("/v1/models/animals/revisions").json()["revisions"][0]["manifest"]


def test_a_head_that_misses_a_blob_is_named_and_the_only_one_fails_the_whole(condu):
    manifest = condu.services.store.manifest(head_manifest(condu))
    condu.services.store.blobs.delete(manifest.task("pets").mask)

    body = health(condu, 503)

    assert (body["status"], states(body)["heads"]) == ("failing", "failing")
    assert "animals" in body["parts"]["heads"]["detail"]


def test_one_broken_head_of_several_only_degrades(condu, learn_task):
    learn_task("fresh", "food", classes=("rice", "soup"))
    condu.services.store.blobs.delete(head_manifest(condu))

    body = health(condu, 200)

    assert states(body)["heads"] == "degraded"
    assert body["parts"]["heads"]["detail"].startswith("1 of 2 heads readable; not: animals")


@embedded_only
def test_a_lost_catalog_fails_the_whole(condu):
    condu.services.residents.close()  # it looks into the catalog each second, and would open it again
    condu.services.catalog.close()
    for file in condu.settings.data.glob("condu.sqlite*"):
        file.unlink()

    body = health(condu, 503)

    assert (body["status"], states(body)["catalog"]) == ("failing", "failing")


def test_a_disk_that_is_nearly_full_degrades_and_refuses_uploads(condu, weights):
    free_bytes = shutil.disk_usage(condu.settings.data).free
    full = replace(condu.services.uploads, keep_free_bytes=2 * free_bytes)
    condu.app.state.services = replace(condu.services, uploads=full)

    assert states(health(condu, 200))["disk"] == "degraded"
    problem = condu.problem("PUT", "/v1/datasets", content=b"x")
    assert (problem["status"], problem["type"]) == (507, "/problems/storage-full")


def test_the_whole_installation_is_counted(condu, dataset):
    add_worker(condu, lease_s=60)
    condu.post("/v1/models/animals/tasks", json={"name": "food", "dataset": dataset})
    condu.get("/v1/models/animals/tasks/pets/checkpoint")

    stats = condu.get("/v1/stats").json()

    counted = {name: stats[name] for name in ("bases", "models", "tasks", "revisions", "datasets")}
    assert counted == {"bases": 1, "models": 2, "tasks": 2, "revisions": 2, "datasets": 1}
    assert stats["jobs"] == {"queued": 1, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
    assert [worker["is_alive"] for worker in stats["workers"]] == [True]
    assert stats["blob_bytes"] >= sum(stats["blob_bytes_by_kind"].values()) > 0
    assert stats["expert_cache"]["misses"] >= 1
    assert stats["disk_free_bytes"] > 0
