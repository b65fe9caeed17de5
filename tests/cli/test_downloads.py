"""A download goes on where it broke off, and never leaves half a file under the name asked for."""

import re

import pytest
import stamina

from cli.downloads import Download, Partial
from cli.errors import CommandUsageError, ServerUnreachableError, TransferError
from cli.transport import Call, Transport
from tests.cli.scripted_server import break_off, scripted_server, send

CONTENT = bytes(range(256)) * 40
CALL = Call("GET", "/file")


@pytest.fixture(autouse=True)
def _no_waiting_between_attempts():
    stamina.instrumentation.set_on_retry_hooks([])
    with stamina.set_testing(True, attempts=1):
        yield
    stamina.instrumentation.set_on_retry_hooks(None)


def ranged(handler, content=CONTENT, etag='"v1"', stop=None):
    """Answer as the service does; cut off after `stop` bytes of the file."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(asked[1]) if asked and handler.headers.get("If-Range") == etag else 0
    handler.send_response(206 if start else 200)
    handler.send_header("ETag", etag)
    handler.send_header("Content-Length", str(len(content) - start))
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.end_headers()
    handler.wfile.write(content[start:stop])
    if stop is not None:
        break_off(handler)


def fetch(url, target, heard=None):
    with Transport(url) as transport:
        return Download(
            transport,
            CALL,
            target,
            on_received=lambda *each: heard.append(each) if heard is not None else None,
        ).run()


def test_a_file_arrives_whole_under_its_name(tmp_path):
    heard = []
    with scripted_server(lambda handler, _: ranged(handler)) as (url, _):
        done = fetch(url, tmp_path / "out", heard)

    assert (tmp_path / "out").read_bytes() == CONTENT
    assert (done.size_bytes, done.etag, done.resumed_at_bytes) == (len(CONTENT), "v1", 0)
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_broken_line_is_taken_up_where_it_broke(tmp_path):
    stops = [1000, 4000, None]
    with scripted_server(lambda handler, earlier: ranged(handler, stop=stops[earlier])) as (url, seen):
        fetch(url, tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == CONTENT
    assert [headers.get("Range") for _, _, headers, _ in seen.requests] == [
        None,
        "bytes=1000-",
        "bytes=4000-",
    ]


def test_the_next_command_goes_on_with_what_the_last_one_left(tmp_path):
    Partial.beside(tmp_path / "out", '"v1"').path.write_bytes(CONTENT[:3000])
    with scripted_server(lambda handler, _: ranged(handler)) as (url, seen):
        done = fetch(url, tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == CONTENT
    assert done.resumed_at_bytes == 3000
    assert seen.requests[0][2]["If-Range"] == '"v1"'


def test_parts_of_two_versions_are_never_joined(tmp_path):
    newer = CONTENT[::-1]
    Partial.beside(tmp_path / "out", '"v1"').path.write_bytes(CONTENT[:3000])
    with scripted_server(lambda handler, _: ranged(handler, newer, '"v2"')) as (url, _):
        done = fetch(url, tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == newer
    assert done.etag == "v2"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_line_that_keeps_breaking_is_given_up_with_what_came_kept(tmp_path):
    def answer(handler, earlier):
        ranged(handler, stop=2000) if earlier == 0 else break_off(handler)

    with scripted_server(answer) as (url, seen), pytest.raises(TransferError, match="broke off after 2,000"):
        fetch(url, tmp_path / "out")

    assert not (tmp_path / "out").exists()
    assert Partial.left_over(tmp_path / "out").size_bytes == 2000
    assert len(seen) == 4


def test_a_part_that_was_not_asked_for_is_refused(tmp_path):
    Partial.beside(tmp_path / "out", '"v1"').path.write_bytes(CONTENT[:3000])
    answer = {"ETag": '"v1"', "Content_Range": f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}"}
    with (
        scripted_server(lambda handler, _: send(handler, 206, CONTENT[10:], **answer)) as (url, _),
        pytest.raises(TransferError, match="not asked for"),
    ):
        fetch(url, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_more_bytes_than_announced_are_refused(tmp_path):
    left_over = Partial.beside(tmp_path / "out", '"v1"').path
    left_over.write_bytes(CONTENT[:3000])
    answer = {"ETag": '"v1"', "Content_Range": "bytes 3000-3999/4000"}
    with (
        scripted_server(lambda handler, _: send(handler, 206, b"x" * 2000, **answer)) as (url, _),
        pytest.raises(TransferError, match="another length"),
    ):
        fetch(url, tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_left_over_bytes_beyond_the_end_are_thrown_away(tmp_path):
    Partial.beside(tmp_path / "out", '"v1"').path.write_bytes(CONTENT)

    def answer(handler, _):
        send(handler, 416, b"{}") if "Range" in handler.headers else ranged(handler)

    with scripted_server(answer) as (url, _):
        fetch(url, tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == CONTENT


def test_a_service_that_is_gone_says_so(tmp_path):
    with scripted_server(lambda handler, _: break_off(handler)) as (url, _):
        pass

    with pytest.raises((TransferError, ServerUnreachableError)):
        fetch(url, tmp_path / "out")


def test_a_folder_that_is_not_there_is_a_mistake_of_the_command_line(tmp_path):
    with pytest.raises(CommandUsageError, match="there is no folder"):
        fetch("http://127.0.0.1:9", tmp_path / "no" / "out")
