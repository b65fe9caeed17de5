"""Loops over a chunk's elements, compiled: a value's bytes into planes and back, zeros left out and put back.

Each works on whole arrays of the caller's and lets other threads run. Elements are float32 seen as uint32.
They are compiled when this module is first imported, never while somebody waits for an answer, and kept in
numba's cache.
"""

from typing import no_type_check

import numpy as np
from numba import njit, types

from store.codecs.coding import Bytes
from store.codecs.forms import Values

_READ_ONLY = types.Array(types.uint32, 1, "C", readonly=True)


@njit(types.void(_READ_ONLY, types.uint32[::1]), nogil=True, cache=True)
@no_type_check
def leave_out_zeros(values: Values, kept: Values) -> None:
    """Copy the values that are not zero (of either sign) to `kept`, which has room for one more."""
    count = 0
    for i in range(values.size):
        kept[count] = values[i]
        count += (values[i] & np.uint32(0x7FFFFFFF)) != 0


@njit("void(uint32[::1], uint8[::1], uint32[::1])", nogil=True, cache=True)
@no_type_check
def put_back_zeros(kept: Values, present: Bytes, values: Values) -> None:
    """The inverse: `present` has a bit set for each of `values` that comes from `kept`; one more is read."""
    taken = np.uint64(0)  # an unsigned index is not looked at for being negative: twice as fast
    for i in range(present.size):
        bits = present[i]
        block = values[8 * i : 8 * i + 8]
        if bits == 0:
            for k in range(block.size):
                block[k] = 0
        elif bits == 255:
            for k in range(block.size):
                block[k] = kept[taken + np.uint64(k)]
            taken += np.uint64(block.size)
        else:
            for k in range(block.size):  # without a branch, which would be guessed wrong half the time
                bit = (bits >> np.uint8(k)) & np.uint8(1)
                block[k] = kept[taken] & (np.uint32(0) - np.uint32(bit))
                taken += np.uint64(bit)


@njit("void(uint32[::1], uint8[::1], uint8[::1], uint8[::1], uint8[::1])", nogil=True, cache=True)
@no_type_check
def split_float32(values: Values, first: Bytes, second: Bytes, third: Bytes, last: Bytes) -> None:
    """Each value's four bytes, the lowest first, into four planes."""
    for i in range(values.size):
        first[i] = np.uint8(values[i])
        second[i] = np.uint8(values[i] >> np.uint32(8))
        third[i] = np.uint8(values[i] >> np.uint32(16))
        last[i] = np.uint8(values[i] >> np.uint32(24))


@njit("void(uint8[::1], uint8[::1], uint8[::1], uint8[::1], uint32[::1])", nogil=True, cache=True)
@no_type_check
def join_float32(first: Bytes, second: Bytes, third: Bytes, last: Bytes, values: Values) -> None:
    """The inverse of `split_float32`."""
    for i in range(values.size):
        low = np.uint32(first[i]) | (np.uint32(second[i]) << np.uint32(8))
        high = np.uint32(third[i]) | (np.uint32(last[i]) << np.uint32(8))
        values[i] = low | (high << np.uint32(16))


@njit("void(uint32[::1], uint8[::1], uint8[::1])", nogil=True, cache=True)
@no_type_check
def split_bfloat16(values: Values, first: Bytes, last: Bytes) -> None:
    """Values that are not zero to bfloat16, nearest even, in two planes; what is left is written back.

    Neither zero nor infinity comes of a finite value: what would round to one becomes the number next to it.
    """
    for i in range(values.size):
        sign = (values[i] >> np.uint32(16)) & np.uint32(0x8000)
        size = values[i] & np.uint32(0x7FFFFFFF)
        half = (size + np.uint32(0x7FFF) + ((size >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        half = sign | min(max(half, np.uint32(1)), np.uint32(0x7F7F))
        first[i] = np.uint8(half)
        last[i] = np.uint8(half >> np.uint32(8))
        values[i] = half << np.uint32(16)


@njit("void(uint8[::1], uint8[::1], uint32[::1])", nogil=True, cache=True)
@no_type_check
def join_bfloat16(first: Bytes, last: Bytes, values: Values) -> None:
    """The inverse of `split_bfloat16`."""
    for i in range(values.size):
        values[i] = (np.uint32(first[i]) << np.uint32(16)) | (np.uint32(last[i]) << np.uint32(24))


@njit("int64(uint32[::1])", nogil=True, cache=True)
@no_type_check
def num_unusable(values: Values) -> int:
    """How many of the values are zero, infinite or no numbers."""
    count = 0
    for i in range(values.size):
        size = values[i] & np.uint32(0x7FFFFFFF)
        count += (size == 0) | (size >= np.uint32(0x7F800000))
    return count
