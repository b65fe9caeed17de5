"""A flat float buffer as bytes: a bit for each value, set where it is not zero, then those that are not.

Entries that no task ever changed cost next to nothing. How the others are stored is the dtype's business:
float32 is exact, and the rest keep signs and never make a zero, so that no mask bit is lost in storing.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from store.bits import count_bits, pack_bits
from store.codecs import groups, planes
from store.codecs.coding import Bytes, Part, check_spare_bits, decode, encode
from store.codecs.container import ArtefactReader, ArtefactWriter, Sink, Source
from store.codecs.forms import Form
from store.codecs.kernels import leave_out_zeros, put_back_zeros
from store.errors import UnsupportedFormatError
from store.parameters import CHUNK_ELEMENTS

KIND = "unified"
_FORMS: dict[str, Form] = {
    "float32": planes.Float32(),
    "bfloat16": planes.BFloat16(),
    "int8": groups.Grouped(8),
    "int4": groups.Grouped(4),
}
DTYPES = tuple(_FORMS)

Chunk = Float32[np.ndarray, " elements"]


@dataclass(frozen=True)
class EncodedFloats:
    """A coded chunk.

    Attributes:
        parts: The coded pieces; they own their bytes.
        values: What reading gives back; the input itself where the dtype is exact.
    """

    parts: tuple[Part, ...]
    values: Chunk


def encode_floats(values: Chunk, dtype: str) -> EncodedFloats:
    """The chunk as it is stored in `dtype`; may be called from several threads.

    A value that is not zero never becomes zero and keeps its sign; a zero of either sign is read as 0.
    """
    present = pack_bits(values != 0)
    kept = np.empty(count_bits(present) + 1, dtype=np.uint32)
    leave_out_zeros(values.view(np.uint32), kept)
    pieces = _FORMS[dtype].encode(kept[:-1])
    if dtype != "float32":
        stored = np.empty_like(values)
        put_back_zeros(kept, present, stored.view(np.uint32))
        values = stored
    return EncodedFloats((encode(present), *pieces), values)


class FloatWriter:
    """Writes a float artefact chunk by chunk to a sink."""

    def __init__(self, sink: Sink, *, layout: str, num_elements: int, dtype: str) -> None:
        header = {
            "layout": layout,
            "element_count": num_elements,
            "dtype": dtype,
            "chunk_elements": CHUNK_ELEMENTS,
        }
        self._writer = ArtefactWriter(sink, kind=KIND, header=header)

    def add(self, encoded: EncodedFloats) -> None:
        """Append the next chunk, as `encode_floats` coded it in the artefact's dtype."""
        for codec, payload in encoded.parts:
            self._writer.add(codec, payload)

    def finish(self) -> None:
        """Write the index."""
        self._writer.finish()


class FloatReader:
    """Decodes the chunks of a float artefact, in any order and from several threads."""

    def __init__(self, source: Source) -> None:
        self._reader = ArtefactReader(source, kind=KIND, size_field="element_count", form_field="dtype")
        self._name = source.name
        self.layout, self.num_elements = self._reader.layout, self._reader.num_elements
        self.dtype = self._reader.form
        if self.dtype not in _FORMS:
            raise UnsupportedFormatError(
                f"unified delta {source.name} is stored as {self.dtype!r}; upgrade condu to read it"
            )
        self._form = _FORMS[self.dtype]
        self._parts_per_chunk = 1 + len(self._form.piece_sizes(0))
        self._reader.require_rows(self._parts_per_chunk)

    @property
    def num_chunks(self) -> int:
        """Chunks in the artefact."""
        return len(self._reader.chunks) // self._parts_per_chunk

    def chunk(self, index: int, out: Chunk | None = None) -> Chunk:
        """A chunk as float32, in `out` (of exactly its elements) where that is given."""
        size, what = self._reader.chunk_size(index), f"chunk {index} of unified delta {self._name}"
        values = np.empty(size, dtype=np.float32) if out is None else out
        present = self._part(index, 0, size_bytes=-(-size // 8))
        check_spare_bits(present, size, what)
        count = count_bits(present)
        sizes = self._form.piece_sizes(count)
        pieces = tuple(self._part(index, i, size_bytes=n) for i, n in enumerate(sizes, start=1))
        bits = values.view(np.uint32)
        if count == size:
            self._form.decode(pieces, bits, what=what)
        else:
            kept = np.empty(count + 1, dtype=np.uint32)
            self._form.decode(pieces, kept[:-1], what=what)
            put_back_zeros(kept, present, bits)
        return values

    def _part(self, index: int, part: int, *, size_bytes: int) -> Bytes:
        entry = index * self._parts_per_chunk + part
        content = np.empty(size_bytes, dtype=np.uint8)
        decode(
            self._reader.chunks[entry].codec,
            self._reader.payload(entry, at_most=size_bytes),
            out=content,
            what=f"part {part} of chunk {index} of unified delta {self._name}",
        )
        return content
