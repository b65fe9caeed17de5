"""What supervisors, load balancers and Prometheus are told of a service that is well, busy or stopping."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url

from api.app import create_app
from tests.api.conftest import LOCAL, Installation
from tests.api.test_classify import ask
from tests.installing import settings_at
from tests.tiny_clip import image_bytes, tiny_image

IMAGE = image_bytes(tiny_image(1))


@pytest.fixture
def narrow(data_folder):
    """An installation in which one image may wait, and a device may be silent for half a second."""
    settings = settings_at(data_folder, max_queue=1, hang_timeout_s=0.5)
    with Installation(create_app(settings), base_url=LOCAL) as client:
        yield client


@contextmanager
def held_device(installation):
    """While the context lasts, the device does not come back from an image that the expert of pets sees."""
    reached, opened = threading.Event(), threading.Event()
    pinned = installation.services.heads.pin("animals")

    def wait(module, inputs):
        reached.set()
        opened.wait(60)

    with installation.services.pool.lease(pinned.ref, pinned.manifest, "pets") as expert:
        hook = expert.model.get_submodule("visual").register_forward_pre_hook(wait)
        try:
            yield reached
        finally:
            hook.remove()
            opened.set()


def told(installation, which):
    response = installation.get(f"/v1/health/{which}")
    assert response.headers["cache-control"] == "no-store"
    return response.status_code, response.json()["detail"]


def wait_until(is_so):
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def samples(installation, name):
    """The metric's labels and values."""
    families = text_string_to_metric_families(installation.get("/metrics").text)
    return [(each.labels, each.value) for family in families for each in family.samples if each.name == name]


def test_a_service_that_is_well_is_live_and_ready_and_asks_nobody_to_tell_so(condu):
    wait_until(lambda: condu.services.residents.status().readable == 2)
    condu.services.residents.close()
    statements = []

    def note(connection, cursor, statement, *rest):
        # Other installations of this process look at their own heads every second.
        if connection.engine.url.database == make_url(condu.settings.catalog_url).database:
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        live, ready = told(condu, "live"), told(condu, "ready")
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert (live[0], ready[0]) == (200, 200)
    assert "2 heads readable" in ready[1]
    assert not [each for each in statements if "model" in each]


def test_a_full_queue_is_not_ready_but_live_and_refuses_at_once(data_folder):
    settings = settings_at(data_folder, max_queue=1)
    with (
        Installation(create_app(settings), base_url=LOCAL) as condu,
        ThreadPoolExecutor() as callers,
        held_device(condu) as reached,
    ):
        waiting = callers.submit(ask, condu, [IMAGE], task="pets")
        assert reached.wait(60)

        assert told(condu, "ready")[0] == 503
        assert told(condu, "live")[0] == 200
        assert condu.get("/v1/health").json()["parts"]["device"]["status"] == "degraded"
        refused = ask(condu, [IMAGE], task="digits")

        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert samples(condu, "condu_queue_images") == [({}, 1)]
    assert waiting.result().status_code == 200


def test_a_device_that_hangs_is_given_up_and_another_thread_answers(narrow):
    with ThreadPoolExecutor() as callers, held_device(narrow) as reached:
        stuck = callers.submit(ask, narrow, [IMAGE], task="pets")
        assert reached.wait(60)
        answer = stuck.result(60)

        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/device-stuck")
        assert ask(narrow, [IMAGE], task="digits").status_code == 200
        assert (told(narrow, "live")[0], told(narrow, "ready")[0]) == (200, 200)
    device = narrow.get("/v1/health").json()["parts"]["device"]
    assert device["status"] == "degraded"
    assert "started anew 1 times" in device["detail"]
    assert samples(narrow, "condu_device_restarts_total") == [({}, 1)]
    assert ({"reason": "stuck"}, 1) in samples(narrow, "condu_dropped_total")


def test_a_service_that_stops_is_not_ready_any_more(condu):
    assert told(condu, "ready")[0] == 200
    condu.app.state.stopping.set()

    assert told(condu, "ready") == (503, "the service is stopping")
    assert told(condu, "live")[0] == 200


def test_a_service_of_which_no_head_can_be_read_is_not_ready(data_folder):
    with Installation(create_app(settings_at(data_folder)), base_url=LOCAL) as condu:
        head = condu.get("/v1/models/animals/revisions").json()["revisions"][0]["manifest"]
        condu.delete("/v1/models/fresh")
        condu.services.store.blobs.delete(head)
    with Installation(create_app(settings_at(data_folder)), base_url=LOCAL) as condu:
        wait_until(lambda: told(condu, "ready")[0] == 503)

        assert "animals" in told(condu, "ready")[1]
        assert told(condu, "live")[0] == 200


def test_requests_are_counted_by_model_task_and_outcome_and_made_up_names_are_not(condu):
    ask(condu, [IMAGE], task="pets")
    ask(condu, [IMAGE], k=1)
    for number in range(3):
        ask(condu, [IMAGE], task=f"task-{number}")
        ask(condu, [IMAGE], url=f"/v1/models/model-{number}/classify")

    counted = samples(condu, "condu_requests_total")

    assert sorted((each["model"], each["task"], each["outcome"], number) for each, number in counted) == [
        ("", "", "not-found", 3),
        ("", "", "unknown-task", 3),
        ("animals", "", "answered", 1),
        ("animals", "pets", "answered", 1),
    ]
    assert samples(condu, "condu_request_seconds_count") == [({}, 8)]
    assert samples(condu, "condu_models") == [({}, 2)]
    assert samples(condu, "condu_tasks") == [({}, 2)]


def test_the_second_request_of_a_label_set_needs_no_text_tower(condu):
    def text_batches():
        return sum(
            value
            for labels, value in samples(condu, "condu_forward_seconds_count")
            if labels["kind"] == "text"
        )

    ask(condu, [IMAGE], task="pets", labels=["lion", "tiger"])
    first = text_batches()
    ask(condu, [IMAGE], task="pets", labels=["lion", "tiger"])

    assert text_batches() == first >= 1
