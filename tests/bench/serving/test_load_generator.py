"""The load generator against a server that counts, and the bytes that it sends."""

import asyncio
import base64
import json
from email.parser import BytesParser

import pytest

from bench.serving.calls import BOUNDARY, Call
from bench.serving.load import Load, _answer, _read
from bench.serving.plan import ServingPlan
from bench.serving.turns import percentiles_ms, ratios

PHOTOGRAPHS = [b"first", b"second"]


async def _with_server(status, make):
    """Run a load against a server that answers every request with the status; what it found, what came in."""
    seen = []

    async def answer(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                seen.append(head + await reader.readexactly(length))
                body = json.dumps({"number": len(seen)}).encode()
                head = f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                writer.write(head + body)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        found = await make(server.sockets[0].getsockname()[1]).run()
    return found, seen


def _load(calls, **options):
    return lambda port: Load("127.0.0.1", port, calls, PHOTOGRAPHS, **options)


def test_every_call_is_sent_once_and_its_answer_written_down(tmp_path, capsys):
    calls = [Call(f"/{number}", (0,)) for number in range(25)]
    path = tmp_path / "answers"
    with path.open("w") as answers:
        found, seen = asyncio.run(_with_server(200, _load(calls, concurrency=4, answers=answers)))

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(request.split()[1] for request in seen) == sorted(f"/{n}".encode() for n in range(25))
    assert sorted(line["call"] for line in lines) == list(range(25))
    assert all(line["sent"] <= line["received"] and line["status"] == 200 for line in lines)
    assert (found["statuses"], found["images"], len(found["latencies_s"])) == ({"200": 25}, 25, 25)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"done": 20}


def test_calls_go_round_until_the_time_is_over_and_the_warm_up_does_not_count():
    calls = [Call("/a", (0, 1)), Call("/b", (1,))]
    found, seen = asyncio.run(_with_server(200, _load(calls, concurrency=2, warm_up_s=0.05, seconds=0.2)))

    assert len(seen) > found["statuses"]["200"] > 0
    assert found["elapsed_s"] >= 0.2
    assert found["images"] >= found["statuses"]["200"]


def test_an_answer_that_is_an_error_is_counted_and_its_images_are_not():
    found, _ = asyncio.run(_with_server(503, _load([Call("/a", (0,))], concurrency=1)))

    assert (found["statuses"], found["images"]) == ({"503": 1}, 0)


def test_a_form_carries_fields_lists_and_images():
    call = Call("/x", (1, 0), {"task": "pets", "labels": ["cat", "dog"]})

    head, _, body = call.encode(PHOTOGRAPHS, "here:1").partition(b"\r\n\r\n")

    assert head.startswith(b"POST /x HTTP/1.1\r\nHost: here:1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    form = BytesParser().parsebytes(
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode() + body
    )
    parts = [
        (part.get_param("name", header="content-disposition"), part.get_payload(decode=True))
        for part in form.get_payload()
    ]
    assert parts == [
        ("task", b"pets"),
        ("labels", b"cat"),
        ("labels", b"dog"),
        ("images", b"second"),
        ("images", b"first"),
    ]


def test_base64_carries_the_same_as_json_with_headers_of_its_own():
    call = Call("/x", (1,), {"task": "pets"}, wire="base64", headers={"model": "pets"})

    head, _, body = Call.from_dict(call.to_dict()).encode(PHOTOGRAPHS, "here:1").partition(b"\r\n\r\n")

    assert b"\r\nmodel: pets\r\n" in head
    assert json.loads(body) == {"task": "pets", "images": [base64.b64encode(b"second").decode()]}


def test_percentiles_are_those_of_the_ranked_latencies():
    found = percentiles_ms([number / 1000 for number in range(100, 0, -1)])

    assert found == pytest.approx({"p50_ms": 51, "p95_ms": 96, "p99_ms": 100})


def test_a_ratio_is_the_median_over_the_rounds():
    ours = {"8": {"rounds_per_s": [10.0, 30.0, 20.0]}}

    assert ratios(ours, {"8": {"rounds_per_s": [10.0, 10.0, 10.0]}}) == {"8": 2.0}


def test_a_plan_that_compares_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 2 experts"):
        ServingPlan(num_experts=1)


def test_no_more_calls_are_sent_than_are_allowed():
    calls = [Call(f"/{number}", (0,)) for number in range(6)]
    made = []

    def make(port):
        made.append(Load("127.0.0.1", port, calls, PHOTOGRAPHS, concurrency=2, allowed=2))
        return made[0]

    async def allowing():
        serving = asyncio.create_task(_with_server(200, make))
        while not (made and made[0].statuses["200"] == 2):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        before = made[0].statuses["200"]
        made[0].allow(6)
        return before, await serving

    before, (found, _) = asyncio.run(allowing())

    assert before == 2
    assert found["statuses"] == {"200": 6}


def test_an_answer_in_chunks_is_read_to_its_end():
    async def read():
        reader = asyncio.StreamReader()
        reader.feed_data(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
        )
        return await _answer(reader)

    assert asyncio.run(read()) == (200, b"[1,2]")


def test_an_answer_that_is_no_json_is_kept_as_text():
    assert (_read(b"oh"), _read(b"[1]")) == ("oh", [1])
