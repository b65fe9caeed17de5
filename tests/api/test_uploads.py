import asyncio
import base64
import hashlib
import os
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect, Request

from api.app import create_app
from api.middleware import BodyLimitMiddleware
from api.refusals import StorageFullError, UploadTooLargeError
from api.uploads import UploadRoom, received_upload, write_body
from tests.api.conftest import CONFIG, LOCAL, Installation, scratch_files
from tests.installing import settings_at


@pytest.fixture
def room(tmp_path):
    return UploadRoom(tmp_path / "uploads", limit_bytes=2**20, keep_free_bytes=0)


def files_in(folder):
    """Every file under the folder, and every unnamed one this process holds open there."""
    # The handle that lists the folder is closed again by the time it is looked at.
    held = [handle.readlink() for handle in list(Path("/proc/self/fd").iterdir()) if handle.is_symlink()]
    return [*folder.rglob("*"), *(path for path in held if path.is_relative_to(folder))]


def receive(messages, room, use, headers=()):
    """Run an app that receives an upload in which the client sends these messages."""

    async def app(scope, receive_, send):
        async with received_upload(Request(scope, receive_), room) as upload:
            use(upload)

    async def run():
        waiting = iter(messages)

        async def next_message():
            return next(waiting)

        scope = {"type": "http", "method": "PUT", "path": "/", "headers": list(headers)}
        await BodyLimitMiddleware(app, default_limit_bytes=10)(scope, next_message, None)

    asyncio.run(run())


def piece(content, *, more=True):
    return {"type": "http.request", "body": content, "more_body": more}


def test_a_body_of_many_pieces_is_received_whole_and_gone_afterwards(room):
    pieces = [os.urandom(70_001) for _ in range(13)]
    seen = []

    receive(
        [*(piece(content) for content in pieces), piece(b"", more=False)],
        room,
        lambda upload: seen.append(upload.read_bytes()),
    )

    assert seen == [b"".join(pieces)]
    assert files_in(room.folder) == []


def test_a_body_that_is_what_its_digest_header_says_is_taken(room):
    content = os.urandom(100_000)
    digest = base64.b64encode(hashlib.sha256(content).digest())
    seen = []

    receive(
        [piece(content, more=False)],
        room,
        lambda upload: seen.append(upload.read_bytes()),
        headers=[(b"content-digest", b"sha-512=:x:, sha-256=:" + digest + b":")],
    )

    assert seen == [content]


def test_a_file_that_fails_otherwise_than_by_being_full_says_so():
    async def pieces():
        yield b"x"

    with (
        Path("/dev/null").open("rb", buffering=0) as file,
        pytest.raises(OSError, match="not open for writing"),
    ):
        asyncio.run(write_body(pieces(), file))


def test_a_client_that_goes_away_leaves_nothing_behind(room):
    with pytest.raises(ClientDisconnect):
        receive([piece(b"x" * 1000), {"type": "http.disconnect"}], room, pytest.fail)

    assert files_in(room.folder) == []


def test_a_body_beyond_the_limit_is_cut_off_though_no_length_was_declared(room):
    with pytest.raises(UploadTooLargeError):
        receive([piece(bytes(2**19))] * 3, room, pytest.fail)

    assert files_in(room.folder) == []


def test_a_body_that_declares_too_much_is_refused_unread(room):
    with pytest.raises(UploadTooLargeError):
        receive([], room, pytest.fail, headers=[(b"content-length", b"1048577")])


def test_a_full_disk_while_writing_is_told_as_such():
    async def pieces():
        yield b"x" * 3_000_000

    with (
        Path("/dev/full").open("wb", buffering=0) as file,
        pytest.raises(StorageFullError, match="filled up"),
    ):
        asyncio.run(write_body(pieces(), file))


def test_an_upload_that_would_fill_the_disk_is_refused_before_it_is_read(tmp_path):
    room = UploadRoom(tmp_path, limit_bytes=2**70, keep_free_bytes=0)

    with pytest.raises(StorageFullError):
        receive([], room, pytest.fail, headers=[(b"content-length", str(2**60).encode())])


@pytest.fixture
def tight(data_folder):
    """An installation that takes small uploads only."""
    with Installation(
        create_app(settings_at(data_folder, upload_limit_bytes=10_000)), base_url=LOCAL
    ) as installation:
        yield installation


def in_pieces(content):
    """A body whose length is not declared."""
    for start in range(0, len(content), 4096):
        yield content[start : start + 4096]


@pytest.mark.parametrize("wrap", [lambda content: content, in_pieces], ids=["declared", "chunked"])
@pytest.mark.parametrize(
    "url",
    ["/v1/bases/big", "/v1/datasets", "/v1/models/animals/tasks/food/checkpoint?class=a&class=b"],
)
def test_an_upload_beyond_the_limit_of_the_installation_is_refused(tight, url, wrap):
    params = {"config": CONFIG} if "bases" in url else None

    problem = tight.problem("PUT", url, params=params, content=wrap(bytes(50_000)))

    assert (problem["status"], problem["type"]) == (413, "/problems/too-large")
    assert problem["limit_bytes"] == 10_000
    assert scratch_files(tight) == []
