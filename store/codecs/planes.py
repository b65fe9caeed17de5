"""float32 (exact) and bfloat16 (nearest even, relative error at most 2**-8) as planes of bytes.

Of the values that are not zero, all bytes but the last stand in planes, as they are; their last bytes, signs
and exponents, are coded and compress well. The lower bytes are never coded: a fresh delta, a difference of
floats, has zeros in its lowest bits, but they fill up as soon as a fusion rescales it. Coding them would make
the first task look cheap and charge it to those after it.
"""

from typing import final

import numpy as np

from store.codecs.coding import Part, encode
from store.codecs.forms import Form, Pieces, Values
from store.codecs.kernels import (
    join_bfloat16,
    join_float32,
    num_unusable,
    split_bfloat16,
    split_float32,
)
from store.errors import CorruptBlobError


@final
class Float32(Form):
    """Four bytes a value."""

    def piece_sizes(self, count: int) -> tuple[int, ...]:
        return 3 * count, count

    def encode(self, values: Values) -> tuple[Part, ...]:
        planes, last = np.empty((3, values.size), dtype=np.uint8), np.empty(values.size, dtype=np.uint8)
        split_float32(values, *planes, last)
        return ("raw", planes.reshape(-1).data), encode(last)

    def decode(self, pieces: Pieces, values: Values, *, what: str) -> None:
        planes, last = pieces
        join_float32(*planes.reshape(3, values.size), last, values)
        _check(values, what)


@final
class BFloat16(Form):
    """The upper half of a float32, rounded; never to zero or infinity, but to the number next to it."""

    def piece_sizes(self, count: int) -> tuple[int, ...]:
        return count, count

    def encode(self, values: Values) -> tuple[Part, ...]:
        first, last = np.empty((2, values.size), dtype=np.uint8)
        split_bfloat16(values, first, last)
        return ("raw", first.data), encode(last)

    def decode(self, pieces: Pieces, values: Values, *, what: str) -> None:
        join_bfloat16(*pieces, values)
        _check(values, what)


def _check(values: Values, what: str) -> None:
    if num_unusable(values):
        raise CorruptBlobError(
            f"values of {what}", expected="finite numbers other than zero", found="other values among them"
        )
