"""The real server in a process of its own, interrupted while its device is busy."""

import http.client
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.api.test_classify import URL
from tests.api.test_serving import PROGRAM, started
from tests.tiny_clip import image_bytes, tiny_image

PROGRAM_WITH_A_GATE = (
    """
import sys, time
from pathlib import Path
import serving.engine
folder = Path(sys.argv[1])
run_images = serving.engine.run_images

def run_images_when_let(expert, batch, **options):
    (folder / "reached").touch()
    while not (folder / "go on").exists():
        time.sleep(0.01)
    return run_images(expert, batch, **options)

serving.engine.run_images = run_images_when_let
"""
    + PROGRAM
)
IMAGE = image_bytes(tiny_image(1))


@pytest.fixture
def server(data_folder):
    """A server whose device waits, in the middle of its first batch, for the file `go on`."""
    with started(data_folder, PROGRAM_WITH_A_GATE) as server:
        yield server
        (data_folder / "go on").touch()


def ask(server):
    files = [("images", ("1.png", IMAGE)), ("task", (None, "pets"))]
    return httpx2.post(server.url + URL, files=files, timeout=60)


def metric(server, line):
    text = httpx2.get(server.url + "/metrics", timeout=60).text
    return next((float(each.rpartition(" ")[2]) for each in text.splitlines() if each.startswith(line)), 0.0)


def wait_until(is_so):
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def takes_connections(server):
    address = urlsplit(server.url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except OSError:
        return False
    return True


def test_a_server_that_is_told_to_stop_finishes_what_it_accepted(server, data_folder):
    assert httpx2.get(server.url + "/v1/health/ready").status_code == 200
    with ThreadPoolExecutor() as callers:
        answers = [callers.submit(ask, server) for _ in range(3)]
        wait_until(lambda: metric(server, "condu_queue_images") == 3)
        wait_until((data_folder / "reached").exists)

        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not takes_connections(server))
        assert not any(answer.done() for answer in answers)
        (data_folder / "go on").touch()

        assert [answer.result(60).status_code for answer in answers] == [200, 200, 200]
    assert server.process.wait(timeout=60) == 0
    assert not [line for line in server.lines() if line["level"] in {"error", "critical"}]


def test_a_client_that_goes_in_the_middle_of_a_batch_is_dropped_and_the_others_are_answered(
    server, data_folder
):
    address = urlsplit(server.url)
    body, kind = form()
    leaving = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    leaving.request("POST", URL, body, {"Content-Type": kind})
    wait_until((data_folder / "reached").exists)
    with ThreadPoolExecutor() as callers:
        answers = [callers.submit(ask, server) for _ in range(2)]
        wait_until(lambda: metric(server, "condu_queue_images") == 3)

        leaving.close()
        wait_until(lambda: metric(server, 'condu_dropped_total{reason="cancelled"}') == 1)
        wait_until(lambda: metric(server, "condu_queue_images") == 2)
        (data_folder / "go on").touch()

        assert [answer.result(60).status_code for answer in answers] == [200, 200]
    assert metric(server, 'condu_requests_total{model="animals",outcome="client-gone",task="pets"}') == 1
    assert metric(server, 'condu_requests_total{model="animals",outcome="answered",task="pets"}') == 2
    assert httpx2.get(server.url + "/v1/health/live").status_code == 200


def test_a_request_whose_time_is_over_is_told_so_while_the_device_is_busy(server):
    files = [("images", ("1.png", IMAGE)), ("task", (None, "pets")), ("timeout_s", (None, "0.5"))]

    answer = httpx2.post(server.url + URL, files=files, timeout=60)

    assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline-exceeded")
    assert metric(server, "condu_dropped_total{reason=") == 1


def form():
    request = httpx2.Request(
        "POST", "http://localhost", files=[("images", ("1.png", IMAGE)), ("task", (None, "pets"))]
    )
    return request.read(), request.headers["content-type"]
