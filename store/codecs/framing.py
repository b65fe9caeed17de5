"""The frame of every file that the store lays out itself, artefacts and bundles alike (docs/format.md).

    64 bytes   prologue: magic, format version, kind, zeros
    ...        payloads, each starting at a multiple of 64 bytes, zero-padded
    n bytes    index: canonical JSON
    24 bytes   trailer: n and the index's xxh3 as little-endian u64, the magic again

The index stands at the end so that a file is written in one pass, without its length being known before.
"""

import struct
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import xxhash

from store.errors import CorruptBlobError
from store.strict_json import canonical_json

MAGIC = b"\x93CONDU\r\n"
FORMAT_VERSION = 1
ALIGNMENT_BYTES = 64
PROLOGUE = struct.Struct("<8sI12s40x")
TRAILER = struct.Struct("<QQ8s")
MAX_INDEX_BYTES = 64 * 2**20


@runtime_checkable
class Source(Protocol):
    """Where a file is read from: any range of its bytes."""

    name: str
    size_bytes: int

    def read(self, start: int, length: int) -> memoryview:
        """Bytes [start, start + length)."""


def prologue(kind: str, version: int = FORMAT_VERSION) -> bytes:
    """The first 64 bytes of a file of this kind."""
    return PROLOGUE.pack(MAGIC, version, kind.encode())


def padding(length: int) -> bytes:
    """The zeros between a payload of that length and the next."""
    return bytes(-length % ALIGNMENT_BYTES)


def tail(index: Mapping[str, Any]) -> bytes:
    """The index and the trailer: all that stands behind the last payload."""
    encoded = canonical_json(index)
    return encoded + TRAILER.pack(len(encoded), xxhash.xxh3_64_intdigest(encoded), MAGIC)


def read_prologue(source: Source, what: str) -> tuple[bytes, int, bytes]:
    """Magic, format version and kind, as they are.

    Raises:
        CorruptBlobError: The file is too short for a frame.
    """
    least = PROLOGUE.size + TRAILER.size
    if source.size_bytes < least:
        raise CorruptBlobError(what, expected=f"at least {least} bytes", found=f"{source.size_bytes} bytes")
    magic, version, kind = PROLOGUE.unpack(source.read(0, PROLOGUE.size))
    return magic, version, kind.rstrip(b"\0")


def read_index(source: Source, what: str, *, max_bytes: int = MAX_INDEX_BYTES) -> tuple[bytes, int]:
    """The index, checked against its sum, and where it begins; the prologue was read before.

    Raises:
        CorruptBlobError: The trailer or the index is damaged.
    """
    end = source.size_bytes - TRAILER.size
    index_size, index_sum, magic = TRAILER.unpack(source.read(end, TRAILER.size))
    if magic != MAGIC:
        raise CorruptBlobError(what, expected=f"a trailer with {MAGIC.hex()}", found=magic.hex())
    position = end - index_size
    if index_size > max_bytes or position < PROLOGUE.size:
        most = min(max_bytes, end - PROLOGUE.size)
        raise CorruptBlobError(what, expected=f"an index of at most {most} bytes", found=f"{index_size}")
    index = bytes(source.read(position, index_size))
    if xxhash.xxh3_64_intdigest(index) != index_sum:
        raise CorruptBlobError(what, expected=f"{index_sum:016x}", found=xxhash.xxh3_64_hexdigest(index))
    return index, position
