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
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import xxhash

from store.errors import CorruptBlobError, UnsupportedFormatError

MAGIC = b"\x93CONDU\r\n"
FORMAT_VERSION = 1
ALIGNMENT_BYTES = 64

_PROLOGUE = struct.Struct("<8sI12s40x")
_TRAILER = struct.Struct("<QQ8s")
_MAX_INDEX_BYTES = 64 * 2**20


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
        sink.write(_PROLOGUE.pack(MAGIC, FORMAT_VERSION, kind.encode()))
        self._position = _PROLOGUE.size

    def add(self, codec: str, payload: bytes | memoryview) -> None:
        """Append a chunk's coded bytes."""
        length = len(payload)
        self._chunks.append([codec, self._position, length, xxhash.xxh3_64_hexdigest(payload)])
        padding = -length % ALIGNMENT_BYTES
        if length:
            self._sink.write(payload)
        if padding:
            self._sink.write(bytes(padding))
        self._position += length + padding

    def finish(self) -> None:
        """Write the index and the trailer."""
        index = json.dumps(
            self._header | {"chunks": self._chunks}, sort_keys=True, separators=(",", ":")
        ).encode()
        self._sink.write(index)
        self._sink.write(_TRAILER.pack(len(index), xxhash.xxh3_64_intdigest(index), MAGIC))


@runtime_checkable
class Source(Protocol):
    """Where an artefact is read from: any range of its bytes."""

    name: str
    size_bytes: int

    def read(self, start: int, length: int) -> memoryview:
        """Bytes [start, start + length)."""


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
        self._data_end = 0
        size = source.size_bytes
        if size < _PROLOGUE.size + _TRAILER.size:
            raise self._damaged(f"at least {_PROLOGUE.size + _TRAILER.size} bytes", f"{size} bytes")
        self._check_prologue(kind)
        index_size, index_sum, magic = _TRAILER.unpack(source.read(size - _TRAILER.size, _TRAILER.size))
        self._data_end = size - _TRAILER.size - index_size
        if magic != MAGIC or index_size > _MAX_INDEX_BYTES or self._data_end < _PROLOGUE.size:
            raise self._damaged(f"a trailer with {MAGIC.hex()}", magic.hex())
        index = bytes(source.read(self._data_end, index_size))
        if xxhash.xxh3_64_intdigest(index) != index_sum:
            raise self._damaged(f"{index_sum:016x}", xxhash.xxh3_64_hexdigest(index))
        self.header: dict[str, Any] = json.loads(index)
        self.chunks = tuple(ChunkEntry(*row) for row in self.header.pop("chunks"))

    def payload(self, index: int) -> memoryview:
        """The coded bytes of a chunk, after their sum was checked."""
        chunk = self.chunks[index]
        if not _PROLOGUE.size <= chunk.position <= chunk.position + chunk.length <= self._data_end:
            raise self._damaged("a chunk inside the file", f"[{chunk.position}, +{chunk.length})")
        payload = self._source.read(chunk.position, chunk.length)
        found = xxhash.xxh3_64_hexdigest(payload)
        if found != chunk.checksum:
            raise CorruptBlobError(f"chunk {index} of {self._name}", expected=chunk.checksum, found=found)
        return payload

    def _check_prologue(self, kind: str) -> None:
        magic, version, found_kind = _PROLOGUE.unpack(self._source.read(0, _PROLOGUE.size))
        if magic != MAGIC:
            raise self._damaged(MAGIC.hex(), magic.hex())
        if version != FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"{self._name} has format {version}; this version reads format {FORMAT_VERSION}: "
                "upgrade condu"
            )
        if found_kind.rstrip(b"\0") != kind.encode():
            raise UnsupportedFormatError(
                f"{self._name} is a {found_kind.rstrip(bytes(1))!r}; pass the digest of a {kind}"
            )

    def _damaged(self, expected: str, found: str) -> CorruptBlobError:
        return CorruptBlobError(self._name, expected=expected, found=found)
