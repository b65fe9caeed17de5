"""A download that survives a broken line: ranges, one ETag from start to end, a rename when it is whole."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx2

from cli.errors import CommandUsageError, ProblemError, ServerUnreachableError, TransferError
from cli.transport import Call, Transport

MAX_BREAKS_WITHOUT_PROGRESS = 3
CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-\d+/(?P<total>\d+)")


@dataclass(frozen=True)
class Downloaded:
    """What arrived, whole."""

    path: Path
    size_bytes: int
    etag: str
    resumed_at_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The result as a command prints it."""
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "digest": self.etag,
            "resumed_at_bytes": self.resumed_at_bytes,
        }


@dataclass(frozen=True)
class Partial:
    """The bytes of one version that are here so far; its ETag is part of the file's name."""

    path: Path
    etag: str

    @classmethod
    def beside(cls, target: Path, etag: str) -> "Partial":
        """The partial file for a version of `target`."""
        return cls(target.with_name(f".{target.name}.{quote(etag, safe='')}.part"), etag)

    @classmethod
    def left_over(cls, target: Path) -> "Partial | None":
        """What an earlier, interrupted download of `target` left."""
        prefix, suffix = f".{target.name}.", ".part"
        for path in sorted(target.parent.glob(".*.part")):
            if path.name.startswith(prefix) and path.stat().st_size:
                return cls(path, unquote(path.name[len(prefix) : -len(suffix)]))
        return None

    @property
    def size_bytes(self) -> int:
        """Bytes that are on disk."""
        return self.path.stat().st_size

    @property
    def headers(self) -> dict[str, str]:
        """What asks for the rest of this very version, or for the whole of a newer one."""
        return {"Range": f"bytes={self.size_bytes}-", "If-Range": self.etag}


class Download:
    """Brings the answer to one GET under one name, whole or not at all."""

    def __init__(
        self, transport: Transport, call: Call, target: Path, *, on_received: Callable[[int, int], None]
    ) -> None:
        self._transport = transport
        self._call = call
        self._target = target
        self._on_received = on_received  # hears the bytes on disk and the bytes there will be

    def run(self) -> Downloaded:
        """The file, after as many attempts as bring new bytes.

        Raises:
            TransferError: The line kept breaking, or another length or version came than was announced.
        """
        if not self._target.parent.is_dir():
            raise CommandUsageError(
                f"there is no folder {self._target.parent}", remedy="make it, or give another path"
            )
        resumed_at_bytes = self._bytes_here()
        breaks = 0
        while True:
            before_bytes = self._bytes_here()
            try:
                return replace(self._attempt(), resumed_at_bytes=resumed_at_bytes)
            except ServerUnreachableError as error:
                breaks = 0 if self._bytes_here() > before_bytes else breaks + 1
                if breaks == MAX_BREAKS_WITHOUT_PROGRESS:
                    raise self._broken_off(error) from error

    def _bytes_here(self) -> int:
        partial = Partial.left_over(self._target)
        return partial.size_bytes if partial else 0

    def _attempt(self) -> Downloaded:
        partial = Partial.left_over(self._target)
        call = replace(self._call, headers=partial.headers if partial else {}, may_repeat=True)
        try:
            with self._transport.stream(call) as response:
                partial, total_bytes = self._place(response, partial)
                self._append(response, partial, total_bytes)
        except ProblemError as error:
            if partial is None or error.status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            partial.path.unlink()  # what is here is not a beginning of what is there: start anew
            return self._attempt()
        return self._finish(partial, total_bytes)

    def _place(self, response: httpx2.Response, partial: Partial | None) -> tuple[Partial, int]:
        """Where the bytes go and how many there will be in all."""
        etag = response.headers.get("ETag", "")
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            if partial is not None:
                partial.path.unlink()  # another version is served now
            return Partial.beside(self._target, etag), int(response.headers.get("Content-Length", -1))
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if (
            partial is None
            or found is None
            or int(found["first"]) != partial.size_bytes
            or etag != partial.etag
        ):
            raise TransferError(
                f"the server sent a part of {self._target.name} that was not asked for",
                detail=f"ETag {etag}, {response.headers.get('Content-Range')}",
                remedy="run the command again",
            )
        return partial, int(found["total"])

    def _append(self, response: httpx2.Response, partial: Partial, total_bytes: int) -> None:
        with partial.path.open("ab") as file:
            here_bytes = file.tell()
            self._on_received(here_bytes, total_bytes)
            for chunk in response.iter_bytes():
                file.write(chunk)
                here_bytes += len(chunk)
                self._on_received(here_bytes, total_bytes)
            file.flush()
            os.fsync(file.fileno())

    def _finish(self, partial: Partial, total_bytes: int) -> Downloaded:
        size_bytes = partial.size_bytes
        if size_bytes != total_bytes:
            partial.path.unlink()
            raise TransferError(
                f"{self._target.name} has another length than the server announced",
                detail=f"announced {total_bytes:,} bytes, received {size_bytes:,}",
                remedy="run the command again",
            )
        partial.path.replace(self._target)
        sync_folder(self._target.parent)
        return Downloaded(self._target, size_bytes, partial.etag.strip('"'), resumed_at_bytes=0)

    def _broken_off(self, error: ServerUnreachableError) -> TransferError:
        return TransferError(
            f"the download of {self._target.name} broke off after {self._bytes_here():,} bytes",
            detail=error.detail,
            remedy="run the same command again: it goes on where it stopped",
        )


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
