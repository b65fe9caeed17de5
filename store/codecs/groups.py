"""int8 and int4: a sign and a magnitude a value, and one scale for each 64 of the values that are not zero.

Level q of L (128 or 8) is the magnitude (2 q + 1) / (2 L) of the group's scale: no level is zero, so nothing
becomes zero and no sign is lost. Levels are evenly spaced: with entropy coding behind them, uneven ones gave
no smaller error for the same bytes (docs/decisions/0008). A scale is a float32 of three mantissa bits. Of
nine, from just above the group's largest magnitude down to about half of it, the one with the least squared
error is taken: an outlier is clipped where that serves the others. A product of a level and such a scale is
exact in float32, so that every machine reads the same values.
"""

from typing import final, no_type_check

import numpy as np
from jaxtyping import Float32, UInt16
from numba import njit

from store.codecs.coding import Bytes, Part, encode
from store.codecs.forms import Form, Pieces, Values
from store.errors import CorruptBlobError

GROUP = 64
_CANDIDATES = 9
_SCALES = (np.arange(0x7F8, dtype=np.uint32) << 20).view(np.float32)
"""By code: the upper 12 bits of a float32, so all positive ones that have three mantissa bits."""
_SMALLEST, _LARGEST = 0x0D8, 0x7F7
"""Codes of 2**-100, whose levels are far from vanishing, and of the largest that is finite."""

Floats = Float32[np.ndarray, " values"]
Scales = UInt16[np.ndarray, " groups"]


@final
class Grouped(Form):
    """Codes of 8 or 4 bits, and the scales' codes in two planes of bytes; each piece coded if that pays."""

    def __init__(self, code_bits: int) -> None:
        self._codes_per_byte = 8 // code_bits
        self._num_levels = 2 ** (code_bits - 1)

    def piece_sizes(self, count: int) -> tuple[int, ...]:
        num_groups = -(-count // GROUP)
        return -(-count // self._codes_per_byte), num_groups, num_groups

    def encode(self, values: Values) -> tuple[Part, ...]:
        floats = values.view(np.float32)
        scales = np.empty(-(-values.size // GROUP), dtype=np.uint16)
        codes = np.empty(values.size, dtype=np.uint8)
        choose_scales(values, floats, scales, self._num_levels)
        quantise(floats, scales, codes, self._num_levels)
        restore(codes, scales, floats, self._num_levels)
        if self._codes_per_byte == 2:
            packed = np.zeros(-(-values.size // 2), dtype=np.uint8)
            pair(codes, packed)
            codes = packed
        return encode(codes), encode(scales.astype(np.uint8)), encode((scales >> 8).astype(np.uint8))

    def decode(self, pieces: Pieces, values: Values, *, what: str) -> None:
        codes, low, high = pieces
        scales = low | (high.astype(np.uint16) << 8)
        if scales.size and not _SMALLEST <= scales.min() <= scales.max() <= _LARGEST:
            raise CorruptBlobError(
                f"scales of {what}", expected=f"{_SMALLEST} to {_LARGEST}", found=f"up to {scales.max()}"
            )
        if self._codes_per_byte == 2:
            packed, codes = codes, np.empty(values.size, dtype=np.uint8)
            unpair(packed, codes)
        restore(codes, scales, values.view(np.float32), self._num_levels)


@njit("void(uint32[::1], float32[::1], uint16[::1], int64)", nogil=True, cache=True)
@no_type_check
def choose_scales(values: Values, floats: Floats, scales: Scales, num_levels: int) -> None:
    """The code of each group's scale; `values` and `floats` are the same memory.

    Errors are summed as integers, so that the choice does not depend on how wide the processor's registers
    are. More than 16 steps off counts as 16, which no scale that is chosen comes near.
    """
    last = np.int32(num_levels - 1)
    for group in range(scales.size):
        largest = np.uint32(0)
        for value in values[GROUP * group : GROUP * (group + 1)]:
            largest = max(largest, value & np.uint32(0x7FFFFFFF))
        block = floats[GROUP * group : GROUP * (group + 1)]
        first = np.int64(largest >> np.uint32(20)) + 1
        least = np.inf
        for candidate in range(first, first - _CANDIDATES, -1):
            code = min(max(candidate, _SMALLEST), _LARGEST)
            steps = np.float32(num_levels) / _SCALES[code]
            total = np.int32(0)
            for i in range(block.size):
                place = abs(block[i]) * steps
                level = min(np.int32(place), last)
                off = place - (np.float32(level) + np.float32(0.5))
                total += np.int32(min(off * off, np.float32(256)) * np.float32(4096))
            error = total * (np.float64(_SCALES[code]) * np.float64(_SCALES[code]))
            if error < least:
                least = error
                scales[group] = code


@njit("void(float32[::1], uint16[::1], uint8[::1], int64)", nogil=True, cache=True)
@no_type_check
def quantise(floats: Floats, scales: Scales, codes: Bytes, num_levels: int) -> None:
    """The level of each value, plus `num_levels` where it is negative."""
    last = np.int32(num_levels - 1)
    for group in range(scales.size):
        steps = np.float32(num_levels) / _SCALES[scales[group]]
        block = floats[GROUP * group : GROUP * (group + 1)]
        target = codes[GROUP * group : GROUP * (group + 1)]
        for i in range(block.size):
            level = min(np.int32(abs(block[i]) * steps), last)
            target[i] = np.uint8(level + (num_levels if block[i] < 0 else 0))


@njit("void(uint8[::1], uint16[::1], float32[::1], int64)", nogil=True, cache=True)
@no_type_check
def restore(codes: Bytes, scales: Scales, floats: Floats, num_levels: int) -> None:
    """The inverse of `quantise`, as near as the levels are."""
    for group in range(scales.size):
        half_step = _SCALES[scales[group]] / np.float32(2 * num_levels)
        block = codes[GROUP * group : GROUP * (group + 1)]
        target = floats[GROUP * group : GROUP * (group + 1)]
        for i in range(block.size):
            code = np.int32(block[i])
            size = np.float32(2 * (code & np.int32(num_levels - 1)) + 1) * half_step
            target[i] = -size if code >= num_levels else size


@njit("void(uint8[::1], uint8[::1])", nogil=True, cache=True)
@no_type_check
def pair(codes: Bytes, packed: Bytes) -> None:
    """Codes of four bits, two a byte, the first one low; the upper half of an odd last byte stays zero."""
    for i in range(codes.size // 2):
        packed[i] = codes[2 * i] | (codes[2 * i + 1] << np.uint8(4))
    if codes.size % 2:
        packed[codes.size // 2] = codes[codes.size - 1]


@njit("void(uint8[::1], uint8[::1])", nogil=True, cache=True)
@no_type_check
def unpair(packed: Bytes, codes: Bytes) -> None:
    """The inverse of `pair`."""
    for i in range(codes.size // 2):
        codes[2 * i] = packed[i] & np.uint8(15)
        codes[2 * i + 1] = packed[i] >> np.uint8(4)
    if codes.size % 2:
        codes[codes.size - 1] = packed[codes.size // 2] & np.uint8(15)
