"""Masks as bytes: one bit a parameter, in the bit order of store/bits.py.

A chunk is stored as `zeros` (no payload), `zstd`, or `raw` where coding would gain under 3%. Exact.
"""

import numpy as np
import zstandard

from store.bits import PackedBits
from store.codecs.container import ArtefactReader, ArtefactWriter, Sink, Source
from store.errors import CorruptBlobError
from store.parameters import CHUNK_ELEMENTS

KIND = "mask"
_LEVEL = 3
_LEAST_GAIN = 0.03


class MaskWriter:
    """Writes a mask artefact chunk by chunk to a sink."""

    def __init__(self, sink: Sink, *, layout: str, num_bits: int) -> None:
        header = {
            "layout": layout,
            "bit_count": num_bits,
            "bit_order": "little",
            "chunk_elements": CHUNK_ELEMENTS,
        }
        self._writer = ArtefactWriter(sink, kind=KIND, header=header)
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)

    def add(self, packed: PackedBits) -> None:
        """Append the next chunk."""
        if not packed.any():
            self._writer.add("zeros", b"")
            return
        coded = self._compressor.compress(packed.data)
        if len(coded) <= (1 - _LEAST_GAIN) * packed.nbytes:
            self._writer.add("zstd", coded)
        else:
            self._writer.add("raw", packed.data)

    def finish(self) -> None:
        """Write the index."""
        self._writer.finish()


class MaskReader:
    """Decodes the chunks of a mask artefact, in any order."""

    def __init__(self, source: Source) -> None:
        self._reader = ArtefactReader(source, kind=KIND)
        self._name = source.name
        self.layout = str(self._reader.header["layout"])
        self.num_bits = int(self._reader.header["bit_count"])
        self._decompressor = zstandard.ZstdDecompressor()

    @property
    def num_chunks(self) -> int:
        """Chunks in the artefact."""
        return len(self._reader.chunks)

    def chunk(self, index: int) -> PackedBits:
        """The packed bits of a chunk."""
        num_bits = min(CHUNK_ELEMENTS, self.num_bits - index * CHUNK_ELEMENTS)
        num_bytes = -(-num_bits // 8)
        codec = self._reader.chunks[index].codec
        payload = self._reader.payload(index)
        if codec == "zeros":
            return np.zeros(num_bytes, dtype=np.uint8)
        raw = (
            self._decompressor.decompress(payload, max_output_size=num_bytes) if codec == "zstd" else payload
        )
        if len(raw) != num_bytes:
            raise CorruptBlobError(
                f"chunk {index} of mask {self._name}", expected=f"{num_bytes} bytes", found=f"{len(raw)}"
            )
        return np.frombuffer(raw, dtype=np.uint8)
