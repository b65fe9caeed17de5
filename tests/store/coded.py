"""Artefacts in memory, written and read by the store's own codecs, for its tests."""

import io

from store.codecs.bits import MaskReader, MaskWriter, encode_mask
from store.codecs.floats import FloatReader, FloatWriter, encode_floats
from store.parameters import CHUNK_ELEMENTS

LAYOUT = "1a" * 32


class InMemory:
    """An artefact's bytes as a source of ranges of them."""

    def __init__(self, content):
        self.content = memoryview(bytearray(content))
        self.name = "in-memory"
        self.size_bytes = len(content)

    def read(self, start, length):
        return self.content[start : start + length]


def unified_artefact(values, dtype):
    """The bytes of an artefact that holds these values."""
    sink = io.BytesIO()
    writer = FloatWriter(sink, layout=LAYOUT, num_elements=len(values), dtype=dtype)
    for start in range(0, len(values), CHUNK_ELEMENTS):
        writer.add(encode_floats(values[start : start + CHUNK_ELEMENTS], dtype))
    writer.finish()
    return sink.getvalue()


def mask_artefact(packed, num_bits):
    """The bytes of an artefact that holds these packed bits."""
    sink = io.BytesIO()
    writer = MaskWriter(sink, layout=LAYOUT, num_bits=num_bits)
    for start in range(0, len(packed), CHUNK_ELEMENTS // 8):
        writer.add(*encode_mask(packed[start : start + CHUNK_ELEMENTS // 8]))
    writer.finish()
    return sink.getvalue()


def read_unified(content):
    """All values of an artefact, chunk by chunk."""
    reader = FloatReader(InMemory(content))
    return [reader.chunk(index) for index in range(reader.num_chunks)]


def read_mask(content):
    """All packed bits of an artefact, chunk by chunk."""
    reader = MaskReader(InMemory(content))
    return [reader.chunk(index) for index in range(reader.num_chunks)]
