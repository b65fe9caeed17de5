"""Booleans as packed bits: element k is bit k % 8 of byte k // 8 (little-endian bit order)."""

import numpy as np
from jaxtyping import Bool, UInt8

PackedBits = UInt8[np.ndarray, " bytes"]


def pack_bits(bits: Bool[np.ndarray, " elements"]) -> PackedBits:
    """The bits in bytes; the last byte's unused high bits are zero."""
    return np.packbits(bits, bitorder="little")


def unpack_bits(packed: PackedBits, num_bits: int) -> Bool[np.ndarray, " elements"]:
    """The first `num_bits` bits as booleans."""
    return np.unpackbits(packed, count=num_bits, bitorder="little").view(np.bool_)


def count_bits(packed: PackedBits) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(packed).sum())
