"""Takes a raw request body into an unnamed file; nothing is ever left behind."""

import base64
import binascii
import errno
import hashlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anyio import to_thread
from starlette.requests import Request

from api.middleware import allow_body, declared_length
from api.refusals import StorageFullError, UnsupportedBodyError, UploadRefusedError

WRITE_BYTES = 2**20
"""Bytes gathered before a thread writes them; a chunk off the network (64 KiB) is not worth the switch."""

OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
CONTENT_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]+):")


class RawFile(Protocol):
    """An unbuffered file; a buffered one would write again when closed, and fail again on a full disk."""

    def write(self, content: memoryview, /) -> int | None:
        """Write a beginning of the content and say how many bytes that was."""


@dataclass(frozen=True)
class UploadRoom:
    """Where bodies are received, how large one may be, and how much of the disk must stay free beside it."""

    folder: Path
    limit_bytes: int
    keep_free_bytes: int


@asynccontextmanager
async def received_upload(request: Request, room: UploadRoom) -> AsyncIterator[Path]:
    """The request's body as a file that vanishes at the end of the context.

    The file has no name in any folder (O_TMPFILE, or unlinked at once), so even `kill -9` leaves nothing to
    clean; it is opened again through /proc/self/fd. Blobs hash what they are given, so it is hashed here only
    for a client that says what the digest must be.

    Raises:
        UploadTooLargeError: The body exceeds the room's limit, declared or not.
        StorageFullError: The disk is full, or would be less than the room's floor away from it.
        UploadRefusedError: The bytes are not those of the Content-Digest header.
        UnsupportedBodyError: A form was sent in place of the file's own bytes.
    """
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise UnsupportedBodyError(
            "this route takes a file's own bytes, not a form; send them raw (`curl -T FILE URL`)"
        )
    allow_body(request, room.limit_bytes)
    check_space(room, declared_length(request.headers) or 0)
    expected = _expected_digest(request.headers.get("content-digest", ""))
    sha256 = hashlib.sha256() if expected else None
    with tempfile.TemporaryFile(dir=room.folder, buffering=0) as file:
        await write_body(request.stream(), file, sha256)
        if sha256 is not None and sha256.hexdigest() != expected:
            raise UploadRefusedError(
                f"the body has sha256 {sha256.hexdigest()}, but its Content-Digest header says {expected}"
            )
        yield Path(f"/proc/self/fd/{file.fileno()}")


async def write_body(
    pieces: AsyncIterator[bytes], file: RawFile, sha256: "hashlib._Hash | None" = None
) -> None:
    """Write the pieces to the file, and into the hash if there is one, in threads.

    Raises:
        StorageFullError: The disk is full.
    """
    pending = bytearray()

    def flush() -> None:
        if sha256 is not None:
            sha256.update(pending)
        write_piece(file, pending)
        pending.clear()

    async for piece in pieces:
        pending += piece
        if len(pending) >= WRITE_BYTES:
            await to_thread.run_sync(flush)
    await to_thread.run_sync(flush)


def _write_all(file: RawFile, content: bytes | bytearray) -> None:
    with memoryview(content) as left:
        written = 0
        while written < len(left):
            written += file.write(left[written:]) or 0


def write_piece(file: RawFile, piece: bytes | bytearray) -> None:
    """Write all of the piece to the file.

    Raises:
        StorageFullError: The disk is full.
    """
    try:
        _write_all(file, piece)
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        raise StorageFullError(
            "the disk filled up while the body was received; nothing of it was kept"
        ) from error


def check_space(room: UploadRoom, declared_bytes: int) -> None:
    """Nothing, when so many bytes more leave enough of the disk free.

    Raises:
        StorageFullError: They do not.
    """
    room.folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(room.folder).free
    if free_bytes - declared_bytes < room.keep_free_bytes:
        raise StorageFullError(
            f"{free_bytes} bytes are free, the upload has {declared_bytes}, "
            f"and {room.keep_free_bytes} must stay free"
        )


def _expected_digest(header: str) -> str | None:
    """The sha256 that a Content-Digest header (RFC 9530) promises, as hex; None where it promises none."""
    match = CONTENT_DIGEST.search(header)
    if match is None:
        return None
    try:
        return base64.b64decode(match[1], validate=True).hex()
    except binascii.Error:
        raise UploadRefusedError("the Content-Digest header is not base64 of a sha-256") from None
