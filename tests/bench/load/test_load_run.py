"""`condu bench load` in small: real processes, and every promise that a small run can break."""

import asyncio
import json
import os
import socket

import pytest

from bench.load.clients import Crowd
from bench.load.plan import SHARES, LoadPlan, Request
from bench.load.report import load_tables, targets, write_report
from bench.load.run import run_load
from bench.load.watching import Memory, handles, leaked, percentiles_ms
from bench.serving.weights import make_base
from tests.tiny_clip import TINY_CONFIG


@pytest.fixture(scope="module")
def document():
    """A small run on a tiny CLIP."""
    told = []
    found = run_load(
        make_base(name="tiny", config=TINY_CONFIG),
        LoadPlan.quick(),
        is_quick=True,
        on_progress=lambda done, planned: told.append((done, planned)),
    )
    assert told[-1][0] == told[-1][1]
    return found


def test_every_kind_of_client_is_answered_and_nothing_breaks(document):
    measured = document["load"]
    told = json.dumps([measured["statuses"], measured["examples"]])

    assert set(measured["kinds"]) == set(SHARES)
    assert measured["server_errors"] == measured["refused_without_retry_after"] == 0, told
    assert measured["without_answer"] == measured["client_errors"] == 0, told
    assert set(measured["statuses"]["submit"]) == {"200", "202"}
    assert measured["received_bytes"] > 0


def test_no_connection_and_no_file_stays_open_when_the_clients_have_gone(document):
    held = document["load"]["handles"]

    assert held["leaked"] == {}
    assert held["before"]["sockets"] == held["idle"]["sockets"] == held["after"]["sockets"]


def test_the_report_says_of_each_promise_whether_it_was_kept(document, tmp_path):
    text = write_report(document, tmp_path, stem="load").read_text()

    for each in targets(document["load"]):
        assert f"| {each.says} | {each.found} | {'yes' if each.is_met else 'NO'} |" in text
    assert len(load_tables(document)[1].rows) == len(SHARES)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"server_errors": 1}, "no 5xx"),
        ({"refused_without_retry_after": 1}, "no 5xx"),
        ({"without_answer": 1}, "every request is answered"),
        ({"client_errors": 2}, "every request is answered"),
        ({"catalog_reads": {"p99_ms": 250.0}}, "p99"),
        ({"memory": {"growth": 0.06}}, "memory"),
        ({"handles": {"leaked": {"sockets": 3}}}, "no connection"),
    ],
)
def test_a_broken_promise_is_seen(document, change, says):
    good = {"catalog_reads": {"p99_ms": 9.0}, "memory": {"growth": 0.0}, "handles": {"leaked": {}}}
    measured = document["load"] | good

    assert all(each.is_met for each in targets(measured))
    assert next(each.says for each in targets(measured | change) if not each.is_met).startswith(says)


def test_open_sockets_and_files_of_a_process_are_counted(tmp_path):
    before = handles(os.getpid())
    with socket.socket(), (tmp_path / "file").open("w"), (tmp_path / "condu.sqlite").open("w"):
        during = handles(os.getpid())
    assert leaked(before, during) == {"sockets": 1, "other_files": 1}
    assert during["catalog_files"] == before["catalog_files"] + 1
    assert leaked(before, handles(os.getpid())) == {}


def test_growth_is_of_the_last_quarter_over_the_second():
    assert Memory([], [1, 1, 100, 100, 105, 105, 110, 110]).growth() == pytest.approx(0.1)
    assert percentiles_ms([0.001 * number for number in range(1, 101)])["p99_ms"] == pytest.approx(100)


ASKED = Request("GET /v1/models")


async def _crowd(answer: bytes, request: Request = ASKED, *, hangs_up: bool = False) -> Crowd:
    """One client against a server that says the same to everybody."""

    async def serve(reader, writer):
        while await reader.read(65536):
            writer.write(answer)
            await writer.drain()
            if hangs_up:
                break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        crowd = Crowd(
            host="127.0.0.1",
            port=server.sockets[0].getsockname()[1],
            requests={"list": [request]},
            clients={"list": 1},
            pause_s={"list": 0.01},
            photographs=[],
            seconds=0.2,
            seed=0,
        )
        await crowd.run()
    return crowd


@pytest.mark.parametrize(
    ("head", "status", "without"),
    [
        ("200 OK", "200", False),
        ("500 Internal Server Error", "500", False),
        ("503 Service Unavailable", "503", True),
        ("503 Service Unavailable\r\nRetry-After: 1", "503", False),
    ],
)
def test_answers_are_counted_for_what_they_are(head, status, without):
    answer = f"HTTP/1.1 {head}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    crowd = asyncio.run(_crowd(answer))

    assert set(crowd.statuses["list"]) == {status}
    assert bool(crowd.refused_without_retry_after) is without
    assert bool(crowd.examples) is (status != "200")


def test_a_chunked_answer_is_read_to_its_end():
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    crowd = asyncio.run(_crowd(answer))

    assert crowd.received_bytes == 5 * crowd.statuses["list"]["200"] > 0


def test_a_connection_that_the_service_closed_between_two_requests_is_opened_anew():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    crowd = asyncio.run(_crowd(answer, hangs_up=True))

    assert crowd.statuses["list"]["200"] > 1
    assert not crowd.examples


def test_who_hangs_up_in_the_middle_has_not_answered():
    crowd = asyncio.run(_crowd(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", ASKED, hangs_up=True))

    assert set(crowd.statuses["list"]) == {"none"}
    assert "IncompleteReadError" in crowd.examples[0]
