"""Masks as bytes: one bit a parameter, in the bit order of store/bits.py. Exact."""

from store.bits import PackedBits
from store.codecs.coding import ChunkDecoder, ChunkEncoder
from store.codecs.container import ArtefactReader, ArtefactWriter, Sink, Source
from store.parameters import CHUNK_ELEMENTS

KIND = "mask"


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
        self._encoder = ChunkEncoder()

    def add(self, packed: PackedBits) -> None:
        """Append the next chunk."""
        self._writer.add(*self._encoder.encode(packed))

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
        self._decoder = ChunkDecoder()

    @property
    def num_chunks(self) -> int:
        """Chunks in the artefact."""
        return len(self._reader.chunks)

    def chunk(self, index: int) -> PackedBits:
        """The packed bits of a chunk."""
        num_bits = min(CHUNK_ELEMENTS, self.num_bits - index * CHUNK_ELEMENTS)
        return self._decoder.decode(
            self._reader.chunks[index].codec,
            self._reader.payload(index),
            size_bytes=-(-num_bits // 8),
            what=f"chunk {index} of mask {self._name}",
        )
