"""Writes bundles: a model's blobs behind one index, made while they are read."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from store.blobs import Blobs
from store.bundles.layout import KIND, Entry, Index, blobs_in_order, placed
from store.codecs.framing import PROLOGUE, TRAILER, padding, prologue, tail
from store.errors import CorruptBlobError
from store.manifest import BaseManifest, Manifest

_PIECE_BYTES = 2**20


class BundleFile:
    """A bundle that exists only while it is read.

    The same blobs and facts give the same bytes. Any byte range can be read; nothing but the index and about
    a MiB is in memory. The last bytes of a blob are handed out only after all of it was found to be what its
    name says, so whoever has a whole bundle has a sound one, whatever number of ranges it came in.

    Attributes:
        size_bytes: Length of the whole file.
        etag: sha256 of its index, which names every other byte.
    """

    def __init__(
        self,
        blobs: Blobs,
        *,
        base: str,
        head: str | None,
        with_base: bool,
        catalog: Mapping[str, Any],
        adapter: str | None = None,
    ) -> None:
        self._blobs = blobs
        manifest = Manifest.from_json(blobs.read_checked(head)) if head else None
        names = blobs_in_order(
            base=base,
            weights=self._weights(base) if with_base else None,
            head=head,
            manifest=manifest,
            adapter=None if adapter is None else (adapter, self._weights(adapter)),
        )
        self._entries = placed((name, blobs.size_bytes(name)) for name in names)
        index = Index(
            base, has_base=with_base, head=head, blobs=self._entries, catalog=catalog, adapter=adapter
        )
        if manifest is not None and manifest.base != index.learned_on:
            raise CorruptBlobError("base of the revision", expected=index.learned_on, found=manifest.base)
        self._prologue = prologue(KIND, index.format_version)
        self._tail = tail(index.to_dict())
        self._tail_start = self._entries[-1].stop if self._entries else PROLOGUE.size
        self.etag = hashlib.sha256(self._tail[: -TRAILER.size]).hexdigest()
        self.size_bytes = self._tail_start + len(self._tail)

    def _weights(self, base: str) -> str:
        return BaseManifest.from_json(self._blobs.read_checked(base)).weights

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes [start, stop) of the file in pieces of at most about a MiB.

        Raises:
            CorruptBlobError: A blob is not what its name says; what was handed out is no whole bundle.
            NotFoundError: A blob is not in the store any more.
        """
        stop = self.size_bytes if stop is None else min(stop, self.size_bytes)
        yield from _sliced(memoryview(self._prologue), start, stop)
        for entry in self._entries:
            if start < entry.stop and entry.position < stop:
                yield from self._blob_range(entry, start - entry.position, stop - entry.position)
        yield from _sliced(memoryview(self._tail), start - self._tail_start, stop - self._tail_start)

    def _blob_range(self, entry: Entry, start: int, stop: int) -> Iterator[memoryview]:
        """Bytes [start, stop) of the blob and the padding behind it, counted from the blob's beginning."""
        has_end = start < entry.length <= stop
        sha256 = hashlib.sha256()
        # For a range that reaches the end, what lies before it is read too, for its sum alone.
        position = 0 if has_end else max(start, 0)
        while position < min(stop, entry.length):
            size = min(_PIECE_BYTES, min(stop, entry.length) - position)
            piece = self._blobs.read(entry.digest, position, size)
            if has_end:
                sha256.update(piece)
                if position + size == entry.length and sha256.hexdigest() != entry.digest:
                    raise CorruptBlobError(
                        f"blob {entry.digest}", expected=entry.digest, found=sha256.hexdigest()
                    )
            yield from _sliced(piece, start - position, stop - position)
            position += size
        zeros = memoryview(padding(entry.length))
        yield from _sliced(zeros, start - entry.length, stop - entry.length)


def _sliced(content: memoryview, start: int, stop: int) -> Iterator[memoryview]:
    piece = content[max(start, 0) : max(stop, 0)]
    if len(piece):
        yield piece
