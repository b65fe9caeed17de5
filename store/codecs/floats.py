"""A flat float buffer as bytes, in float32 (exact) or bfloat16 (nearest even, relative error at most 2**-8).

Each chunk is stored as byte planes: all first bytes of the values, then all second bytes, and so on, each
plane coded on its own. Signs and exponents lie in the last plane and compress well. Of the others only zeros
are coded, the entries that no task ever changed. A fresh delta, a difference of floats, has zeros in its
lowest bits too, but they fill up as soon as a fusion rescales it: coding them would save the first task 11%
and charge it to the tasks after it.
"""

import numpy as np
from jaxtyping import Float32, UInt16

from store.codecs.coding import ZEROS_LEVEL, ChunkDecoder, ChunkEncoder
from store.codecs.container import ArtefactReader, ArtefactWriter, Sink, Source
from store.errors import UnsupportedFormatError
from store.parameters import CHUNK_ELEMENTS

KIND = "unified"
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
        self._zeros_encoder, self._dense_encoder = ChunkEncoder(ZEROS_LEVEL), ChunkEncoder()
        self._dtype = dtype

    def add(self, values: Chunk) -> None:
        """Append the next chunk; values must be exact in the stored dtype (see `round_to`)."""
        stored = values if self._dtype == "float32" else _to_bfloat16(values)
        *low, high = np.ascontiguousarray(stored.view(np.uint8).reshape(-1, ITEM_BYTES[self._dtype]).T)
        for plane in low:
            self._writer.add(*self._zeros_encoder.encode(plane))
        self._writer.add(*self._dense_encoder.encode(high))

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
        item_bytes = ITEM_BYTES[self._dtype]
        stored = np.empty((size, item_bytes), dtype=np.uint8)
        for plane in range(item_bytes):
            entry = index * item_bytes + plane
            stored[:, plane] = self._decoder.decode(
                self._reader.chunks[entry].codec,
                self._reader.payload(entry),
                size_bytes=size,
                what=f"plane {plane} of chunk {index} of unified delta {self._name}",
            )
        flat = stored.reshape(-1)
        return flat.view(np.float32) if self._dtype == "float32" else _from_bfloat16(flat.view(np.uint16))
