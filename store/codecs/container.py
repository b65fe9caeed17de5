"""The file form of every artefact of the store: a sequence of coded chunks behind one index (docs/format.md).

    64 bytes   prologue: magic, format version, artefact kind, zeros
    ...        the chunks' payloads, each starting at a multiple of 64 bytes
    n bytes    index: canonical JSON with the header's fields and, per chunk, [codec, position, length, xxh3]
    24 bytes   trailer: n and the index's xxh3 as little-endian u64, the magic again

The index stands at the end so that an artefact is written in one pass without knowing its length, and a
reader finds any chunk without touching another. Every chunk is checked against its sum each time it is
decoded. Of the index nothing is believed either: payloads must lie one behind the other as a writer puts
them, and whatever no writer writes is refused when the artefact is opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import xxhash

from store.codecs.framing import (
    ALIGNMENT_BYTES,
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
from store.parameters import CHUNK_ELEMENTS, MAX_FLAT_SIZE
from store.strict_json import Fields, parse_object

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


_MAX_INDEX_BYTES = 8 * 2**20
"""Some 10**11 elements."""


class ArtefactReader:
    """Random access to the chunks of an artefact.

    Args:
        source: Its bytes.
        kind: What it must be.
        size_field: The field of the index that counts elements.
        form_field: The field that says how they are kept.

    Attributes:
        layout: Digest of the parameter space that the elements are of.
        num_elements: How many there are.
        form: What the form field says; whether it is known is the caller's to check.
        chunks: The index's rows.

    Raises:
        CorruptBlobError: The frame or the index is damaged, or is none that a writer writes.
        UnsupportedFormatError: Another kind of artefact, or a format version that this software does not
            read.
    """

    def __init__(self, source: Source, *, kind: str, size_field: str, form_field: str) -> None:
        self._source = source
        self._name = f"{kind} {source.name}"
        self._check_prologue(kind)
        index, data_end = read_index(source, self._name, max_bytes=_MAX_INDEX_BYTES)
        try:
            fields = Fields(parse_object(index))
            fields.one_of("kind", (kind,))
            fields.count("chunk_elements", least=CHUNK_ELEMENTS, most=CHUNK_ELEMENTS)
            self.layout = fields.text("layout")
            self.num_elements = fields.count(size_field, most=MAX_FLAT_SIZE)
            self.form = fields.text(form_field)
            self.chunks = tuple(_chunk_entry(row) for row in fields.items("chunks"))
            fields.end()
            _check_places(self.chunks, data_end)
        except ValueError as error:
            raise self._damaged("an index as it is written", str(error)) from error

    def require_rows(self, rows_per_chunk: int) -> None:
        """Nothing, where there are as many rows as the elements' chunks have; else CorruptBlobError."""
        num_rows = -(-self.num_elements // CHUNK_ELEMENTS) * rows_per_chunk
        if len(self.chunks) != num_rows:
            raise self._damaged(f"{num_rows} rows in the index", f"{len(self.chunks)}")

    def chunk_size(self, index: int) -> int:
        """Elements of a chunk."""
        return min(CHUNK_ELEMENTS, self.num_elements - index * CHUNK_ELEMENTS)

    def payload(self, index: int, *, at_most: int) -> memoryview:
        """The coded bytes of a chunk, after their sum was checked.

        Raises:
            CorruptBlobError: They are not those that were written, or more than `at_most`.
        """
        chunk, what = self.chunks[index], f"chunk {index} of {self._name}"
        if chunk.length > at_most:
            raise CorruptBlobError(what, expected=f"at most {at_most} bytes", found=f"{chunk.length} bytes")
        payload = self._source.read(chunk.position, chunk.length)
        found = xxhash.xxh3_64_hexdigest(payload)
        if found != chunk.checksum:
            raise CorruptBlobError(what, expected=chunk.checksum, found=found)
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


def _chunk_entry(row: object) -> ChunkEntry:
    # A pattern rather than Fields: an artefact has thousands of rows.
    match row:
        case [str(codec), int(position), int(length), str(checksum)] if (
            type(position) is type(length) is int and min(position, length) >= 0 and len(checksum) == 16
        ):
            return ChunkEntry(codec, position, length, checksum)
    raise ValueError("a chunk's row needs a codec, a position, a length and a sum")


def _check_places(chunks: tuple[ChunkEntry, ...], data_end: int) -> None:
    """Nothing, where payloads lie one behind the other and fill the file up to its index."""
    position = PROLOGUE.size
    for chunk in chunks:
        if chunk.position != position:
            raise ValueError(f"a payload at {chunk.position} instead of {position}")
        position += -(-chunk.length // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if position > data_end:
            raise ValueError(f"a payload that ends at {position}, behind {data_end}")
    if position != data_end:
        raise ValueError(f"payloads up to {position} instead of {data_end}")
