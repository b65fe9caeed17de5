"""What every place that keeps blobs promises.

A blob is immutable and named by the sha256 of its bytes (64 lower-case hex digits). Writing the same bytes
twice gives the same name and keeps one copy. A blob appears whole or not at all, and is durable once
`commit` has returned.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from store.errors import CorruptBlobError, NotFoundError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 4 * 2**20

MAX_CHECKED_BYTES = 64 * 2**20
"""A manifest of a thousand tasks of a thousand classes has half as much."""


@dataclass(frozen=True)
class Blob:
    """A written blob: the sha256 of its bytes and their count."""

    digest: str
    size_bytes: int


@dataclass(frozen=True)
class StoredBlob:
    """A blob found in storage, with the seconds since it was last written (or written again)."""

    digest: str
    size_bytes: int
    age_s: float


class BlobWriter(ABC):
    """Takes the bytes of one blob in pieces; leaving the context without `commit` leaves nothing behind."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Append a piece.

        Raises:
            BlobsUnavailableError: The storage refused it (disk full).
        """
        self._append(piece)
        self._sha256.update(piece)
        self.size_bytes += len(piece) if isinstance(piece, (bytes, bytearray)) else piece.nbytes

    @property
    def digest(self) -> str:
        """The sha256 of all that was written so far."""
        return self._sha256.hexdigest()

    def commit(self) -> Blob:
        """Make the blob durable under its digest; if it exists already, its age starts anew."""
        blob = Blob(self.digest, self.size_bytes)
        self._publish(blob)
        return blob

    def __enter__(self) -> "BlobWriter":  # noqa: PYI034 - the type checks of the tests do not know Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    @abstractmethod
    def _append(self, piece: bytes | bytearray | memoryview) -> None: ...

    @abstractmethod
    def _publish(self, blob: Blob) -> None: ...

    @abstractmethod
    def _discard(self) -> None:
        """Remove what is unpublished; called once, after `_publish` too."""


class Blobs(ABC):
    """Bytes by digest."""

    @abstractmethod
    def writer(self) -> BlobWriter:
        """A writer for a new blob."""

    @abstractmethod
    def read(self, digest: str, start: int = 0, length: int | None = None) -> memoryview:
        """Bytes [start, start + length) of the blob, or all from start, in memory the caller owns.

        The bytes are not verified here: artefacts carry sums of their own, and `condu verify` checks the
        digests.

        Raises:
            NotFoundError: There is no such blob.
            CorruptBlobError: The blob ends before the range does.
            BlobsUnavailableError: The storage refused.
        """

    @abstractmethod
    def size_bytes(self, digest: str) -> int:
        """The blob's size; NotFoundError if there is none."""

    @abstractmethod
    def contains(self, digest: str) -> bool:
        """Whether the blob is here."""

    @abstractmethod
    def delete(self, digest: str, *, unless_younger_than_s: float = 0.0) -> int:
        """Remove the blob and return the bytes freed: 0 if it is not there or younger than that."""

    @abstractmethod
    def list(self) -> Iterator[StoredBlob]:
        """Every blob, in no order."""

    @abstractmethod
    def discard_unfinished(self, *, older_than_s: float, delete: bool) -> int:
        """Bytes of writes that never committed and were last touched so long ago; removed if `delete`."""

    @abstractmethod
    def copy_to(self, digest: str, path: Path) -> None:
        """Make the blob readable at `path`, a new file that the caller must never write to."""

    def pieces(self, digest: str) -> Iterator[memoryview]:
        """The blob's bytes in order, as the storage itself has them: not from a copy near by.

        Raises:
            NotFoundError: There is no such blob.
            BlobsUnavailableError: The storage refused.
        """
        size = self.size_bytes(digest)
        for start in range(0, size, _COPY_BYTES):
            yield self.read(digest, start, min(_COPY_BYTES, size - start))

    def read_checked(self, digest: str, *, max_bytes: int = MAX_CHECKED_BYTES) -> bytes:
        """The whole of a small blob, checked against its digest: what has no sums of its own is read so.

        Raises:
            NotFoundError: There is no such blob.
            CorruptBlobError: Its bytes are not those that were written, or more than such a blob ever has.
            BlobsUnavailableError: The storage refused.
        """
        size = self.size_bytes(digest)
        if size > max_bytes:
            raise CorruptBlobError(
                f"blob {digest}", expected=f"at most {max_bytes} bytes", found=f"{size} bytes"
            )
        content = bytes(self.read(digest))
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise CorruptBlobError(f"blob {digest}", expected=digest, found=found)
        return content

    def put(self, content: bytes) -> Blob:
        """Write the bytes as one blob."""
        with self.writer() as writer:
            writer.write(content)
            return writer.commit()

    def put_file(self, path: Path) -> Blob:
        """Write a file's bytes as one blob; the file stays."""
        with self.writer() as writer, path.open("rb") as file:
            while piece := file.read(_COPY_BYTES):
                writer.write(piece)
            return writer.commit()


def is_digest(name: str) -> bool:
    """Whether that is a digest: 64 lower-case hex digits."""
    return _DIGEST.fullmatch(name) is not None


def check_digest(digest: str) -> str:
    """The digest itself; NotFoundError where it is none, so that no foreign text ever becomes a path."""
    if not is_digest(digest):
        raise NotFoundError(
            f"{digest[:80]!r} is not a digest (64 lower-case hex digits); list what exists with `condu stats`"
        )
    return digest


def not_found(digest: str) -> NotFoundError:
    """The error for a digest that names nothing here."""
    return NotFoundError(
        f"blob {digest} is not in the store; run `condu verify`, then restore it from a backup"
    )


def too_short(digest: str, *, wanted: int, size_bytes: int) -> CorruptBlobError:
    """The error for a blob that ends before a range that its reader knows to be there."""
    return CorruptBlobError(
        f"blob {digest}", expected=f"at least {wanted} bytes", found=f"{size_bytes} bytes"
    )
