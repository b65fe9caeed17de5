"""Answers a request for bytes that have a strong ETag: whole, in part, or not at all (RFC 9110)."""

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from api.refusals import UnusableRangeError

SINGLE_RANGE = re.compile(r"bytes=(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))", re.IGNORECASE)
CACHE_CONTROL = "no-cache"
"""Keep it, but ask each time whether the head has moved."""


@dataclass(frozen=True)
class Content:
    """Bytes that can be read from any position.

    Attributes:
        digest: What the bytes are; equal digests mean equal bytes, so it serves as a strong ETag.
        read: The bytes of [start, stop) in pieces; called in a thread.
        filename: What a browser saves it as; letters, digits, dots, dashes and underscores.
    """

    size_bytes: int
    digest: str
    read: Callable[[int, int], Generator[memoryview]]
    filename: str
    media_type: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)


class PiecesResponse(StreamingResponse):
    """Sends pieces that are made in a thread; what they hold is let go of as soon as the client goes away."""

    def __init__(
        self, pieces: Generator[memoryview], status: int, headers: Mapping[str, str], media_type: str
    ) -> None:
        super().__init__(pieces, status, headers, media_type)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and close the generator however that ends; no thread is in it any more by then."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pieces.close()


def unchanged_response(request: Request, digest: str, headers: Mapping[str, str]) -> Response | None:
    """304 where the client says that it has these very bytes already, else None; costs no look at them."""
    if not _names_etag(request.headers.get("if-none-match"), etag_of(digest)):
        return None
    return Response(
        status_code=304, headers={"ETag": etag_of(digest), "Cache-Control": CACHE_CONTROL, **headers}
    )


def content_response(request: Request, content: Content) -> Response:
    """200 or 206, as the request's Range asks; for HEAD without a body.

    A Range that is malformed, or that asks for several parts, is ignored, as the RFC allows: the answer is
    the whole.

    Raises:
        UnusableRangeError: The range lies beyond the end.
    """
    wanted = _wanted_range(request, content)
    start, stop = wanted or (0, content.size_bytes)
    headers = {
        "ETag": etag_of(content.digest),
        "Accept-Ranges": "bytes",
        "Cache-Control": CACHE_CONTROL,
        "Content-Length": str(stop - start),
        "Content-Disposition": f'attachment; filename="{content.filename}"',
        **content.headers,
    }
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size_bytes}"
    status = 200 if wanted is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=content.media_type)
    return PiecesResponse(content.read(start, stop), status, headers, content.media_type)


def etag_of(digest: str) -> str:
    """The digest as HTTP writes a strong entity tag."""
    return f'"{digest}"'


def _names_etag(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    candidates = [candidate.strip().removeprefix("W/") for candidate in header.split(",")]
    return "*" in candidates or etag in candidates


def _wanted_range(request: Request, content: Content) -> tuple[int, int] | None:
    if request.method != "GET" or not _range_still_valid(request.headers, content):
        return None
    match = SINGLE_RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(content.size_bytes - int(suffix), 0), content.size_bytes
    else:
        start, stop = int(first), min(int(last) + 1, content.size_bytes) if last else content.size_bytes
        if last and int(last) < start:
            return None
    if start >= content.size_bytes or start >= stop:
        raise UnusableRangeError(size_bytes=content.size_bytes)
    return start, stop


def _range_still_valid(headers: Headers, content: Content) -> bool:
    """If-Range: a part is only wanted of the bytes the client has some of already (no weak tag says so)."""
    condition = headers.get("if-range")
    return condition is None or condition.strip() == etag_of(content.digest)
