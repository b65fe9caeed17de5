"""A flat float buffer as bytes, in float32 (exact) or bfloat16 (nearest even, relative error at most 2**-8).

Each chunk is stored in three parts: a bit for each value, set where it is not zero (entries that no task ever
changed cost next to nothing); of the values that are not, all bytes but the last, in planes, as they are; and
their last bytes, signs and exponents, which compress well. The lower bytes are never coded: a fresh delta, a
difference of floats, has zeros in its lowest bits, but they fill up as soon as a fusion rescales it. Coding
them would make the first task look cheap and charge it to those after it.
"""

import numpy as np
from jaxtyping import Float32, UInt16

from store.bits import pack_bits, unpack_bits
from store.codecs.coding import Bytes, ChunkDecoder, ChunkEncoder
from store.codecs.container import ArtefactReader, ArtefactWriter, Sink, Source
from store.errors import UnsupportedFormatError
from store.parameters import CHUNK_ELEMENTS

KIND = "unified"
PARTS = 3
ITEM_BYTES = {"float32": 4, "bfloat16": 2}

Chunk = Float32[np.ndarray, " elements"]


def round_to(values: Chunk, dtype: str) -> Chunk:
    """The float32 values that reading will give back after storing these in `dtype`."""
    return values if dtype == "float32" else _from_bfloat16(_to_bfloat16(values))


def _to_bfloat16(values: Chunk) -> UInt16[np.ndarray, " elements"]:
    """The upper halves of finite float32 values, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def _from_bfloat16(halves: UInt16[np.ndarray, " elements"]) -> Chunk:
    return (halves.astype(np.uint32) << 16).view(np.float32)


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
        self._encoder = ChunkEncoder()
        self._dtype = dtype

    def add(self, values: Chunk) -> None:
        """Append the next chunk; values must be exact in the stored dtype (see `round_to`)."""
        stored = values if self._dtype == "float32" else _to_bfloat16(values)
        present = values != 0
        planes = np.ascontiguousarray(stored[present].view(np.uint8).reshape(-1, ITEM_BYTES[self._dtype]).T)
        self._writer.add(*self._encoder.encode(pack_bits(present)))
        self._writer.add("raw", planes[:-1].reshape(-1).data)
        self._writer.add(*self._encoder.encode(planes[-1]))

    def finish(self) -> None:
        """Write the index."""
        self._writer.finish()


class FloatReader:
    """Decodes the chunks of a float artefact, in any order."""

    def __init__(self, source: Source) -> None:
        self._reader = ArtefactReader(source, kind=KIND)
        self._decoder = ChunkDecoder()
        self._name = source.name
        self.layout = str(self._reader.header["layout"])
        self.num_elements = int(self._reader.header["element_count"])
        self._dtype = str(self._reader.header["dtype"])
        if self._dtype not in ITEM_BYTES:
            raise UnsupportedFormatError(
                f"unified delta {source.name} is stored as {self._dtype!r}; upgrade condu to read it"
            )

    def chunk(self, index: int) -> Chunk:
        """A chunk as float32."""
        size = min(CHUNK_ELEMENTS, self.num_elements - index * CHUNK_ELEMENTS)
        present = unpack_bits(self._part(index, 0, size_bytes=-(-size // 8)), size)
        count = int(np.count_nonzero(present))
        item_bytes = ITEM_BYTES[self._dtype]
        stored = np.empty((count, item_bytes), dtype=np.uint8)
        stored[:, :-1] = (
            self._part(index, 1, size_bytes=count * (item_bytes - 1)).reshape(item_bytes - 1, count).T
        )
        stored[:, -1] = self._part(index, 2, size_bytes=count)
        flat = stored.reshape(-1)
        is_float32 = self._dtype == "float32"
        values = flat.view(np.float32) if is_float32 else _from_bfloat16(flat.view(np.uint16))
        if count == size:
            return values
        chunk = np.zeros(size, dtype=np.float32)
        chunk[present] = values
        return chunk

    def _part(self, index: int, part: int, *, size_bytes: int) -> Bytes:
        entry = index * PARTS + part
        return self._decoder.decode(
            self._reader.chunks[entry].codec,
            self._reader.payload(entry),
            size_bytes=size_bytes,
            what=f"part {part} of chunk {index} of unified delta {self._name}",
        )
