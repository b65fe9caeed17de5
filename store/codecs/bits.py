"""Masks as bytes: one bit a parameter, in the bit order of store/bits.py. Exact."""

import numpy as np

from store.bits import PackedBits
from store.codecs.coding import Part, check_spare_bits, decode, encode
from store.codecs.container import ArtefactReader, ArtefactWriter, Sink, Source
from store.errors import UnsupportedFormatError
from store.parameters import CHUNK_ELEMENTS

KIND = "mask"
_BIT_ORDER = "little"


def encode_mask(packed: PackedBits) -> Part:
    """The codec and the payload, which owns its bytes, of a chunk's packed bits; may be called by threads."""
    codec, payload = encode(packed)
    return codec, bytes(payload)


class MaskWriter:
    """Writes a mask artefact chunk by chunk to a sink."""

    def __init__(self, sink: Sink, *, layout: str, num_bits: int) -> None:
        header = {
            "layout": layout,
            "bit_count": num_bits,
            "bit_order": _BIT_ORDER,
            "chunk_elements": CHUNK_ELEMENTS,
        }
        self._writer = ArtefactWriter(sink, kind=KIND, header=header)

    def add(self, codec: str, payload: bytes | memoryview) -> None:
        """Append the next chunk, as `encode_mask` coded it."""
        self._writer.add(codec, payload)

    def finish(self) -> None:
        """Write the index."""
        self._writer.finish()


class MaskReader:
    """Decodes the chunks of a mask artefact, in any order and from several threads."""

    def __init__(self, source: Source) -> None:
        self._reader = ArtefactReader(source, kind=KIND, size_field="bit_count", form_field="bit_order")
        self._name = source.name
        self.layout, self.num_bits = self._reader.layout, self._reader.num_elements
        if self._reader.form != _BIT_ORDER:
            raise UnsupportedFormatError(
                f"mask {source.name} has its bits in the order {self._reader.form!r}; upgrade condu"
            )
        self._reader.require_rows(1)

    @property
    def num_chunks(self) -> int:
        """Chunks in the artefact."""
        return len(self._reader.chunks)

    def chunk(self, index: int, out: PackedBits | None = None) -> PackedBits:
        """The packed bits of a chunk, in `out` (of exactly its bytes) where that is given."""
        num_bits = self._reader.chunk_size(index)
        num_bytes = -(-num_bits // 8)
        packed = np.empty(num_bytes, dtype=np.uint8) if out is None else out
        what = f"chunk {index} of mask {self._name}"
        payload = self._reader.payload(index, at_most=num_bytes)
        decode(self._reader.chunks[index].codec, payload, out=packed, what=what)
        check_spare_bits(packed, num_bits, what)
        return packed
