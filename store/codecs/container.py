"""The file form of every artefact of the store: a sequence of coded chunks behind one index (docs/format.md).

    64 bytes   prologue: magic, format version, artefact kind, zeros
    ...        the chunks' payloads, each starting at a multiple of 64 bytes
    n bytes    index: canonical JSON with the header's fields and, per chunk, [codec, position, length, xxh3]
    24 bytes   trailer: n and the index's xxh3 as little-endian u64, the magic again

The index stands at the end so that an artefact is written in one pass without knowing its length, and a
reader finds any chunk without touching another. Every chunk is checked against its sum each time it is
decoded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import xxhash

from store.codecs.framing import (
    FORMAT_VERSION,
    MAGIC,
    PROLOGUE,
    Source,
    padding,
    prologue,
    read_index,
    read_prologue,
    tail,
)
from store.errors import CorruptBlobError, UnsupportedFormatError

__all__ = ["MAGIC", "ArtefactReader", "ArtefactWriter", "ChunkEntry", "Sink", "Source"]


@runtime_checkable
class Sink(Protocol):
    """Where an artefact is written to; a BlobWriter is one."""

    def write(self, piece: bytes | bytearray | memoryview, /) -> object:
        """Append a piece."""


@dataclass(frozen=True)
class ChunkEntry:
    """One chunk in the index: its codec, where its payload lies, and the payload's xxh3 (64 bit, hex)."""

    codec: str
    position: int
    length: int
    checksum: str


class ArtefactWriter:
    """Writes one artefact to a sink, chunk by chunk; `finish` writes the index."""

    def __init__(self, sink: Sink, *, kind: str, header: Mapping[str, Any]) -> None:
        self._sink = sink
        self._header = dict(header) | {"kind": kind}
        self._chunks: list[list[object]] = []
        sink.write(prologue(kind))
        self._position = PROLOGUE.size

    def add(self, codec: str, payload: bytes | memoryview) -> None:
        """Append a chunk's coded bytes."""
        length = len(payload)
        self._chunks.append([codec, self._position, length, xxhash.xxh3_64_hexdigest(payload)])
        zeros = padding(length)
        if length:
            self._sink.write(payload)
        if zeros:
            self._sink.write(zeros)
        self._position += length + len(zeros)

    def finish(self) -> None:
        """Write the index and the trailer."""
        self._sink.write(tail(self._header | {"chunks": self._chunks}))


class ArtefactReader:
    """Random access to the chunks of an artefact.

    Attributes:
        header: The fields that the writer was given.
        chunks: The index's rows.

    Raises:
        CorruptBlobError: The frame or the index is damaged.
        UnsupportedFormatError: Another kind of artefact, or a format version that this software does not
            read.
    """

    def __init__(self, source: Source, *, kind: str) -> None:
        self._source = source
        self._name = f"{kind} {source.name}"
        self._check_prologue(kind)
        index, self._data_end = read_index(source, self._name)
        self.header: dict[str, Any] = json.loads(index)
        self.chunks = tuple(ChunkEntry(*row) for row in self.header.pop("chunks"))

    def payload(self, index: int) -> memoryview:
        """The coded bytes of a chunk, after their sum was checked."""
        chunk = self.chunks[index]
        if not PROLOGUE.size <= chunk.position <= chunk.position + chunk.length <= self._data_end:
            raise self._damaged("a chunk inside the file", f"[{chunk.position}, +{chunk.length})")
        payload = self._source.read(chunk.position, chunk.length)
        found = xxhash.xxh3_64_hexdigest(payload)
        if found != chunk.checksum:
            raise CorruptBlobError(f"chunk {index} of {self._name}", expected=chunk.checksum, found=found)
        return payload

    def _check_prologue(self, kind: str) -> None:
        magic, version, found_kind = read_prologue(self._source, self._name)
        if magic != MAGIC:
            raise self._damaged(MAGIC.hex(), magic.hex())
        if version != FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"{self._name} has format {version}; this version reads format {FORMAT_VERSION}: "
                "upgrade condu"
            )
        if found_kind != kind.encode():
            raise UnsupportedFormatError(f"{self._name} is a {found_kind!r}; pass the digest of a {kind}")

    def _damaged(self, expected: str, found: str) -> CorruptBlobError:
        return CorruptBlobError(self._name, expected=expected, found=found)
