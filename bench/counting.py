"""Blobs that count what goes through them."""

from collections.abc import Iterator
from pathlib import Path

from store.blobs import Blobs
from store.blobs.contract import BlobWriter, StoredBlob


class CountingBlobs(Blobs):
    """Another place for blobs, with the bytes read from it and written to it since the last `reset`."""

    def __init__(self, inner: Blobs) -> None:
        self._inner = inner
        self._writers: list[BlobWriter] = []
        self.bytes_read = 0

    @property
    def bytes_written(self) -> int:
        """Bytes that writers took, published or not."""
        return sum(writer.size_bytes for writer in self._writers)

    @property
    def blobs_written(self) -> int:
        """Writers that took bytes."""
        return sum(writer.size_bytes > 0 for writer in self._writers)

    def reset(self) -> None:
        """Start counting anew."""
        self._writers = []
        self.bytes_read = 0

    def writer(self) -> BlobWriter:
        writer = self._inner.writer()
        self._writers.append(writer)
        return writer

    def read(self, digest: str, start: int = 0, length: int | None = None) -> memoryview:
        content = self._inner.read(digest, start, length)
        self.bytes_read += content.nbytes
        return content

    def size_bytes(self, digest: str) -> int:
        return self._inner.size_bytes(digest)

    def contains(self, digest: str) -> bool:
        return self._inner.contains(digest)

    def delete(self, digest: str, *, unless_younger_than_s: float = 0.0) -> int:
        return self._inner.delete(digest, unless_younger_than_s=unless_younger_than_s)

    def list(self) -> Iterator[StoredBlob]:
        return self._inner.list()

    def discard_unfinished(self, *, older_than_s: float, delete: bool) -> int:
        return self._inner.discard_unfinished(older_than_s=older_than_s, delete=delete)

    def copy_to(self, digest: str, path: Path) -> None:
        self._inner.copy_to(digest, path)
