"""Blobs in memory, for tests and for stores that live as long as their process."""

import time
from collections.abc import Iterator
from pathlib import Path

from store.blobs.contract import Blob, Blobs, BlobWriter, StoredBlob, check_digest, not_found, too_short


class MemoryBlobs(Blobs):
    """Keeps every blob in a dictionary."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[bytes, float]] = {}

    def writer(self) -> BlobWriter:
        return _MemoryWriter(self._blobs)

    def read(self, digest: str, start: int = 0, length: int | None = None) -> memoryview:
        content = self._content(digest)
        stop = len(content) if length is None else start + length
        if stop > len(content):
            raise too_short(digest, wanted=stop, size_bytes=len(content))
        return memoryview(bytearray(content[start:stop]))

    def copy_to(self, digest: str, path: Path) -> None:
        path.write_bytes(self._content(digest))

    def size_bytes(self, digest: str) -> int:
        return len(self._content(digest))

    def contains(self, digest: str) -> bool:
        return check_digest(digest) in self._blobs

    def delete(self, digest: str, *, unless_younger_than_s: float = 0.0) -> int:
        content, written_at = self._blobs.get(check_digest(digest), (b"", 0.0))
        if digest not in self._blobs or time.time() - written_at < unless_younger_than_s:
            return 0
        del self._blobs[digest]
        return len(content)

    def list(self) -> Iterator[StoredBlob]:
        now = time.time()
        for digest, (content, written_at) in list(self._blobs.items()):
            yield StoredBlob(digest, len(content), now - written_at)

    def discard_unfinished(self, *, older_than_s: float, delete: bool) -> int:  # noqa: ARG002 - none here
        return 0

    def _content(self, digest: str) -> bytes:
        found = self._blobs.get(check_digest(digest))
        if found is None:
            raise not_found(digest)
        return found[0]


class _MemoryWriter(BlobWriter):
    def __init__(self, blobs: dict[str, tuple[bytes, float]]) -> None:
        super().__init__()
        self._blobs = blobs
        self._pieces = bytearray()

    def _append(self, piece: bytes | bytearray | memoryview) -> None:
        self._pieces += piece

    def _publish(self, blob: Blob) -> None:
        self._blobs[blob.digest] = (bytes(self._pieces), time.time())

    def _discard(self) -> None:
        self._pieces.clear()
